"""Operations on feature maps `[B, L, C]` and `[B, H, W, C]`, the same code for both.

XLA on CPU computes the gradient of a convolution slowly (two to five times the forward pass) and
inside a loop far more slowly still (jax issue 12868: 18 to 66 times). So on CPU a convolution here
is built from what is fast everywhere, matrix products and forward convolutions; on accelerators it
is the compiler's own.
"""

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, Float

Map = Float[Array, "B *_space _C"]  # of input and output, which may differ


def conv(x: Map, kernel: Float[Array, "*k C D"], stride: int = 1) -> Float[Array, "B *out D"]:
    """Convolution with `(k - 1) / 2` zeros on each side, as PyTorch pads, without bias.

    Args:
      x: feature maps, one or two spatial axes.
      kernel: `[k, C, D]` or `[k, k, C, D]`, `k` odd.
      stride: the same along every axis.

    Returns:
      Feature maps of `ceil(size / stride)` points per axis.
    """
    size = kernel.shape[:-2]
    if jax.default_backend() != "cpu" and len(size) > 1:
        return _native(x, kernel, stride)
    if math.prod(size) == 1:
        x, stride = subsample(x, stride), 1
    if stride == 1 and len(size) > 1:
        return _conv_cpu(x, kernel)
    return _taps(x, size, stride) @ kernel.reshape(-1, kernel.shape[-1])


def subsample(x: Map, stride: int) -> Map:
    """Every `stride`-th point along each spatial axis."""
    return x[(slice(None), *(slice(None, None, stride) for _ in x.shape[1:-1]))]


