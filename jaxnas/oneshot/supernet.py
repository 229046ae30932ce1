"""The NAS-Bench-201 supernet: every edge computes the weighted sum of all five operations.

Edges that read the same node are fused: their 3-wide convolutions are one convolution with the
outputs side by side, likewise the 1-wide ones, and the node is pooled once. Batch norm is in search
mode as the papers have it: statistics of the batch at hand, in training and validation alike; no
scale or shift inside cells; both in the stem, the reductions and the head.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import relu
from jaxtyping import Array, Float, Key, PyTree

from jaxnas.cells.nas_bench_201 import CONV1, CONV3, EDGES, NODES, OPS, POOL, SKIP
from jaxnas.nn.convnet import CellNet
from jaxnas.nn.network import from_linen
from jaxnas.nn.ops import Conv, Map, avg_pool, normalise


class Supernet(NamedTuple):
    """What a bilevel search needs to know of a supernet.

    Attributes:
      init: `(key, x) -> weights`; `x` gives only shapes.
      logits: `(weights, mix, x) -> [B, K]`.
      edges: number of edges that are decided.
      ops: names of the operations every edge chooses from.
      skip: index of the identity in `ops`.
      learned: indices of the operations that have weights.
    """

    init: Callable[[Key[Array, ""], Array], PyTree]
    logits: Callable[[PyTree, PyTree, Array], Float[Array, "B K"]]
    edges: int
    ops: tuple[str, ...]
    skip: int
    learned: tuple[int, ...]


class MixedCell(nn.Module):
    """One cell of the supernet, fused by source node."""

    channels: int

    @nn.compact
    def __call__(self, x: Map, mix: Float[Array, "6 5"], train: bool) -> Map:
        """Maps `[B, *space, C]` to the same shape under mixing weights `mix`."""
        del train
        nodes = [x, *[jnp.zeros((), x.dtype)] * (NODES - 1)]
        for source in range(NODES - 1):
            x, targets = nodes[source], range(source + 1, NODES)
            weights = jnp.stack([mix[EDGES.index((source, i))] for i in targets])
            active = relu(x)
            mixed = self._convolved(active, weights[:, CONV3], 3, f"conv3_{source}")
            mixed += self._convolved(active, weights[:, CONV1], 1, f"conv1_{source}")
            pooled = avg_pool(x)
            for n, (node, part) in enumerate(
                zip(targets, jnp.split(mixed, len(targets), axis=-1), strict=True)
            ):
                w = weights[n].astype(x.dtype)
                nodes[node] = nodes[node] + part + w[SKIP] * x + w[POOL] * pooled
        return nodes[-1]

    def _convolved(self, x: Map, weight: Float[Array, " n"], size: int, name: str) -> Map:
        y = Conv(self.channels * weight.shape[0], size, name=name)(x)
        return normalise(y, jnp.repeat(weight, self.channels))


def supernet(*, classes: int, channels: int = 16, layers: int = 5) -> Supernet:
    """The supernet over NAS-Bench-201 cells.

    Args:
      classes: number of outputs.
      channels: channels of the first stage, `C`.
      layers: cells per stage, `N`.

    Returns:
      A `Supernet` on `[B, H, W, C]` images or `[B, L, C]` sequences, mixed by weights `[6, 5]`.
    """
    module = CellNet(MixedCell, classes, channels, layers, track=False, stacked=True)

    def init(key: Key[Array, ""], x: Array) -> PyTree:
        mix = jnp.zeros((len(EDGES), len(OPS)))
        return from_linen(module, mix).init(key, x)["params"]

    def logits(weights: PyTree, mix: Float[Array, "6 5"], x: Array) -> Float[Array, "B K"]:
        y: Any = module.apply({"params": weights}, x, mix, train=True)
        return y

    return Supernet(init, logits, len(EDGES), OPS, SKIP, (CONV1, CONV3))
