"""The operations that DARTS and NASNet cells choose from, on `[B, L, C]` and `[B, H, W, C]`.

Liu, Simonyan & Yang, arXiv:1806.09055; Zoph et al., arXiv:1707.07012; `noise` from Zela et al.,
arXiv:1909.09656. Each is a module `(stride, search) -> (x, train)` that keeps the channels. In
search mode norms go by the statistics of the batch, have no scale or shift, and follow pools too.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn import relu

from jaxnas.nn.depthwise import Depthwise
from jaxnas.nn.ops import Conv, Map, Norm, avg_pool, max_pool, subsample


def norm(search: bool) -> Norm:
    """The norm inside cells."""
    return Norm(track=not search, affine=not search)


class ReluConvNorm(nn.Module):
    """A point-wise convolution that brings an input of a cell to its channels."""

    features: int
    search: bool = False

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        """Maps `[B, *space, C]` to `[B, *space, features]`."""
        return norm(self.search)(Conv(self.features, 1)(relu(x)), train)


class FactorizedReduce(nn.Module):
    """Halves the map: two point-wise convolutions, one on the even points, one on the odd."""

    features: int
    search: bool = False

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        """Maps `[B, *space, C]` to `[B, *space / 2, features]`; an odd rest meets zeros."""
        x, half = relu(x), self.features // 2
        space = range(1, x.ndim - 1)
        odd = jnp.pad(x, [(0, int(axis in space)) for axis in range(x.ndim)])
        odd = odd[(slice(None), *(slice(1, None) for _ in space))]
        parts = Conv(half, 1, stride=2)(x), Conv(self.features - half, 1, stride=2)(odd)
        return norm(self.search)(jnp.concatenate(parts, -1), train)


class Nothing(nn.Module):
    """Zeros."""

    stride: int = 1
    search: bool = False

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        """Zeros of the size of `x` after the stride."""
        return jnp.zeros_like(subsample(x, self.stride))


class Noise(nn.Module):
    """Standard normal noise, whatever comes in.

    Drawn from the stream `dropout`; a network that is evaluated without one sees a fixed draw.
    """

    stride: int = 1
    search: bool = False

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        """Noise of the size of `x` after the stride."""
        key = self.make_rng("dropout") if self.has_rng("dropout") else jax.random.key(0)
        return jax.random.normal(key, subsample(x, self.stride).shape, x.dtype)


class Skip(nn.Module):
    """The identity, or where the map is halved `FactorizedReduce`."""

    stride: int = 1
    search: bool = False

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        """Maps `[B, *space, C]` to `[B, *space / stride, C]`."""
        if self.stride == 1:
            return x
        return FactorizedReduce(x.shape[-1], self.search)(x, train)


class Pool(nn.Module):
    """Pools three points per axis, in search mode normalised.

    Attributes:
      pool: `(x, size, stride) -> x`.
      stride: the same along every axis.
      search: search mode.
    """

    pool: Callable[[Map, int, int], Map]
    stride: int = 1
    search: bool = False

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        """Maps `[B, *space, C]` to `[B, *space / stride, C]`."""
        y = self.pool(x, 3, self.stride)
        return norm(self.search)(y, train) if self.search else y


class SeparableConv(nn.Module):
    """ReLU, depthwise convolution, point-wise convolution, norm; `repeats` times.

    Attributes:
      size: points per axis of the depthwise kernel.
      dilation: distance of its points.
      repeats: how often; the first time strides.
      stride: the same along every axis.
      search: search mode.
    """

    size: int
    dilation: int = 1
    repeats: int = 1
    stride: int = 1
    search: bool = False

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        """Maps `[B, *space, C]` to `[B, *space / stride, C]`."""
        for n in range(self.repeats):
            y = Depthwise(self.size, 1 if n else self.stride, self.dilation)(relu(x))
            x = norm(self.search)(Conv(x.shape[-1], 1)(y), train)
        return x


class AxisConvs(nn.Module):
    """ReLU, a convolution along each axis in turn, the last axis first, then a norm.

    Attributes:
      size: points along the axis.
      stride: the same along every axis.
      search: search mode.
    """

    size: int
    stride: int = 1
    search: bool = False

    @nn.compact
    def __call__(self, x: Map, train: bool) -> Map:
        """Maps `[B, *space, C]` to `[B, *space / stride, C]`."""
        y, axes = relu(x), x.ndim - 2
        for axis in reversed(range(axes)):
            size = tuple(self.size if a == axis else 1 for a in range(axes))
            # A stride along one axis and a kernel along another commute: both strides come last.
            y = Conv(x.shape[-1], size, stride=1 if axis else self.stride)(y)
        return norm(self.search)(y, train)


OPERATIONS: dict[str, Callable[..., nn.Module]] = {
    "none": Nothing,
    "max_pool_3x3": partial(Pool, max_pool),
    "avg_pool_3x3": partial(Pool, avg_pool),
    "skip_connect": Skip,
    "sep_conv_3x3": partial(SeparableConv, 3, repeats=2),
    "sep_conv_5x5": partial(SeparableConv, 5, repeats=2),
    "sep_conv_7x7": partial(SeparableConv, 7, repeats=2),
    "dil_conv_3x3": partial(SeparableConv, 3, dilation=2),
    "dil_conv_5x5": partial(SeparableConv, 5, dilation=2),
    "conv_7x1_1x7": partial(AxisConvs, 7),
    "noise": Noise,
}
