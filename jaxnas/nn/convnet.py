"""The NAS-Bench-201 skeleton around a cell: stem, three stages, residual reductions, head.

Dong & Yang, arXiv:2001.00326, section 2.1; the same skeleton for sequences, whose one spatial axis
takes the place of two.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import relu
from jaxtyping import Array, Float

from jaxnas.nn.ops import Conv, Map, Norm


class Residual(nn.Module):
    """Halves the map: two 3-wide convolutions beside a pooled 1-wide shortcut."""

    features: int
    track: bool = True

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        """Maps `[B, *space, C]` to `[B, *space / 2, features]`."""
        y = Norm(track=self.track)(Conv(self.features, 3, stride=2)(relu(x)), train)
        y = Norm(track=self.track)(Conv(self.features, 3)(relu(y)), train)
        return y + Conv(self.features, 1)(_halve(x))


def _halve(x: Map) -> Map:
    """Mean of 2 points per axis at stride 2; an odd rest counts alone."""
    for axis in range(1, x.ndim - 1):
        n = x.shape[axis]
        pad = [(0, 0)] * x.ndim
        pad[axis] = (0, n % 2)
        even = jnp.pad(x, pad, mode="edge")
        pairs = even.reshape(*x.shape[:axis], -(-n // 2), 2, *x.shape[axis + 1 :])
        x = pairs.mean(axis + 1)
    return x


class CellNet(nn.Module):
    """Stem, three stages of `layers` cells, two reductions, global mean, linear.

    Attributes:
      cell: `(channels, [name]) -> module`, called as `module(x, *args, train=...)`.
      classes: number of outputs.
      channels: channels of the first stage, doubled at each reduction.
      layers: cells per stage.
      track: running statistics in batch norm; off in search mode.
      stacked: whether the cells of a stage are one loop over parameters with a leading axis of
        `layers`, in modules named `stacked_*`: a fifth of the program to compile.
    """

    cell: Callable[..., nn.Module]
    classes: int
    channels: int = 16
    layers: int = 5
    track: bool = True
    stacked: bool = False

    @nn.compact
    def __call__(
        self, x: Float[Array, "B *space C"], *args: Any, train: bool
    ) -> Float[Array, "B K"]:
        """Logits of a batch; `args` go to every cell."""
        x = Norm(track=self.track)(Conv(self.channels, 3)(x), train)
        for stage in range(3):
            width = self.channels << stage
            if stage:
                x = Residual(width, track=self.track)(x, train)
            x = self._cells(f"stacked_{stage}", width, x, args, train)
        x = relu(Norm(track=self.track)(x, train))
        x = x.mean(tuple(range(1, x.ndim - 1)))
        return nn.Dense(self.classes)(x.astype(jnp.float32))

    def _cells(self, name: str, width: int, x: Map, args: tuple[Any, ...], train: bool) -> Map:
        if not self.stacked:
            for _ in range(self.layers):
                x = self.cell(width)(x, *args, train=train)
            return x
        loop = nn.scan(
            lambda cell, x, _: (cell(x, *args, train=train), None),
            variable_axes={"params": 0, "batch_stats": 0},
            split_rngs={"params": True},
            length=self.layers,
        )
        return loop(self.cell(width, name=name), x, None)[0]
