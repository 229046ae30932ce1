"""SDARTS: what the weights are trained under stays in the ball and is a distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.toy_supernet import CHOICES, mixed, toy_supernet

from jaxnas.core import run_scan
from jaxnas.data.toy import waves
from jaxnas.oneshot.bilevel import Schedule, bilevel
from jaxnas.oneshot.darts import darts
from jaxnas.oneshot.sdarts import sdarts, to_simplex
from jaxnas.train.batches import halves, on_device

pytestmark = pytest.mark.usefixtures("quick_compile")

OPS = jnp.asarray(np.random.default_rng(0).dirichlet(np.ones(5), 6), jnp.float32)
ALL = jnp.ones((6, 5), bool)
SLOPE = jnp.asarray(np.random.default_rng(1).normal(size=(6, 5)), jnp.float32)


def linear(mix):
    return (SLOPE * mix.ops).sum()


def moved(form, done, mask=ALL, loss=linear, key=0, epsilon=(0.03, 0.3)):
    method = sdarts(darts(CHOICES), form=form, epsilon=epsilon)
    return method.perturb(jax.random.key(key), mixed(OPS), mask, loss, jnp.float32(done)).ops


def slow_simplex(ops, mask):
    rows = []
    for row, open_ in zip(ops, mask, strict=True):
        cut = [min(max(p, 0.0), 1.0) if m else 0.0 for p, m in zip(row, open_, strict=True)]
        if sum(cut) > 0:
            rows.append([p / sum(cut) for p in cut])
        else:
            top = max((p, i) for i, p in enumerate(row) if open_[i])[1] if any(open_) else -1
            rows.append([float(i == top) for i in range(len(row))])
    return np.array(rows)


def test_rows_are_cut_and_divided_by_their_sum():
    rng = np.random.default_rng(2)
    ops, mask = rng.normal(size=(60, 5)), rng.random((60, 5)) < 0.7
    ops[:10] = -np.abs(ops[:10])  # rows that would be zero
    mask[0] = False
    got = to_simplex(jnp.asarray(ops, jnp.float32), jnp.asarray(mask))
    np.testing.assert_allclose(got, slow_simplex(ops, mask), atol=1e-6)


def test_random_noise_is_uniform_in_a_ball_that_grows():
    """A row in the middle of the simplex is only shifted, so that its noise can be read off."""
    keys, method = jax.random.split(jax.random.key(0), 200), sdarts(darts(CHOICES), form="random")
    perturbed = jax.jit(
        jax.vmap(
            lambda key, done: method.perturb(key, mixed(OPS), ALL, linear, done).ops, (0, None)
        )
    )
    uniform = jax.jit(
        jax.vmap(lambda key, r: jax.random.uniform(key, (6, 5), minval=-r, maxval=r), (0, None))
    )
    for done, radius in ((0.0, 0.03), (0.5, 0.165), (1.0, 0.3)):
        draws = np.asarray(perturbed(keys, jnp.float32(done)))
        np.testing.assert_allclose(draws.sum(-1), 1, atol=1e-5)
        assert draws.min() >= 0
        noise = np.asarray(uniform(keys, radius))
        wanted = np.stack([slow_simplex(np.asarray(OPS) + n, np.asarray(ALL)) for n in noise])
        np.testing.assert_allclose(draws, wanted, atol=1e-5)
        assert np.abs(noise).max() > 0.98 * radius


def test_the_adversary_raises_the_loss_more_than_chance_and_stays_in_the_ball():
    radius = 0.1
    attacked = moved("adversarial", 0.0, epsilon=(radius, radius))
    by_chance = [
        float(linear(mixed(moved("random", 0.0, key=k, epsilon=(radius, radius)))))
        for k in range(50)
    ]
    assert float(linear(mixed(attacked))) > max(by_chance) > float(linear(mixed(OPS)))
    np.testing.assert_allclose(attacked.sum(-1), 1, atol=1e-5)
    # Before it is divided by its sum, every entry is within the radius.
    sums = np.clip(np.asarray(OPS) + radius, 0, 1).sum(-1, keepdims=True)
    assert (np.asarray(attacked) <= (np.asarray(OPS) + radius) / (2 - sums) + 1e-5).all()


def test_an_attack_that_does_not_raise_the_loss_is_dropped():
    """At the top of a concave loss every move lowers it."""
    top = lambda mix: -((mix.ops - OPS) ** 2).sum()  # noqa: E731
    np.testing.assert_array_equal(moved("adversarial", 0.5, loss=top), OPS)


def test_operations_out_of_play_stay_at_zero():
    mask = ALL.at[2].set(jnp.arange(5) == 3)
    for form in ("random", "adversarial"):
        row = moved(form, 1.0, mask=mask)[2]
        np.testing.assert_allclose(row, np.eye(5)[3], rtol=1e-6)
        assert not row[np.arange(5) != 3].any()


def test_only_the_step_on_the_weights_is_perturbed():
    """With a radius of zero the search is that of DARTS; with one, the alphas still see no noise."""
    data = waves(length=12, n=64)
    train, valid = halves(on_device(data, data.train))
    schedule = Schedule(epochs=5, batch=8, learning_rate=0.0, final_learning_rate=0.0)
    still = darts(CHOICES, learning_rate=0.0)

    def told(method):
        search = bilevel(toy_supernet(), train, valid, method, schedule)
        return run_scan(search, jax.random.key(0), 6)[1]

    plain, none = told(still), told(sdarts(still, epsilon=(0.0, 0.0)))
    np.testing.assert_allclose(plain["train_loss"], none["train_loss"], rtol=1e-5)
    for form in ("random", "adversarial"):
        rough = told(sdarts(still, form=form, epsilon=(0.3, 0.3)))
        np.testing.assert_allclose(plain["valid_loss"], rough["valid_loss"], rtol=1e-6)
        assert not np.allclose(plain["train_loss"], rough["train_loss"], rtol=1e-3)
        if form == "adversarial":
            assert (rough["train_loss"] >= plain["train_loss"] - 1e-6).all()


def test_unknown_forms_and_negative_radii_are_refused():
    with pytest.raises(ValueError, match=r"`form` must be one of random, adversarial.*'rs'"):
        sdarts(darts(CHOICES), form="rs")
    with pytest.raises(ValueError, match="`epsilon` must hold two radii"):
        sdarts(darts(CHOICES), epsilon=(-0.1, 0.3))
