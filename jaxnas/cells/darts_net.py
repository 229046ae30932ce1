"""The network of one pair of cells, as DARTS, NASNet and AmoebaNet are trained in the end.

Liu, Simonyan & Yang, arXiv:1806.09055; Zoph et al., arXiv:1707.07012; Real et al.,
arXiv:1802.01548.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from jaxnas.cells.cell_text import Entries, Genotype
from jaxnas.nn.cell_ops import OPERATIONS, FactorizedReduce, ReluConvNorm
from jaxnas.nn.chain import STEMS, ChainNet
from jaxnas.nn.network import Network, count_params, from_linen
from jaxnas.nn.ops import Map


class FixedCell(nn.Module):
    """One cell with its operations written out.

    Attributes:
      entries: operation and state it reads, two per node; states 0 and 1 are the inputs.
      concat: states that make up the output.
      channels: channels of every state.
      reduction: whether the cell halves the map.
      reduced: whether its first input is still twice as large as the second.
    """

    entries: Entries
    concat: tuple[int, ...]
    channels: int
    reduction: bool
    reduced: bool

    @nn.compact
    def __call__(self, before: Map, last: Map, rate: Any = None, *, train: bool) -> Map:
        """The output `[B, *space, C * len(concat)]`; `rate` is that of drop-path, if any."""
        first = FactorizedReduce if self.reduced else ReluConvNorm
        states = [
            first(self.channels, name="input_0")(before, train),
            ReluConvNorm(self.channels, name="input_1")(last, train),
        ]
        for n in range(0, len(self.entries), 2):
            states.append(sum(self._entry(i, states, rate, train) for i in (n, n + 1)))
        return jnp.concatenate([states[i] for i in self.concat], -1)

    def _entry(self, n: int, states: list[Map], rate: Any, train: bool) -> Any:
        op, source = self.entries[n]
        stride = 2 if self.reduction and source < 2 else 1
        y = OPERATIONS[op](stride=stride, name=f"entry_{n}_{op}")(states[source], train)
        if rate is None or not train or (op == "skip_connect" and stride == 1):
            return y
        return drop_path(self.make_rng("dropout"), y, rate)


def drop_path(key: Key[Array, ""], x: Map, rate: Float[Array, ""]) -> Map:
    """Zeroes whole examples with probability `rate`, scaling the others to the same mean."""
    kept = jax.random.bernoulli(key, 1 - rate, (x.shape[0], *[1] * (x.ndim - 1)))
    return x * (kept / (1 - rate)).astype(x.dtype)


class DartsNet(nn.Module):
    """The network of a genotype.

    Attributes:
      chain: everything but drop-path.
      drop_path: its rate at the end of training; it grows from zero with `done` in the collection
        `progress`, the share of training made, which whoever trains sets.
    """

    chain: ChainNet
    drop_path: float = 0.0

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], train: bool) -> Any:
        """Logits `[B, K]`; in training with those of the auxiliary classifier, if there is one."""
        if not self.drop_path:
            return self.chain(x, train=train)
        done = self.variable("progress", "done", lambda: jnp.zeros((), jnp.float32))
        return self.chain(x, self.drop_path * done.value, train=train)


def module(
    genotype: Genotype,
    *,
    classes: int,
    channels: int = 36,
    layers: int = 20,
    auxiliary: bool = False,
    drop_path: float = 0.0,
    stem: str = "cifar",
) -> DartsNet:
    """The Flax module behind `network`, for export and for other people's loops."""
    if stem not in STEMS:
        raise ValueError(f"`stem` must be one of {', '.join(STEMS)}, but got {stem!r}.")
    if not 0 <= drop_path < 1:
        raise ValueError(f"`drop_path` must be at least 0 and below 1, but got {drop_path}.")
    for name, value in (("classes", classes), ("channels", channels), ("layers", layers)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, but got {value}.")
    cell = partial(_cell, genotype)
    return DartsNet(ChainNet(cell, classes, channels, layers, stem, auxiliary), drop_path)


def _cell(
    genotype: Genotype, channels: int, reduction: bool, reduced: bool, name: str
) -> FixedCell:
    parts = genotype[2:] if reduction else genotype[:2]
    return FixedCell(*parts, channels, reduction, reduced, name=name)


def network(
    genotype: Genotype,
    *,
    classes: int,
    channels: int = 36,
    layers: int = 20,
    auxiliary: bool = False,
    drop_path: float = 0.0,
    stem: str = "cifar",
) -> Network:
    """The network of a pair of cells.

    Args:
      genotype: the cells, from `from_text` of a space.
      classes: number of outputs.
      channels: channels of the first cells, `C`.
      layers: number of cells, `L`.
      auxiliary: adds the auxiliary classifier; in training the output is then `(logits, auxiliary
        logits)`.
      drop_path: rate of drop-path at the end of training. Above 0 the variables hold `progress`,
        see `DartsNet`, and training needs the random stream `dropout`.
      stem: `cifar`, or `imagenet` for large images.

    Returns:
      A `Network` on `[B, H, W, C]` images or `[B, L, C]` sequences.

    Raises:
      ValueError: for an unknown stem, a rate outside of [0, 1) or a size below 1.

    Example:
      >>> from jaxnas.cells import darts_space
      >>> net = network(darts_space.from_text("DARTS_V2"), classes=10, channels=4, layers=3)
      >>> variables = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    """
    return from_linen(
        module(
            genotype,
            classes=classes,
            channels=channels,
            layers=layers,
            auxiliary=auxiliary,
            drop_path=drop_path,
            stem=stem,
        )
    )


def params(
    genotype: Genotype,
    *,
    classes: int,
    channels: int = 36,
    layers: int = 20,
    auxiliary: bool = False,
    stem: str = "cifar",
    inputs: int = 3,
) -> int:
    """Exact number of trainable parameters of the 2-D network, affine batch norms included.

    Args:
      genotype: the cells.
      classes: number of outputs.
      channels: channels of the first cells, `C`.
      layers: number of cells, `L`.
      auxiliary: whether the auxiliary classifier counts.
      stem: `cifar` or `imagenet`.
      inputs: channels of the image.
    """
    net = network(
        genotype, classes=classes, channels=channels, layers=layers, auxiliary=auxiliary, stem=stem
    )
    image = jnp.zeros((1, 32, 32, inputs))
    return count_params(jax.eval_shape(net.init, jax.random.key(0), image))
