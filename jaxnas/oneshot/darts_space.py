"""The DARTS supernet: every edge computes the weighted sum of all its operations.

Liu, Simonyan & Yang, arXiv:1806.09055. Edges that read the same state with the same operation are
one module mapped over parameters with a leading axis, so there are as few programs to compile as
there are operations, and what has no parameters is computed once. Batch norm is in search mode:
statistics of the batch at hand, in training and validation alike; no scale or shift inside cells;
both in the stem. Partial channels as in PC-DARTS, arXiv:1907.05737.
"""

from functools import partial as bind
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxnas.cells.darts_space import EDGES, NODES, edge_ops, strongest
from jaxnas.nn.cell_ops import OPERATIONS, FactorizedReduce, ReluConvNorm
from jaxnas.nn.chain import ChainNet
from jaxnas.nn.network import from_linen
from jaxnas.nn.ops import Map, max_pool
from jaxnas.oneshot.supernet import Choices, Mix, Supernet, part_of, shuffle

E = len(EDGES)


class MixedCell(nn.Module):
    """One cell of the supernet, fused by source state.

    Attributes:
      ops: `[2][E][K]` operations of each edge of the normal and of the reduction cell.
      partial: one in `partial` channels goes through the operations, the others around them.
      channels: channels of every state.
      reduction: whether the cell halves the map.
      reduced: whether its first input is still twice as large as the second.
    """

    ops: tuple[tuple[tuple[str, ...], ...], ...]
    partial: int
    channels: int
    reduction: bool
    reduced: bool

    @nn.compact
    def __call__(self, before: Map, last: Map, mix: Mix, train: bool) -> Map:
        """The output `[B, *space, 4 C]` under the weights of `mix`, which are those of all edges."""
        rows = slice(E * self.reduction, E * (1 + self.reduction))
        mix = Mix(mix.ops[rows].astype(last.dtype), mix.edges[rows].astype(last.dtype))
        first = FactorizedReduce if self.reduced else ReluConvNorm
        states = [
            first(self.channels, True, name="input_0")(before, train),
            ReluConvNorm(self.channels, True, name="input_1")(last, train),
            *[jnp.zeros((), last.dtype)] * NODES,
        ]
        for source in range(NODES + 1):
            for edge, y in self._edges(source, states[source], mix).items():
                states[EDGES[edge][1]] += y
        return jnp.concatenate(states[2:], -1)

    def _edges(self, source: int, x: Map, mix: Mix) -> dict[int, Map]:
        """What every edge that reads `source` adds to its node."""
        edges = [e for e, (state, _) in enumerate(EDGES) if state == source]
        ops, stride = self.ops[self.reduction], 2 if self.reduction and source < 2 else 1
        part = part_of(self.channels, self.partial)
        inside, around = x[..., :part], x[..., part:]
        around = around if stride == 1 else max_pool(around, 2, 2)
        sums = dict.fromkeys(edges, jnp.zeros((), x.dtype))
        for op in dict.fromkeys(op for e in edges for op in ops[e] if op != "none"):
            users = [e for e in edges if op in ops[e]]
            ys = _mapped(op, len(users), stride, f"stacked_{source}_{op}")(inside)
            for n, e in enumerate(users):
                sums[e] += mix.ops[e, ops[e].index(op)] * ys[n]
        if self.partial == 1:
            return {e: mix.edges[e] * y for e, y in sums.items()}
        shape = (*around.shape[:-1], part)
        full = {
            e: jnp.concatenate([jnp.broadcast_to(y, shape), around], -1) for e, y in sums.items()
        }
        return {e: mix.edges[e] * shuffle(y, self.partial) for e, y in full.items()}


def _mapped(op: str, n: int, stride: int, name: str) -> nn.Module:
    """An operation with `n` sets of parameters, whose outputs stand on a leading axis."""
    mapped = nn.vmap(
        _Operation,
        in_axes=None,
        variable_axes={"params": 0},
        split_rngs={"params": True, "dropout": True},
        axis_size=n,
    )
    return mapped(op, stride, name=name)


class _Operation(nn.Module):
    op: str
    stride: int

    @nn.compact
    def __call__(self, x: Map) -> Map:
        return OPERATIONS[self.op](stride=self.stride, search=True)(x, True)


def supernet(
    *,
    classes: int,
    channels: int = 16,
    layers: int = 8,
    space: str = "darts",
    partial: int = 1,
    stem: str = "cifar",
) -> Supernet:
    """The supernet over DARTS cells.

    Args:
      classes: number of outputs.
      channels: channels of the first cells, `C`.
      layers: number of cells, `L`.
      space: name in `darts_space.SPACES`.
      partial: one in `partial` channels goes through the operations.
      stem: `cifar`, or `imagenet` for large images.

    Returns:
      A `Supernet` on `[B, H, W, C]` images or `[B, L, C]` sequences.

    Raises:
      ValueError: for an unknown space, or if `channels` is not divisible by `partial`.
    """
    part_of(channels, partial)
    ops = edge_ops(space)
    cell = bind(MixedCell, ops, partial)
    module = ChainNet(cell, classes, channels, layers, stem, track=False)
    nodes = tuple(NODES * kind + node - 2 for kind in range(2) for _, node in EDGES)
    choices = Choices(ops[0] + ops[1], nodes, kinds=2, keep=2)

    def init(key: Key[Array, ""], x: Array) -> PyTree:
        mix = Mix(jnp.zeros((2 * E, len(ops[0][0]))), jnp.zeros(2 * E))
        return from_linen(module, mix).init(key, x)["params"]

    def logits(
        weights: PyTree, mix: Mix, x: Array, key: Key[Array, ""]
    ) -> Float[Array, "B classes"]:
        y: Any = module.apply({"params": weights}, x, mix, train=True, rngs={"dropout": key})
        return y

    def derive(mix: Mix) -> Int[Array, "2 8 2"]:
        return strongest(mix.ops, mix.edges, space)

    return Supernet(init, logits, choices, derive)
