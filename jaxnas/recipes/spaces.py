"""Spaces whose genotypes can be trained for long: how their text is read, what is built from it.

To add one, write its genotypes and its network and add a line to `SPACES`.
"""

import importlib
from typing import Any, NamedTuple

from flax import linen as nn

from jaxnas.nn.network import Network


class Space(NamedTuple):
    """Where the parts of a space are; imported when needed.

    Attributes:
      texts: module with `from_text(text) -> genotype` and `to_text`.
      networks: module with the two functions below, of a genotype and `classes`, `channels`,
        `layers` and `options`.
      network: name of the function that gives a `Network`.
      module: name of the function that gives its Linen module, called `module(x, train=...)`.
      options: what its networks take beyond that: `auxiliary` (a head), `drop_path` (a rate).
      paper: what to cite.
    """

    texts: str
    networks: str
    network: str
    module: str
    options: tuple[str, ...]
    paper: str


SPACES = {
    "nas_bench_201": Space(
        "jaxnas.cells.nas_bench_201",
        "jaxnas.cells.nas_bench_201_net",
        "fixed_network",
        "fixed_module",
        (),
        "Dong & Yang, NAS-Bench-201, ICLR 2020, arXiv:2001.00326",
    ),
    "darts": Space(
        "jaxnas.cells.darts_space",
        "jaxnas.cells.darts_net",
        "network",
        "module",
        ("auxiliary", "drop_path"),
        "Liu et al., DARTS, ICLR 2019, arXiv:1806.09055",
    ),
}


def find(name: str) -> Space:
    """A space by name.

    Raises:
      ValueError: if there is none of that name.
    """
    if name not in SPACES:
        raise ValueError(f"Unknown space {name!r}; there are {', '.join(SPACES)}.")
    return SPACES[name]


def read(space: Space, text: str) -> Any:
    """The genotype of a text.

    Raises:
      ValueError: saying what is wrong with it.
    """
    return importlib.import_module(space.texts).from_text(text)


def write(space: Space, genotype: Any) -> str:
    """The text of a genotype."""
    return importlib.import_module(space.texts).to_text(genotype)


def network(space: Space, genotype: Any, **shape: Any) -> Network:
    """The network of a genotype, to train."""
    return getattr(importlib.import_module(space.networks), space.network)(genotype, **shape)


def module(space: Space, genotype: Any, **shape: Any) -> nn.Module:
    """The Linen module of a genotype, to export."""
    return getattr(importlib.import_module(space.networks), space.module)(genotype, **shape)
