"""The DARTS skeleton: a chain of cells, each of which reads the two before it.

Liu, Simonyan & Yang, arXiv:1806.09055, after Zoph et al., arXiv:1707.07012: a stem, `layers` cells
of which those at one third and two thirds halve the map and double the channels, a global mean, a
linear classifier, and beside the last reduction an auxiliary classifier. The same for sequences.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn import relu
from jaxtyping import Array, Float

from jaxnas.nn.ops import Conv, Map, Norm

STEMS = ("cifar", "imagenet")


class ChainNet(nn.Module):
    """Stem, chain of cells, head.

    Attributes:
      cell: `(channels, reduction, reduced, name=...) -> module`, called as
        `module(before, last, *args, train=...)`; `reduced` tells that `before` is still twice as
        large as `last`.
      classes: number of outputs.
      channels: channels of the first cells, `C`.
      layers: number of cells, `L`.
      stem: `cifar`, one convolution to `3 C`; `imagenet`, three that divide the size by eight.
      auxiliary: whether there is an auxiliary classifier.
      track: running statistics in batch norm; off in search mode.
    """

    cell: Callable[..., nn.Module]
    classes: int
    channels: int
    layers: int
    stem: str = "cifar"
    auxiliary: bool = False
    track: bool = True

    @nn.compact
    def __call__(self, x: Float[Array, "B *space C"], *args: Any, train: bool) -> Any:
        """Logits `[B, K]` of a batch; in training with those of the auxiliary classifier.

        `args` go to every cell.
        """
        pair, width, side = self._stem(x, train), self.channels, None
        halving, first = reductions(self.layers), 0
        while first < self.layers:
            length = _equal_cells(first, self.layers, pair)
            width *= 1 + (first in halving)
            reduced = first - 1 in halving or (first == 0 and self.stem == "imagenet")
            cell = self.cell(width, first in halving, reduced, name=_name(first, length))
            pair = _chained(cell, length, pair, args, train)
            if first == 2 * self.layers // 3 and self._wants_side(train):
                side = AuxiliaryHead(self.classes, self.stem == "cifar")(pair[1], train)
            first += length
        y = pair[1].mean(tuple(range(1, x.ndim - 1)))
        logits = nn.Dense(self.classes)(y.astype(jnp.float32))
        return (logits, side) if self.auxiliary and train else logits

    def _wants_side(self, train: bool) -> bool:
        return self.auxiliary and (train or self.is_initializing())

    def _stem(self, x: Map, train: bool) -> tuple[Map, Map]:
        if self.stem == "cifar":
            x = Norm(track=self.track)(Conv(3 * self.channels, 3)(x), train)
            return x, x
        x = Norm(track=self.track)(Conv(self.channels // 2, 3, stride=2)(x), train)
        x = Norm(track=self.track)(Conv(self.channels, 3, stride=2)(relu(x)), train)
        y = Norm(track=self.track)(Conv(self.channels, 3, stride=2)(relu(x)), train)
        return x, y


class AuxiliaryHead(nn.Module):
    """A second classifier beside the last reduction, whose loss helps to train what is below.

    Attributes:
      classes: number of outputs.
      norm: whether a norm follows the second convolution (not on ImageNet).
    """

    classes: int
    norm: bool = True

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Float[Array, "B K"]:
        """Logits of a batch."""
        x = Norm()(Conv(128, 1)(_ends(relu(x))), train)
        # A convolution two points wide on a map of two points per axis.
        x = nn.Dense(768, use_bias=False, dtype=x.dtype)(relu(x).reshape(x.shape[0], -1))
        x = Norm()(x, train) if self.norm else x
        return nn.Dense(self.classes)(relu(x).astype(jnp.float32))


def _ends(x: Map, size: int = 5) -> Map:
    """Means over the first and the last `size` points per axis.

    On maps of 8 points that is the papers' pooling at stride 3, on maps of 7 at stride 2.
    """
    for axis in range(1, x.ndim - 1):
        n = x.shape[axis]
        bounds = (0, min(size, n)), (max(n - size, 0), n)
        means = [jax.lax.slice_in_dim(x, *b, axis=axis).mean(axis, keepdims=True) for b in bounds]
        x = jnp.concatenate(means, axis)
    return x


def reductions(layers: int) -> tuple[int, int]:
    """The cells that halve the map."""
    return layers // 3, 2 * layers // 3


def _equal_cells(first: int, layers: int, pair: tuple[Map, Map]) -> int:
    """How many cells from `first` on are equal.

    All to the end of the stage, once both inputs have the shape of the outputs of that stage.
    """
    halving = reductions(layers)
    settled = first > 0 and not {first, first - 1} & set(halving)
    if settled and pair[0].shape == pair[1].shape:
        return min(r for r in (*halving, layers) if r > first) - first
    return 1


def _name(first: int, length: int) -> str:
    return f"cell_{first}" if length == 1 else f"stacked_{first}_{first + length - 1}"


def _chained(
    cell: nn.Module, length: int, pair: tuple[Map, Map], args: tuple[Any, ...], train: bool
) -> tuple[Map, Map]:
    """Applies `length` equal cells; several are one loop over parameters with a leading axis."""
    if length == 1:
        return pair[1], cell(*pair, *args, train=train)
    loop = nn.scan(
        lambda cell, pair, _: ((pair[1], cell(*pair, *args, train=train)), None),
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True, "dropout": True},
        length=length,
    )
    return loop(cell, pair, None)[0]
