"""Keys with their rounds written out, and keys from which XLA draws, against JAX's own Threefry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.random import threefry_2x32

from jaxnas.core.keys import generated, unrolled

pytestmark = pytest.mark.usefixtures("quick_compile")

SEEDS = [0, 1, 123_456_789, 2**32 - 1]


def bits(x):
    is_key = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)


@pytest.mark.parametrize(
    "draw",
    [
        lambda key: jax.random.bits(key, (5, 3)),
        lambda key: jax.random.bits(key, (7,), "uint8"),
        lambda key: jax.random.bits(key, (7,), "uint16"),
        lambda key: jax.random.bits(key, ()),
        lambda key: jax.random.uniform(key, (4,)),
        lambda key: jax.random.randint(key, (6,), 0, 5, jnp.int8),
        lambda key: jax.random.permutation(key, 11),
        lambda key: jax.random.bernoulli(key, shape=(9,)),
        lambda key: jax.random.split(key, (2, 3)),
        lambda key: jax.random.fold_in(key, 2**31 + 5),
        lambda key: jax.random.bits(jax.random.fold_in(jax.random.split(key, 3)[2], 9), (3,)),
    ],
    ids=lambda _: "draw",
)
def test_every_draw_is_the_same(draw):
    for seed in SEEDS:
        key = jax.random.key(seed)
        np.testing.assert_array_equal(bits(draw(unrolled(key))), bits(draw(key)))


def test_many_keys_at_once_draw_the_same_under_vmap_and_jit():
    keys = jax.random.split(jax.random.key(3), 4)
    draw = jax.jit(jax.vmap(lambda key: jax.random.normal(key, (2,))))
    np.testing.assert_allclose(draw(unrolled(keys)), draw(keys), rtol=1e-6)


def test_floats_that_are_computed_from_many_draws_differ_by_rounding_at_most():
    key = jax.random.key(1)
    ours, theirs = (jax.random.dirichlet(k, jnp.ones((2, 3))) for k in (unrolled(key), key))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_keys_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="'threefry2x32', but got 'rbg'"):
        unrolled(jax.random.key(0, impl="rbg"))


def blocks(data, first, use, n):
    """Threefry of `n` counters, their words beside each other."""
    counters = np.concatenate([np.arange(first, first + n), np.full(n, use)]).astype(np.uint32)
    return np.asarray(threefry_2x32(jnp.asarray(data), jnp.asarray(counters))).reshape(2, n).T


def test_xla_draws_threefry_of_counters_that_no_two_uses_share():
    data = np.array([3, 123_456_789], np.uint32)
    key = generated(jnp.asarray(data))
    np.testing.assert_array_equal(bits(jax.random.bits(key, (8,))), blocks(data, 0, 1, 4).ravel())
    np.testing.assert_array_equal(bits(jax.random.fold_in(key, 7)), blocks(data, 7, 2, 1)[0])
    words = np.sort(bits(jax.random.split(key, 4)).ravel())
    np.testing.assert_array_equal(words, np.sort(blocks(data, 0, 0, 4).ravel()))
    drawn = jax.random.bits(key, (8,), "uint8")
    assert (drawn.shape, drawn.dtype) == ((8,), jnp.uint8)


def test_keys_that_xla_draws_from_side_by_side_draw_as_each_alone():
    keys = generated(jnp.arange(6, dtype=jnp.uint32).reshape(3, 2))

    def draw(key):
        return jax.random.normal(jax.random.fold_in(key, 1), (5,))

    alone = np.stack([draw(key) for key in keys])
    np.testing.assert_allclose(jax.jit(jax.vmap(draw))(keys), alone, rtol=1e-6)
    assert len(np.unique(alone)) == alone.size
