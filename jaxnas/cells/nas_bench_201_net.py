"""Networks of NAS-Bench-201 cells, in two dimensions and in one.

`fixed_network` is the plain network of one cell, with exactly its parameters, to train long or to
export. `any_network` holds every cell in one program: the genotype is traced, each edge owns one
convolution whose kernel is masked to the operation chosen, so candidates of different architecture
train side by side under `vmap`. Both compute the same function (tested).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn import relu
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxnas.cells.nas_bench_201 import CONV1, CONV3, EDGES, NODES, POOL, SKIP
from jaxnas.nn.convnet import CellNet
from jaxnas.nn.network import Network, from_linen
from jaxnas.nn.ops import Conv, Map, Norm, avg_pool, conv, fan_in_uniform


class FixedCell(nn.Module):
    """One cell with its operations written out.

    Attributes:
      ops: the six operations.
      channels: channels in and out.
    """

    ops: tuple[int, ...]
    channels: int

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        """Maps `[B, *space, C]` to the same shape."""
        nodes = [x]
        for node in range(1, NODES):
            terms = [
                self._edge(nodes[j], op, f"edge_{j}_{i}", train)
                for (j, i), op in zip(EDGES, self.ops, strict=True)
                if i == node and op
            ]
            nodes.append(sum(terms, start=jnp.zeros_like(x)))
        return nodes[-1]

    def _edge(self, x: Map, op: int, name: str, train: bool) -> Map:
        if op == SKIP:
            return x
        if op == POOL:
            return avg_pool(x)
        y = Conv(self.channels, 3 if op == CONV3 else 1, name=name)(relu(x))
        return Norm(name=f"{name}_norm")(y, train)


class AnyCell(nn.Module):
    """Every cell in one program; edges that read the same node share one convolution."""

    channels: int

    @nn.compact
    def __call__(self, x: Map, genotype: Int[Array, " 6"], train: bool) -> Map:
        """Maps `[B, *space, C]` to the same shape by the cell `genotype`."""
        nodes = [x, *[jnp.zeros_like(x)] * (NODES - 1)]
        for source in range(NODES - 1):
            x, targets = nodes[source], range(source + 1, NODES)
            op = jnp.stack([genotype[EDGES.index((source, i))] for i in targets])
            shape = (*[3] * (x.ndim - 2), self.channels, self.channels * len(targets))
            kernel = self.param(f"kernel_{source}", fan_in_uniform, shape)
            kernel = (kernel * kernel_mask(op, shape)).astype(x.dtype)
            y = Norm(name=f"norm_{source}")(conv(relu(x), kernel), train)
            convolved = jnp.split(y, len(targets), axis=-1)
            pooled = avg_pool(x)
            for n, node in enumerate(targets):
                is_conv = (op[n] == CONV1) | (op[n] == CONV3)
                nodes[node] += (
                    jnp.where(is_conv, convolved[n], 0)
                    + jnp.where(op[n] == SKIP, x, 0)
                    + jnp.where(op[n] == POOL, pooled, 0)
                )
        return nodes[-1]


def kernel_mask(
    ops: Int[Array, " n"], shape: tuple[int, ...], centre: float = 1.0
) -> Float[Array, "*k 1 D"]:
    """Which kernel points each of `n` edges uses: all, the middle one, or none.

    Args:
      ops: operations of the edges that share the kernel.
      shape: `[*k, C, n C]`, the shape of that kernel.
      centre: value of the middle point where it stands alone.
    """
    size = shape[:-2]
    middle = np.zeros((*size, 1, 1), np.float32)
    middle[tuple(k // 2 for k in size)] = centre
    mask = jnp.where(ops == CONV3, 1.0, jnp.where(ops == CONV1, middle, 0.0))
    return jnp.repeat(mask, shape[-1] // len(ops), axis=-1)


def fixed_network(
    genotype: np.ndarray, *, classes: int, channels: int = 16, layers: int = 5
) -> Network:
    """The plain network of one cell.

    Args:
      genotype: `[6]` operations.
      classes: number of outputs.
      channels: channels of the first stage, `C`.
      layers: cells per stage, `N`.

    Returns:
      A `Network` on `[B, H, W, C]` images or `[B, L, C]` sequences.
    """
    return from_linen(fixed_module(genotype, classes=classes, channels=channels, layers=layers))


def fixed_module(
    genotype: np.ndarray, *, classes: int, channels: int = 16, layers: int = 5
) -> CellNet:
    """The Flax module behind `fixed_network`, for export and for other people's loops."""
    ops = tuple(int(op) for op in genotype)
    return CellNet(lambda width: FixedCell(ops, width), classes, channels, layers)


def any_network(
    genotype: Int[Array, " 6"], *, classes: int, channels: int = 16, layers: int = 5
) -> Network:
    """The network of a traced cell; `vmap` over genotypes trains many cells in one program.

    Args:
      genotype: `[6]` operations, may be traced.
      classes: number of outputs.
      channels: channels of the first stage, `C`.
      layers: cells per stage, `N`.
    """
    network = from_linen(CellNet(AnyCell, classes, channels, layers), genotype)

    def init(key: Key[Array, ""], x: Array) -> PyTree:
        variables = network.init(key, x)
        return jax.tree_util.tree_map_with_path(start, variables)

    def start(path: Any, leaf: Array) -> Array:
        name = path[-1].key
        if not name.startswith("kernel_"):
            return leaf
        source = int(name[-1])
        ops = jnp.stack([genotype[EDGES.index((source, i))] for i in range(source + 1, NODES)])
        # A 1-wide kernel starts within 1 / sqrt(C), a 3-wide one within 1 / sqrt(3^d C).
        return leaf * kernel_mask(ops, leaf.shape, math.sqrt(math.prod(leaf.shape[:-2])))

    return network._replace(init=init)
