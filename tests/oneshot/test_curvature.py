"""The dominant eigenvalue of the architecture's Hessian, and turning back when it grows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.toy_supernet import CHOICES, mixed, toy_supernet

from jaxnas.core import Leg, relay, run_scan
from jaxnas.data.toy import waves
from jaxnas.oneshot.bilevel import Schedule, bilevel, signs_of, steps_per_epoch
from jaxnas.oneshot.curvature import curvature, dominant, watched
from jaxnas.oneshot.darts import darts
from jaxnas.oneshot.robust import Rule, robust_legs
from jaxnas.train.batches import halves, on_device

pytestmark = pytest.mark.usefixtures("quick_compile")

DATA = waves(length=12, n=64)
TRAIN, VALID = halves(on_device(DATA, DATA.train))
NET, METHOD = toy_supernet(), darts(CHOICES, learning_rate=0.05)
SCHEDULE = Schedule(epochs=30, batch=16, learning_rate=0.05, weight_decay=3e-4)
SEARCH = bilevel(NET, TRAIN, VALID, METHOD, SCHEDULE)
PER_EPOCH = steps_per_epoch(TRAIN, SCHEDULE)
SIGNS = signs_of(CHOICES, METHOD)


@pytest.mark.parametrize("kind", ["full", "low rank", "negative", "zero"])
def test_the_dominant_eigenvalue_is_that_of_a_dense_solver(kind):
    rng = np.random.default_rng(0)
    for size in (3, 30):
        matrix = rng.normal(size=(size, size))
        matrix = matrix + matrix.T
        if kind == "low rank":
            matrix = np.outer(matrix[0], matrix[0]) - 0.3 * np.outer(matrix[1], matrix[1])
        if kind == "negative":
            matrix = -matrix @ matrix
        if kind == "zero":
            matrix = 0 * matrix
        values = np.linalg.eigvalsh(matrix)
        wanted = values[np.abs(values).argmax()]
        given = jnp.asarray(matrix, jnp.float32)
        got = dominant(lambda v, given=given: given @ v, jax.random.key(1), size, 30)
        np.testing.assert_allclose(got, wanted, rtol=2e-3, atol=1e-5)
        rough = dominant(lambda v, given=given: given @ v, jax.random.key(1), size, 12)
        np.testing.assert_allclose(rough, wanted, rtol=0.1, atol=1e-5)


def test_the_curvature_of_a_search_is_that_of_its_dense_hessian():
    state, _ = run_scan(SEARCH, jax.random.key(0), 5)
    x, y = (VALID.x - VALID.mean) / VALID.std, VALID.y

    def loss(flat):
        mix = mixed(jax.nn.softmax(flat.reshape(6, 5), -1))
        logits = NET.logits(state.weights, mix, x, None)
        return -jax.nn.log_softmax(logits)[jnp.arange(len(y)), y].mean()

    values = np.linalg.eigvalsh(jax.jit(jax.hessian(loss))(state.alphas.ravel()))
    wanted = values[np.abs(values).argmax()]
    measure = jax.jit(curvature(NET, VALID, METHOD, examples=len(y), iterations=30))
    np.testing.assert_allclose(measure(jax.random.key(3), state), wanted, rtol=1e-2)


def test_watching_changes_nothing_but_the_keys_and_measures_after_every_epoch():
    legs = watched([Leg(SEARCH, 4), Leg(SEARCH, 3)], 2, lambda key, state: jnp.float32(state.step))
    assert [leg.steps for leg in legs] == [2, 1, 2, 1, 2, 1, 1, 1]
    trail = list(relay(legs, jax.random.key(0), every=10))
    assert [float(info["curvature"][0]) for *_, info in trail[1::2]] == [2, 4, 6, 7]
    assert len({leg.search for leg in legs}) == 2


def told(values, rule, epochs=30):
    """Runs a search whose eigenvalue after epoch `n` of its own count is `values[n]`."""
    given = jnp.asarray(values, jnp.float32)

    def measure(key, state):
        return given[state.step // PER_EPOCH - 1] * jnp.where(state.decay > 1, 0.0, 1.0) + 1e-3

    legs = robust_legs(SEARCH, PER_EPOCH, SCHEDULE, measure, SIGNS, rule)
    return legs, list(relay(legs, jax.random.key(0), every=10))


def slow_stop(values, rule):
    """The first epoch whose window has grown too much against that of some epochs before."""
    for epoch in range(rule.first, len(values) + 1):
        last = np.mean(values[epoch - rule.window : epoch])
        start = epoch - rule.lag - rule.window
        if start >= 0 and last > rule.ratio * np.mean(values[start : start + rule.window]):
            return epoch
    return -1


@pytest.mark.parametrize("name", ["flat", "growing late", "growing early", "one spike"])
def test_a_search_stops_where_the_paper_would_and_answers_from_before(name):
    values = np.ones(30)
    values[{"growing late": 17, "growing early": 3}.get(name, 30) :] = 4
    values[12] = 3.0 if name == "one spike" else values[12]
    rule = Rule()
    legs, trail = told(values, rule)
    stop = slow_stop(values + 1e-3, rule)
    assert (stop > 0) == (name in ("growing late", "growing early", "one spike"))
    last = trail[-1][1]
    assert int(last.stopped) == stop
    if stop < 0:
        assert int(last.search.step) == 30 * PER_EPOCH
        return
    assert int(last.search.step) == (stop - rule.lag) * PER_EPOCH
    there = trail[2 * (stop - rule.lag) - 1][1].search
    np.testing.assert_array_equal(last.search.alphas, there.alphas)
    np.testing.assert_array_equal(last.search.weights["out"], there.weights["out"])
    np.testing.assert_array_equal(legs[-1].search.best(last), SEARCH.best(there))
    # From then on no loss is told, since no step is taken; the weights are those of the answer.
    for epoch, (taken, looked) in enumerate(zip(trail[::2], trail[1::2], strict=True)):
        for name in ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy"):
            assert bool(np.isnan(taken[2][name]).all()) == (epoch >= stop), (epoch, name)
        assert bool(np.isnan(looked[2]["curvature"]).all()) == (epoch >= stop)
    weights = trail[2 * (stop - rule.lag) - 2][2]["weights"][-1]
    np.testing.assert_array_equal(trail[-2][2]["weights"][-1], weights)
    assert trail[-2][2]["collapsed"].dtype == jnp.int32


def test_under_adaptive_regularisation_it_goes_on_from_there_with_more_decay():
    values = np.ones(30)
    values[17:] = 4
    rule = Rule(factor=3.0, most=0.0243)
    legs, trail = told(values, rule)
    assert len(legs) == 2 * (30 + 4 * rule.lag)  # 3e-4, 9e-4, 2.7e-3, 8.1e-3, 2.43e-2
    turned = [n for n, (*_, info) in enumerate(trail) if "turned_back" in info]
    back = [bool(trail[n][2]["turned_back"][0]) for n in turned]
    assert sum(back) == 1
    last = trail[-1][1]
    assert int(last.stopped) == -1
    np.testing.assert_allclose(last.search.decay, 3.0)
    assert int(last.search.step) == 30 * PER_EPOCH


def test_it_stops_when_the_largest_decay_has_been_reached():
    rule = Rule(first=3, window=1, lag=1, factor=3.0, most=9.5e-4)
    measure = lambda key, state: 2.0 ** (state.step / PER_EPOCH)  # noqa: E731
    legs = robust_legs(SEARCH, PER_EPOCH, SCHEDULE, measure, SIGNS, rule)
    assert len(legs) == 2 * 31
    *_, (_, last, _) = relay(legs, jax.random.key(0), every=10)
    np.testing.assert_allclose(last.search.decay, 3.0)
    assert int(last.stopped) > 0


def test_more_examples_than_there_are_are_refused():
    with pytest.raises(ValueError, match=r"`curvature` .* between 1 and the 32 .* got 33"):
        curvature(NET, VALID, METHOD, examples=33)


def test_a_search_that_has_ended_is_not_turned_back():
    """The eigenvalue rises in the last epoch and stays there while spare epochs run out."""
    values = np.ones(30)
    values[29] = 4
    rule = Rule(window=2, lag=4, first=10, factor=3.0)
    _, trail = told(values, rule)
    last = trail[-1][1]
    assert int(last.search.step) == 30 * PER_EPOCH
    np.testing.assert_allclose(last.search.decay, 1.0 if slow_stop(values, rule) < 0 else 3.0)
    values[29] = 1.5  # a mean of 1.25 in the window: too little, unless it is seen again
    assert slow_stop(values, rule) < 0
    _, trail = told(values, rule)
    np.testing.assert_allclose(trail[-1][1].search.decay, 1.0)
    assert not any(bool(info["turned_back"].any()) for *_, info in trail if "turned_back" in info)


def test_a_leg_of_one_step_is_not_measured():
    legs = watched([Leg(SEARCH, 1), Leg(SEARCH, 4)], 2, lambda key, state: jnp.float32(0))
    assert [leg.steps for leg in legs] == [1, 2, 1, 2, 1]
