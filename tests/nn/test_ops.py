import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.nn.ops import avg_pool, conv, normalise

pytestmark = pytest.mark.usefixtures("quick_compile")

SHAPES = ((7,), (8,), (7, 6), (8, 5))
CASES = list(itertools.product(SHAPES, (1, 3, 5), (1, 2)))


def plain_conv(x, kernel, stride):
    axes = "HW"[: x.ndim - 2]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride,) * len(axes),
        [(k // 2, k // 2) for k in kernel.shape[:-2]],
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        precision="highest",
    )


def drawn(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def maps(space, size):
    return drawn((2, *space, 3), (*[size] * len(space), 3, 4))


def output_and_gradients(f):
    @jax.jit
    def both(x, kernel):
        y, pull = jax.vjp(f, x, kernel)
        return y, pull(jnp.sin(y))

    return both


def assert_close(a, b, tolerance=2e-5):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, tolerance, tolerance), a, b)


@pytest.mark.parametrize(("space", "size", "stride"), CASES)
def test_conv_and_its_gradients_equal_those_of_the_compiler(space, size, stride):
    x, kernel = maps(space, size)
    ours = output_and_gradients(lambda x, k: conv(x, k, stride))(x, kernel)
    theirs = output_and_gradients(lambda x, k: plain_conv(x, k, stride))(x, kernel)
    assert_close(ours, theirs)


@pytest.mark.parametrize("space", [(7,), (6, 7)])
@pytest.mark.parametrize("size", [1, 3])
def test_conv_is_the_same_under_vmap_over_kernels_and_inside_scan(space, size):
    x, *kernels = drawn((2, *space, 3), *[(*[size] * len(space), 3, 4)] * 3)
    step = output_and_gradients(conv)
    one_by_one = [step(x, k) for k in kernels]
    stacked = jnp.stack(kernels)
    expected = jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one)
    assert_close(jax.jit(jax.vmap(step, (None, 0)))(x, stacked), expected)
    assert_close(jax.lax.scan(lambda c, k: (c, step(x, k)), None, stacked)[1], expected)


def test_derivative_of_a_gradient_equals_finite_differences():
    x, kernel, direction = drawn((2, 6, 5, 3), (3, 3, 3, 4), (3, 3, 3, 4))

    def loss(kernel, mix):
        y = normalise(conv(jnp.tanh(x), kernel), mix)
        return (jnp.sin(avg_pool(y)) ** 2).sum()

    @jax.jit
    def by_mix(kernel):
        return jax.grad(loss, 1)(kernel, mix)

    mix, width = jnp.linspace(0.5, 1.0, 4), 1e-2
    exact = jax.jvp(by_mix, (kernel,), (direction,))[1]
    ahead, behind = (by_mix(kernel + sign * width * direction) for sign in (1, -1))
    np.testing.assert_allclose(exact, (ahead - behind) / (2 * width), rtol=2e-2, atol=2e-2)


def slow_pool(x):
    y = np.zeros_like(x)
    for at in np.ndindex(*x.shape[1:-1]):
        window = tuple(slice(max(i - 1, 0), i + 2) for i in at)
        axes = tuple(range(1, x.ndim - 1))
        y[(slice(None), *at)] = x[(slice(None), *window)].mean(axes)
    return y


@pytest.mark.parametrize("space", [*SHAPES, (1,), (1, 2)])
def test_avg_pool_does_not_count_padding(space):
    x = np.random.default_rng(0).normal(size=(2, *space, 3)).astype(np.float32)
    np.testing.assert_allclose(avg_pool(jnp.asarray(x)), slow_pool(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("space", SHAPES)
def test_the_gradient_of_avg_pool_is_its_transpose(space):
    x, dy = drawn((2, *space, 3), (2, *space, 3))
    (pulled,) = jax.vjp(avg_pool, x)[1](dy)
    np.testing.assert_allclose((pulled * x).sum(), (dy * avg_pool(x)).sum(), rtol=1e-4, atol=1e-4)


def test_normalise_and_its_gradient_equal_the_plain_formula():
    x, dy = drawn((4, 5, 6, 3), (4, 5, 6, 3))
    x, scale = 2 * x + 1, jnp.asarray([0.5, 1.0, 2.0])

    def plain(x, scale):
        mean, variance = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) / jnp.sqrt(variance + 1e-5) * scale

    y, pull = jax.vjp(normalise, x, scale)
    expected, plain_pull = jax.vjp(plain, x, scale)
    assert_close((y, pull(dy)), (expected, plain_pull(dy)), 1e-4)
