"""Depthwise convolution on CPU against the compiler's own, in every kind of derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.nn.depthwise import _native, depthwise
from jaxnas.nn.ops import conv

pytestmark = pytest.mark.usefixtures("quick_compile")

CASES = [
    ((9,), 3, 1, 1),
    ((8,), 5, 2, 2),
    ((7, 6), 3, 1, 1),
    ((6, 7), 5, 1, 2),
    ((7, 8), 3, 2, 1),
    ((8, 5), 5, 2, 1),
]


def drawn(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def maps(space, size, *lead):
    return drawn((2, *space, 3), (*lead, *[size] * len(space), 1, 3))


def assert_close(a, b, tolerance=1e-4):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, tolerance, tolerance), a, b)


@pytest.mark.parametrize(("space", "size", "stride", "dilation"), CASES)
def test_depthwise_and_its_gradients_equal_those_of_the_compiler(space, size, stride, dilation):
    x, kernel = maps(space, size)

    def both(f):
        def run(x, kernel):
            y, pull = jax.vjp(lambda x, k: f(x, k, stride, dilation), x, kernel)
            return y, pull(jnp.sin(y))

        return jax.jit(run)(x, kernel)

    assert_close(both(depthwise), both(_native))


def dense(kernel):
    """The kernel of the ordinary convolution that does the same."""
    return kernel * jnp.eye(kernel.shape[-1])


@pytest.mark.parametrize("op", ["depthwise", "conv"])
def test_gradients_hold_under_maps_over_kernels_over_inputs_and_over_both(op):
    """A supernet maps over its edges inside the gradient."""
    x, kernels = maps((5, 6), 3, 4)
    xs = jnp.stack([x * (n + 1) for n in range(4)])

    def loss(f, axes, x, k):
        return jnp.sin(jax.vmap(f, axes)(x, k)).sum()

    def one(x, k):
        return depthwise(x, k) if op == "depthwise" else conv(x, dense(k))

    for axes, args in (
        ((None, 0), (x, kernels)),
        ((0, None), (xs, kernels[0])),
        ((0, 0), (xs, kernels)),
    ):
        ours, theirs = (
            jax.jit(jax.grad(lambda x, k, f=f, axes=axes: loss(f, axes, x, k), (0, 1)))(*args)
            for f in (one, lambda x, k: _native(x, k, 1, 1))
        )
        assert_close(ours, theirs)


@pytest.mark.parametrize("stride", [1, 2])
def test_derivatives_of_a_mapped_gradient_equal_those_of_the_compiler(stride):
    """Forward over reverse, and reverse over reverse, as second-order searches need."""
    x, kernels = maps((5, 6), 3, 2)

    def curvature(f):
        def loss(x, kernels):
            y = jax.vmap(lambda k: f(jnp.tanh(x), k, stride, 1))(kernels)
            return (jnp.sin(y) ** 2).sum()

        def derivatives(x, kernels):
            slope = jax.grad(loss, 1)
            forward = jax.jvp(lambda k: slope(x, k), (kernels,), (jnp.cos(kernels),))[1]
            reverse = jax.grad(lambda x, k: jnp.sin(slope(x, k)).sum(), (0, 1))(x, kernels)
            return forward, reverse

        return jax.jit(derivatives)(x, kernels)

    assert_close(curvature(depthwise), curvature(_native))


def test_depthwise_is_the_same_inside_a_loop_and_under_a_map_outside_the_gradient():
    x, kernels = maps((7, 5), 3, 3)
    slope = jax.grad(lambda k: jnp.sin(depthwise(x, k)).sum())
    expected = jnp.stack([slope(k) for k in kernels])
    assert_close(jax.lax.scan(lambda c, k: (c, slope(k)), None, kernels)[1], expected)
    assert_close(jax.jit(jax.vmap(slope))(kernels), expected)
