"""Depthwise convolution: every channel by a kernel of its own.

On accelerators it is the compiler's own. On CPU that one is slow, and its gradient slower still, so
there it is a sum of shifted maps, each times a row of the kernel.
"""

import itertools
from collections.abc import Iterator

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


def _shifted(x: Array, size: tuple[int, ...], stride: int, dilation: int) -> Iterator[Array]:
    """The points under each kernel position, the last axis of the kernel running fastest."""
    pads = [(dilation * (k // 2),) * 2 for k in size]
    # Behind the barrier XLA computes `x` once instead of once per kernel position.
    padded = optimization_barrier(jnp.pad(x, ((0, 0), *pads, (0, 0))))
    strides = (1, *[stride] * len(size), 1)
    for offset in itertools.product(*map(range, size)):
        start = [dilation * o for o in offset]
        stop = [o + n for o, n in zip(start, x.shape[1:-1], strict=True)]
        limit = (x.shape[0], *stop, x.shape[-1])
        yield jax.lax.slice(padded, (0, *start, 0), limit, strides)


def _sum_of_shifts(x: Array, kernel: Array, *, stride: int, dilation: int) -> Array:
    size, rows = kernel.shape[:-2], kernel.reshape(-1, kernel.shape[-1])
    pieces = zip(_shifted(x, size, stride, dilation), rows, strict=True)
    return optimization_barrier(sum(piece * row for piece, row in pieces))


def _products(x: Array, dy: Array, *, size: tuple[int, ...], stride: int, dilation: int) -> Array:
    """Gradient by a kernel of `size`."""
    axes, dy = tuple(range(x.ndim - 1)), optimization_barrier(dy)
    rows = [(piece * dy).sum(axes) for piece in _shifted(x, size, stride, dilation)]
    return jnp.stack(rows).reshape(*size, 1, x.shape[-1])


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
