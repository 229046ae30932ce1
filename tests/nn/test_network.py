"""Networks as two pure functions: Linen and NNX modules alike, and how their weights start."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn, nnx

from jaxnas.nn.network import count_params, cross_entropy, fill, from_linen, from_nnx

pytestmark = pytest.mark.usefixtures("quick_compile")

X = jax.random.normal(jax.random.key(9), (16, 5))


class Linen(nn.Module):
    rate: float = 0.0

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.Dense(6)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = nn.Dropout(self.rate, deterministic=not train)(nn.relu(x))
        return nn.Dense(3)(x)


class Nnx(nnx.Module):
    def __init__(self, rngs, rate=0.0):
        self.first = nnx.Linear(5, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, momentum=0.9, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)
        self.last = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))


def transplanted():
    """The same weights in both worlds."""
    linen, other = from_linen(Linen()), from_nnx(Nnx)
    ours = linen.init(jax.random.key(0), X)
    p = ours["params"]
    theirs = other.init(jax.random.key(1), X)
    theirs["params"] = {
        "first": p["Dense_0"],
        "norm": p["BatchNorm_0"],
        "last": p["Dense_1"],
    }
    return (linen, ours), (other, theirs)


def test_linen_and_nnx_modules_with_equal_weights_are_equal_networks():
    (linen, ours), (other, theirs) = transplanted()
    for _ in range(3):
        a, ours = linen.apply(ours, X, True)
        b, theirs = other.apply(theirs, X, True)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    a, b = linen.apply(ours, X, False)[0], other.apply(theirs, X, False)[0]
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    statistics = ours["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(theirs["rest"]["norm"]["mean"], statistics["mean"], atol=1e-5)
    assert float(jnp.abs(statistics["mean"]).max()) > 0.01


def test_gradients_of_both_worlds_agree():
    def slope(network, variables):
        def loss(params):
            logits, _ = network.apply({**variables, "params": params}, X, True)
            return cross_entropy(logits, jnp.arange(16) % 3)

        return jax.grad(loss)(variables["params"])

    (linen, ours), (other, theirs) = transplanted()
    a, b = slope(linen, ours), slope(other, theirs)
    np.testing.assert_allclose(a["Dense_0"]["kernel"], b["first"]["kernel"], atol=1e-5)
    np.testing.assert_allclose(a["BatchNorm_0"]["scale"], b["norm"]["scale"], atol=1e-5)


@pytest.mark.parametrize("world", ["linen", "nnx"])
def test_evaluation_changes_nothing_and_training_moves_statistics_only(world):
    network = from_linen(Linen()) if world == "linen" else from_nnx(Nnx)
    variables = network.init(jax.random.key(0), X)
    _, same = network.apply(variables, X, False)
    jax.tree.map(np.testing.assert_array_equal, numbers(same), numbers(variables))
    _, new = network.apply(variables, X, True)
    jax.tree.map(np.testing.assert_array_equal, new["params"], variables["params"])
    assert jax.tree.structure(new) == jax.tree.structure(variables)
    assert any(
        not np.array_equal(a, b) for a, b in zip(numbers(new), numbers(variables), strict=True)
    )


def numbers(variables):
    return [
        jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in jax.tree.leaves(variables)
    ]


def test_nnx_dropout_draws_afresh_in_training_and_is_off_in_evaluation():
    network = from_nnx(lambda rngs: Nnx(rngs, rate=0.5))
    variables = network.init(jax.random.key(0), X)
    first, after = network.apply(variables, X, True)
    second, _ = network.apply(after, X, True)
    again, _ = network.apply(variables, X, True)
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, second)
    still = [network.apply(variables, X, False)[0] for _ in range(2)]
    np.testing.assert_array_equal(*still)


def test_linen_dropout_follows_the_key_it_is_given():
    network = from_linen(Linen(rate=0.5))
    variables = network.init(jax.random.key(0), X)
    a, b, c = (
        network.apply(variables, X, True, {"dropout": jax.random.key(k)})[0] for k in (1, 1, 2)
    )
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)
    network.apply(variables, X, False)


@pytest.mark.parametrize("world", ["linen", "nnx"])
def test_networks_run_under_jit_and_vmap_over_keys(world):
    network = from_linen(Linen()) if world == "linen" else from_nnx(Nnx)
    keys = jax.random.split(jax.random.key(0), 3)
    many = jax.vmap(lambda key: network.init(key, X))(keys)
    run = jax.jit(jax.vmap(lambda v: network.apply(v, X, True)))
    logits, _ = run(many)
    assert logits.shape == (3, 16, 3)
    alone, _ = network.apply(network.init(keys[1], X), X, True)
    np.testing.assert_allclose(logits[1], alone, atol=1e-5)
    assert not np.allclose(logits[0], logits[1])
    assert count_params(network.init(keys[0], X)) == 5 * 6 + 6 + 12 + 6 * 3 + 3


def shape(*size, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(size, dtype)


def test_weights_start_uniform_within_the_root_of_the_fan_in():
    filled = fill(
        jax.random.key(0),
        {
            "conv": {"kernel": shape(3, 3, 8, 500)},
            "any": {"kernel_2": shape(16, 2_000)},
            "dense": {"kernel": shape(100, 300), "bias": shape(300)},
            "norm": {"scale": shape(4), "bias": shape(4), "mean": shape(4), "var": shape(4)},
            "half": {"kernel": shape(10, 10, dtype=jnp.bfloat16)},
        },
    )
    for room, name, fan_in in (
        ("conv", "kernel", 72),
        ("any", "kernel_2", 16),
        ("dense", "kernel", 100),
    ):
        scaled = np.asarray(filled[room][name]).ravel() * fan_in**0.5
        assert np.abs(scaled).max() <= 1 + 1e-6
        counts, _ = np.histogram(scaled, 10, (-1, 1))
        expected = len(scaled) / 10
        assert ((counts - expected) ** 2 / expected).sum() < 9 + 5 * 18**0.5
    for name, value in {"scale": 1, "bias": 0, "mean": 0, "var": 1}.items():
        assert filled["norm"][name].tolist() == [value] * 4
    assert filled["dense"]["bias"].tolist() == [0.0] * 300
    assert filled["half"]["kernel"].dtype == jnp.bfloat16


def test_no_two_leaves_start_alike_and_keys_matter():
    tree = {"a": {"kernel": shape(4, 5)}, "b": {"kernel": shape(4, 5)}}
    one, same, other = (fill(jax.random.key(k), tree) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    shared = set(np.asarray(one["a"]["kernel"]).ravel()) & set(
        np.asarray(one["b"]["kernel"]).ravel()
    )
    assert not shared
    assert not np.array_equal(one["a"]["kernel"], other["a"]["kernel"])


def test_cross_entropy_is_that_of_the_definition_even_for_huge_logits():
    logits = np.array([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0], [1e4, -1e4, 0.0]])
    labels = np.array([2, 1, 1])
    wanted = np.mean([np.log(np.exp([1, 2, -1]).sum()) + 1, np.log(3), 2e4])
    np.testing.assert_allclose(
        cross_entropy(jnp.array(logits), jnp.array(labels)), wanted, rtol=1e-6
    )
    half = cross_entropy(jnp.array(logits[:2], jnp.bfloat16), jnp.array(labels[:2], jnp.int8))
    assert half.dtype == jnp.float32
