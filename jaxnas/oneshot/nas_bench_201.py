"""The NAS-Bench-201 supernet: every edge computes the weighted sum of all five operations.

Edges that read the same node are fused: their 3-wide convolutions are one convolution with the
outputs side by side, likewise the 1-wide ones, and the node is pooled once. Batch norm is in search
mode as the papers have it: statistics of the batch at hand, in training and validation alike; no
scale or shift inside cells; both in the stem, the reductions and the head.
"""

from functools import partial as bind
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jax.nn import relu
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxnas.cells.nas_bench_201 import CONV1, CONV3, DTYPE, EDGES, NODES, OPS, POOL, SKIP
from jaxnas.nn.convnet import CellNet
from jaxnas.nn.network import from_linen
from jaxnas.nn.ops import Map, avg_pool, conv, fan_in_uniform, normalise
from jaxnas.oneshot.supernet import Choices, Mix, Supernet, part_of, shuffle

CHOICES = Choices((OPS,) * len(EDGES), tuple(node - 1 for _, node in EDGES), kinds=1, keep=0)


class EdgeConvs(nn.Module):
    """Convolutions of several edges that read the same map, each normalised and weighed.

    Their kernels are stacked on a leading axis, `[edges, *k, C, C]`, under a module whose name
    begins with `stacked` (see `nn.network.fill`).

    Attributes:
      size: points per axis, odd.
    """

    size: int

    @nn.compact
    def __call__(self, x: Map, weights: Float[Array, " n"]) -> Map:
        """Maps `[B, *space, C]` to `[B, *space, n C]`."""
        channels, n = x.shape[-1], weights.shape[0]
        shape = (n, *[self.size] * (x.ndim - 2), channels, channels)
        kernel = jnp.moveaxis(self.param("kernel", fan_in_uniform, shape), 0, -2)
        kernel = kernel.reshape(*shape[1:-1], n * channels).astype(x.dtype)
        return normalise(conv(x, kernel), jnp.repeat(weights, channels))


class MixedCell(nn.Module):
    """One cell of the supernet, fused by source node.

    Attributes:
      channels: channels in and out.
      partial: one in `partial` channels goes through the operations, the others around them; all
        are shuffled at every node (PC-DARTS, arXiv:1907.05737).
    """

    channels: int
    partial: int = 1

    @nn.compact
    def __call__(self, x: Map, mix: Mix, train: bool) -> Map:
        """Maps `[B, *space, C]` to the same shape under the weights of `mix`."""
        del train
        part = part_of(self.channels, self.partial)
        inside, around = [[jnp.zeros((), x.dtype)] * NODES for _ in range(2)]
        for source in range(NODES - 1):
            if source:
                x = self._joined(inside[source], around[source])
            targets = range(source + 1, NODES)
            rows = jnp.array([EDGES.index((source, i)) for i in targets])
            weights = mix.ops[rows] * mix.edges[rows, None]
            part_in, part_around = x[..., :part], x[..., part:]
            active, pooled = relu(part_in), avg_pool(part_in)
            mixed = EdgeConvs(3, name=f"stacked_conv3_{source}")(active, weights[:, CONV3])
            mixed += EdgeConvs(1, name=f"stacked_conv1_{source}")(active, weights[:, CONV1])
            weights, factors = weights.astype(x.dtype), mix.edges[rows].astype(x.dtype)
            for n, (node, y) in enumerate(
                zip(targets, jnp.split(mixed, len(targets), axis=-1), strict=True)
            ):
                inside[node] += y + weights[n, SKIP] * part_in + weights[n, POOL] * pooled
                around[node] += factors[n] * part_around
        return self._joined(inside[-1], around[-1])

    def _joined(self, inside: Map, around: Map) -> Map:
        if self.partial == 1:
            return inside
        return shuffle(jnp.concatenate([inside, around], -1), self.partial)


def supernet(*, classes: int, channels: int = 16, layers: int = 5, partial: int = 1) -> Supernet:
    """The supernet over NAS-Bench-201 cells.

    Args:
      classes: number of outputs.
      channels: channels of the first stage, `C`.
      layers: cells per stage, `N`.
      partial: one in `partial` channels goes through the operations.

    Returns:
      A `Supernet` on `[B, H, W, C]` images or `[B, L, C]` sequences.

    Raises:
      ValueError: if `channels` is not divisible by `partial`.
    """
    part_of(channels, partial)
    cell = bind(MixedCell, partial=partial)
    module = CellNet(cell, classes, channels, layers, track=False, stacked=True)

    def init(key: Key[Array, ""], x: Array) -> PyTree:
        mix = Mix(jnp.zeros(CHOICES.shape), jnp.zeros(CHOICES.shape[0]))
        return from_linen(module, mix).init(key, x)["params"]

    def logits(
        weights: PyTree, mix: Mix, x: Array, key: Key[Array, ""]
    ) -> Float[Array, "B classes"]:
        del key
        y: Any = module.apply({"params": weights}, x, mix, train=True)
        return y

    return Supernet(init, logits, CHOICES, strongest)


def strongest(mix: Mix) -> Int[Array, " 6"]:
    """The genotype of the leading operation of every edge."""
    return jnp.argmax(mix.ops, axis=-1).astype(DTYPE)