def _native(x: Map, kernel: Array, stride: int) -> Array:
    axes = "HW"[: x.ndim - 2]
    padding = [(k // 2, k // 2) for k in kernel.shape[:-2]]
    layout = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    strides = (stride,) * len(axes)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=layout)


def _taps(x: Array, size: tuple[int, ...], stride: int = 1) -> Array:
    """The points under each kernel position, side by side on the channel axis.

    Args:
      x: `[B, *space, C]`.
      size: kernel points along each spatial axis, odd.
      stride: the same along every axis.

    Returns:
      `[B, *out, prod(size) C]`, the last spatial axis of the kernel running fastest.
    """
    padded = jnp.pad(x, ((0, 0), *((k // 2, k // 2) for k in size), (0, 0)))
    strides = (1, *[stride] * len(size), 1)
    pieces = []
    for offset in itertools.product(*map(range, size)):
        stop = [o + n for o, n in zip(offset, x.shape[1:-1], strict=True)]
        limit = (x.shape[0], *stop, x.shape[-1])
        pieces.append(jax.lax.slice(padded, (0, *offset, 0), limit, strides))
    return jnp.concatenate(pieces, axis=-1)


def _conv_forward(x: Float[Array, "B H W C"], kernel: Float[Array, "k l C D"]) -> Array:
    if kernel.shape[:2] == (1, 1):
        return x @ kernel[0, 0]
    return _native(x, kernel, 1)


def _kernel_product(x: Array, dy: Array, *, size: tuple[int, int]) -> Float[Array, "k l C D"]:
    """Gradient by a kernel of `size`: one matrix product per kernel row."""
    (k, width), (rows, columns) = size, x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (k // 2, k // 2), (width // 2, width // 2), (0, 0)))
    products = []
    for row in range(k):
        pieces = [padded[:, row : row + rows, i : i + columns] for i in range(width)]
        taps = jnp.concatenate(pieces, axis=-1).reshape(-1, width * x.shape[-1])
        # Behind the barrier XLA takes the operands as they lie instead of transposing `dy`.
        taps, flat = jax.lax.optimization_barrier((taps, dy.reshape(-1, dy.shape[-1])))
        products.append(taps.T @ flat)
    return jnp.stack(products).reshape(*size, x.shape[-1], dy.shape[-1])


def _mirrored(kernel: Array) -> Array:
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


def bilinear(
    name: str,
    f: Callable[..., Array],
    by_left: Callable[..., Array],
    by_right: Callable[..., Array],
) -> Callable[..., Array]:
    """An operation of its own that computes `f`, linear in each argument, its transposes given.

    `jax.custom_vjp` would bar forward mode, which exact second-order searches need. Under `vmap`
    the operation stays itself and notes the axes mapped, inmost first, so its transposes hold
    there too: a supernet maps over edges inside the gradient.

    Args:
      name: of the primitive.
      f: `(left, right, **params) -> out`.
      by_left: `(cotangent, right, shape of left, **params) -> cotangent of left`.
      by_right: `(cotangent, left, shape of right, **params) -> cotangent of right`.
    """
    primitive = Primitive(name)

    def compute(x: Array, y: Array, *, axes: Any, **params: Any) -> Array:
        g = functools.partial(f, **params)
        for pair in axes:
            g = jax.vmap(g, pair)
        return g(x, y)

    @functools.lru_cache(4096)  # a supernet asks the same thousands of times
    def abstract(x: ShapedArray, y: ShapedArray, **params: Any) -> ShapedArray:
        out = jax.eval_shape(functools.partial(compute, **params), x, y)
        return ShapedArray(out.shape, out.dtype)

    def batch(arrays: Any, dims: Any, *, axes: Any, **params: Any) -> tuple[Array, int]:
        return primitive.bind(*arrays, axes=(*axes, tuple(dims)), **params), 0

    primitive.def_impl(compute)
    primitive.def_abstract_eval(abstract)
    mlir.register_lowering(primitive, mlir.lower_fun(compute, multiple_results=False))
    ad.defbilinear(primitive, _transpose(0, by_left), _transpose(1, by_right))
    batching.primitive_batchers[primitive] = batch
    return functools.partial(primitive.bind, axes=())


def _transpose(side: int, rule: Callable[..., Array]) -> Callable[..., Array]:
    """The transpose by one argument, mapped over the same axes."""

    def run(ct: Array, x: Any, y: Any, *, axes: Any, **params: Any) -> Array:
        wanted, other = (y, x) if side else (x, y)
        shape = list(wanted.aval.shape)
        for pair in reversed(axes):
            if pair[side] is not None:
                del shape[pair[side]]
        f = functools.partial(rule, shape=tuple(shape), **params)
        for pair in axes:
            f = _gathered(jax.vmap(f, (0, pair[1 - side])), pair[side])
        return f(ct, other)

    return run


def _gathered(f: Callable[..., Array], axis: int | None) -> Callable[..., Array]:
    """Puts the mapped axis of the output back to `axis`, or sums over it where there was none."""

    def run(*args: Array) -> Array:
        y = f(*args)
        return y.sum(0) if axis is None else jnp.moveaxis(y, 0, axis)

    return run


_conv_cpu = bilinear(
    "conv_cpu",
    _conv_forward,
    lambda dy, kernel, shape: _conv_cpu(dy, _mirrored(kernel)),
    lambda dy, x, shape: _kernel_cpu(x, dy, size=shape[:2]),
)
_kernel_cpu = bilinear(
    "kernel_cpu",
    _kernel_product,
    lambda dk, dy, shape, size: _conv_cpu(dy, _mirrored(dk)),
    lambda dk, x, shape, size: _conv_cpu(x, dk),
)


def avg_pool(x: Map, k: int = 3, stride: int = 1) -> Map:
    """Mean over `k` points per axis; padding is not counted.

    A product with a banded matrix per axis: XLA on CPU would fuse sums of shifted maps, and all
    that leads to them, into each of their users.
    """
    batch, *sizes, channels = x.shape
    inner, space = channels, []
    for n in reversed(sizes):
        i = np.arange(n)
        band = (abs(i[::stride, None] - i) <= k // 2).astype(np.float32)
        means = jnp.asarray(band / band.sum(1, keepdims=True), x.dtype)
        x = jnp.einsum("pq,bqn->bpn", means, x.reshape(-1, n, inner), precision="highest")
        space = [len(band), *space]
        inner *= len(band)
    return x.reshape(batch, *space, channels)


def max_pool(x: Map, k: int = 3, stride: int = 1) -> Map:
    """Largest of `k` points per axis, the window centred (an even one reaches one further ahead).

    Returns:
      Feature maps of `ceil(size / stride)` points per axis.
    """
    before, pads = (k - 1) // 2, []
    for n in x.shape[1:-1]:
        last = (n - 1) // stride * stride - before + k  # where the last window ends
        pads.append((before, max(last - n, 0)))
    axes = len(pads)
    return nn.max_pool(x, (k,) * axes, (stride,) * axes, pads)


def normalise(x: Map, scale: Float[Array, " C"] | float = 1.0, epsilon: float = 1e-5) -> Map:
    """Batch norm of search mode, by the statistics of this batch and without a shift.

    Args:
      x: feature maps.
      scale: what each normalised channel is multiplied with, e.g. its mixing weight.
      epsilon: added to the variance.
    """
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(jnp.float32)
    mean = wide.mean(axes)
    variance = jnp.maximum((wide * wide).mean(axes) - mean * mean, 0.0)
    factor = jax.lax.rsqrt(variance + epsilon) * scale
    return x * factor.astype(x.dtype) - (mean * factor).astype(x.dtype)


class Conv(nn.Module):
    """`conv` with its kernel; PyTorch's default start, uniform within `1 / sqrt(fan-in)`.

    Attributes:
      features: output channels.
      size: points per axis, odd; one number for all axes or one for each.
      stride: the same along every axis.
    """

    features: int
    size: int | tuple[int, ...]
    stride: int = 1

    @nn.compact
    def __call__(self, x: Map) -> Map:
        """Convolves `[B, *space, C]` to `[B, *space / stride, features]`."""
        size = (self.size,) * (x.ndim - 2) if isinstance(self.size, int) else self.size
        shape = (*size, x.shape[-1], self.features)
        return conv(x, self.param("kernel", fan_in_uniform, shape).astype(x.dtype), self.stride)


def fan_in_uniform(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
    """Uniform within `1 / sqrt(fan-in)`, the last axis being the outputs."""
    bound = 1 / math.sqrt(math.prod(shape[:-1]))
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class Norm(nn.Module):
    """Batch norm, by running statistics or by those of each batch (search mode).

    Attributes:
      track: whether running statistics are kept, and used when not training.
      affine: whether a scale and a shift are learned; only search mode can do without.
    """

    track: bool = True
    affine: bool = True

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        """Normalises every channel of `[B, *space, C]`."""
        if self.track:
            return nn.BatchNorm(not train, momentum=0.9, dtype=x.dtype, name="batch")(x)
        if not self.affine:
            return normalise(x)
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return normalise(x, scale) + bias.astype(x.dtype)
