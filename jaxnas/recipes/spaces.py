"""Spaces whose genotypes can be trained for long: how their text is read, what is built from it.

To add one, write its genotypes and its network, a line in `SPACES` and its presets in `training`.
"""

import importlib
from typing import Any, NamedTuple


class Space(NamedTuple):
    """Where the parts of a space are, as `module:function`; imported when needed.

    Attributes:
      read: `(text) -> genotype`.
      write: `(genotype) -> text`.
      network: `(genotype, classes=, channels=, layers=, **options) -> Network`.
      module: the same, `-> Linen module`, called `module(x, train=...)`.
      options: what its networks take beyond their size: `auxiliary` (a head), `drop_path` (a rate).
      paper: what to cite.
    """

    read: str
    write: str
    network: str
    module: str
    options: tuple[str, ...]
    paper: str


SPACES = {
    "nas_bench_201": Space(
        "jaxnas.cells.nas_bench_201:from_text",
        "jaxnas.cells.nas_bench_201:to_text",
        "jaxnas.cells.nas_bench_201_net:fixed_network",
        "jaxnas.cells.nas_bench_201_net:fixed_module",
        (),
        "Dong & Yang, NAS-Bench-201, ICLR 2020, arXiv:2001.00326",
    ),
    "darts": Space(
        "jaxnas.cells.darts_space:from_text",
        "jaxnas.cells.cell_text:to_text",
        "jaxnas.cells.darts_net:network",
        "jaxnas.cells.darts_net:module",
        ("auxiliary", "drop_path"),
        "Liu et al., DARTS, ICLR 2019, arXiv:1806.09055",
    ),
    "nasnet": Space(
        "jaxnas.cells.nasnet_space:from_text",
        "jaxnas.cells.cell_text:to_text",
        "jaxnas.cells.darts_net:network",
        "jaxnas.cells.darts_net:module",
        ("auxiliary", "drop_path"),
        "Zoph et al., CVPR 2018, arXiv:1707.07012; Real et al., AAAI 2019, arXiv:1802.01548",
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


def function(place: str) -> Any:
    """The function at `module:function`."""
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)
