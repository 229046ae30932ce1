"""Depthwise convolution: every channel by a kernel of its own.

On accelerators it is the compiler's own. On CPU that one is slow, and under a map over kernels far
slower still, so there it is a sum of shifted maps, each times a row of the kernel, in a loop over
the kernel's rows. Measured on 2 busy cores: gradient of norm, ReLU, depthwise and point-wise
convolution on `[64, 32, 32, 16]` with a 3-wide and a 5-wide kernel 26 and 95 ms (the compiler's 153
and 440), mapped over two kernels 129 and 200 ms (3.1 and 8.1 s); on `[64, 8, 8, 64]` 13 and 21 ms
(42 and 44), mapped 29 and 32 ms (2.7 and 7.0 s). Without the loop over rows a supernet takes twice
as long to compile and runs no faster.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.lax import optimization_barrier
from jaxtyping import Array, Float

from jaxnas.nn.ops import Map, bilinear, fan_in_uniform


def depthwise(
    x: Map, kernel: Float[Array, "*k 1 C"], stride: int = 1, dilation: int = 1
) -> Float[Array, "B *out C"]:
    """Convolves every channel with its own kernel, `dilation * (k - 1) / 2` zeros on each side.

    Args:
      x: feature maps, one or two spatial axes.
      kernel: `[k, 1, C]` or `[k, k, 1, C]`, `k` odd.
      stride: the same along every axis.
      dilation: distance of neighbouring kernel points, along every axis.

    Returns:
      Feature maps of `ceil(size / stride)` points per axis.
    """
    if jax.default_backend() != "cpu":
        return _native(x, kernel, stride, dilation)
    return _depthwise_cpu(x, kernel, stride=stride, dilation=dilation)


def _native(x: Array, kernel: Array, stride: int, dilation: int) -> Array:
    axes = "HW"[: x.ndim - 2]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride,) * len(axes),
        [(dilation * (k // 2), dilation * (k // 2)) for k in kernel.shape[:-2]],
        rhs_dilation=(dilation,) * len(axes),
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=x.shape[-1],
    )


def _padded(x: Array, size: tuple[int, ...], dilation: int) -> Array:
    """The zeros around; behind the barrier XLA computes `x` once, not for each kernel point."""
    pads = [(dilation * (k // 2),) * 2 for k in size]
    return optimization_barrier(jnp.pad(x, ((0, 0), *pads, (0, 0))))


def _under_row(
    padded: Array, row: Array, size: tuple[int, ...], stride: int, dilation: int
) -> list[Array]:
    """The points under each kernel point of a row; a sequence has one row."""
    for axis, k in zip(range(1, padded.ndim - 2), size, strict=False):
        height = padded.shape[axis] - dilation * (k - 1)
        padded = jax.lax.dynamic_slice_in_dim(padded, dilation * row, height, axis)
    steps, width = (1, *[stride] * len(size), 1), size[-1]
    *lead, end, channels = padded.shape
    return [
        jax.lax.slice(
            padded,
            (*[0] * len(lead), dilation * i, 0),
            (*lead, end - dilation * (width - 1 - i), channels),
            steps,
        )
        for i in range(width)
    ]


def _sum_of_shifts(x: Array, kernel: Array, *, stride: int, dilation: int) -> Array:
    size, rows = kernel.shape[:-2], kernel.reshape(-1, kernel.shape[-3], kernel.shape[-1])
    padded = _padded(x, size, dilation)

    def add(n: Array, y: Array) -> Array:
        pieces = _under_row(padded, n, size, stride, dilation)
        return y + sum(piece * rows[n, i] for i, piece in enumerate(pieces))

    space = [-(-n // stride) for n in x.shape[1:-1]]
    start = jnp.zeros((x.shape[0], *space, x.shape[-1]), x.dtype)
    return optimization_barrier(jax.lax.fori_loop(0, len(rows), add, start))


def _products(x: Array, dy: Array, *, size: tuple[int, ...], stride: int, dilation: int) -> Array:
    """Gradient by a kernel of `size`."""
    axes, padded = tuple(range(x.ndim - 1)), _padded(x, size, dilation)
    dy = optimization_barrier(dy)

    def row(n: Array) -> Array:
        pieces = _under_row(padded, n, size, stride, dilation)
        return jnp.stack([(piece * dy).sum(axes) for piece in pieces])

    rows = jax.lax.map(row, jnp.arange(math.prod(size[:-1])))
    return rows.reshape(*size, 1, x.shape[-1])


def _by_map(
    dy: Array, kernel: Array, shape: tuple[int, ...], *, stride: int, dilation: int
) -> Array:
    """Gradient by maps of `shape`: `dy` laid out `stride` apart, by the mirrored kernel."""
    space = [
        (0, n - stride * (m - 1) - 1, stride - 1) for n, m in zip(shape, dy.shape, strict=True)
    ]
    spread = jax.lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *space[1:-1], (0, 0, 0)])
    mirrored = jnp.flip(kernel, range(kernel.ndim - 2))
    return _depthwise_cpu(spread, mirrored, stride=1, dilation=dilation)


_depthwise_cpu = bilinear(
    "depthwise_cpu",
    _sum_of_shifts,
    _by_map,
    lambda dy, x, shape, **how: _products_cpu(x, dy, size=shape[:-2], **how),
)
_products_cpu = bilinear(
    "depthwise_products_cpu",
    _products,
    lambda dk, dy, shape, size, **how: _by_map(dy, dk, shape, **how),
    lambda dk, x, shape, size, **how: _depthwise_cpu(x, dk, **how),
)


class Depthwise(nn.Module):
    """`depthwise` with its kernel.

    Attributes:
      size: points per axis, odd.
      stride: the same along every axis.
      dilation: distance of neighbouring kernel points.
    """

    size: int
    stride: int = 1
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Map) -> Map:
        """Convolves `[B, *space, C]` to `[B, *space / stride, C]`."""
        shape = (*[self.size] * (x.ndim - 2), 1, x.shape[-1])
        kernel = self.param("kernel", fan_in_uniform, shape).astype(x.dtype)
        return depthwise(x, kernel, self.stride, self.dilation)
