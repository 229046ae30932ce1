"""Searches that foretell, over candidates whose curves are known: what is asked, charged, told."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.alike import compare
from reference.curves import power_laws

from jaxnas.core import Asked, Measured, close, run_host
from jaxnas.evolve.random_search import random_search
from jaxnas.formulas.foretelling import foretelling, reckoning
from jaxnas.formulas.meta_lstm import foretell

pytestmark = pytest.mark.usefixtures("quick_compile")
KNOWN, LENGTH, SEEDS, BATCH, AFTER, CHECKED = 4, 10, 2, 6, 20, 2
CURVES = power_laws(0, 200 * SEEDS, LENGTH).reshape(200, SEEDS, LENGTH)
CURVES[::9, 0, 2:] = np.nan  # these diverge
KEY = jax.random.key(5)


class Told(NamedTuple):
    curve: np.ndarray


class Table:
    """A candidate is a row of the table; a budget is kept."""

    def sample(self, key, n):
        return jax.random.randint(key, (n,), 0, len(CURVES))

    def evaluate(self, key, asked):
        budget = np.asarray(asked.budget)
        epochs = np.where(budget < 0, LENGTH, budget // SEEDS)
        curve = CURVES[np.asarray(asked.genotypes)].copy()
        curve[np.arange(LENGTH) >= epochs[:, None, None].repeat(SEEDS, 1)] = np.nan
        counted = [one[:, :n].min(1).mean() for one, n in zip(curve, epochs, strict=True)]
        fitness = [-loss if np.isfinite(loss) else -np.inf for loss in counted]
        fitness = jnp.asarray(fitness, jnp.float32)
        return Measured(fitness, jnp.asarray(epochs * SEEDS, jnp.float32), Told(curve))


def searcher(**settings):
    settings = {"known": KNOWN, "length": LENGTH, "seeds": SEEDS, "after": AFTER} | settings
    return foretelling(random_search(Table().sample, batch=BATCH), checked=CHECKED, **settings)


@pytest.fixture(scope="module")
def trail():
    return [(s, *jax.device_get(rest)) for s, *rest in run_host(close(searcher(), Table()), KEY, 8)]


def before(trail):
    """Each step with the state that it began with."""
    return list(zip(trail[1:], [state.searcher for _, state, _ in trail[:-1]], strict=True))


def test_candidates_are_trained_to_the_end_until_enough_curves_are_known(trail):
    for (_, _, info), state in before(trail):
        whole = CHECKED if state.seen >= AFTER else BATCH
        assert sorted(info["asked"].budget) == [-1] * whole + [KNOWN * SEEDS] * (BATCH - whole)
        wanted = np.where(info["asked"].budget < 0, LENGTH * SEEDS, KNOWN * SEEDS)
        assert info["measured"].cost.tolist() == wanted.tolist()
    budgets = np.concatenate([info["asked"].budget for *_, info in trail])
    assert 0 < (budgets > 0).sum() < len(budgets)


def test_what_counts_is_the_lowest_loss_foretold_or_measured(trail):
    foretold = diverged = 0
    for (_, _, info), state in before(trail):
        columns = info["asked"].genotypes, info["asked"].budget, info["measured"].fitness
        for row, budget, fitness in zip(*columns, strict=True):
            curve, short = CURVES[row], budget > 0
            if short:
                begun = jnp.asarray(curve[:, :KNOWN])
                rest = foretell(state.meta, begun, LENGTH - KNOWN)
                curve = np.concatenate([begun, rest], axis=1)
            wanted = -curve.min(1).mean() if np.isfinite(curve).all() else -np.inf
            assert fitness == pytest.approx(wanted, rel=1e-5)
            foretold, diverged = foretold + short, diverged + (fitness == -np.inf)
    assert foretold >= 3
    assert diverged >= 1


def test_whole_curves_are_kept_with_what_was_foretold_of_them(trail):
    kept, told = [], []
    for _, state, info in trail:
        ask, seen = info["asked"], len(kept)
        for row, budget in zip(ask.genotypes, ask.budget, strict=True):
            whole = CURVES[row] if budget < 0 else CURVES[:0, 0]
            kept += [curve for curve in whole if np.isfinite(curve).all()]
        told += [seen >= AFTER] * (len(kept) - seen)
        assert state.searcher.seen == len(kept)
    last = trail[-1][1].searcher
    np.testing.assert_array_equal(last.curves[: len(kept)], kept)
    assert np.isnan(last.curves[len(kept) :]).all()
    assert np.isfinite(last.foretold[: len(kept)]).tolist() == told


def test_on_power_laws_it_foretells_better_than_the_lowest_loss_so_far(trail):
    found = reckoning(trail[-1][1].searcher, KNOWN)
    assert found["curves"] > AFTER
    assert found["checked"] >= 8
    assert found["error"] < 0.6 * found["level_error"]


def test_a_search_resumes_bit_for_bit(trail):
    search = close(searcher(), Table())
    state = jax.tree.map(jnp.asarray, trail[4][1])
    for ours, theirs in zip(run_host(search, KEY, 8, state, 5), trail[5:], strict=True):
        compare(jax.device_get(ours[1:]), theirs[1:], 0)


def test_the_oldest_curves_are_forgotten_and_shapes_stay():
    asking = searcher(room=AFTER)
    state = asking.init(KEY)
    kinds = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    for first in (1, 11, 21):  # twelve curves a batch
        rows = np.arange(first, first + BATCH)
        asked = Asked(jnp.asarray(rows), jnp.full(BATCH, -1))
        state = asking.tell(state, asked, Table().evaluate(KEY, asked))
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == kinds
    assert state.seen == 36
    places = (24 + np.arange(12)) % AFTER
    np.testing.assert_array_equal(state.curves[places], CURVES[rows].reshape(-1, LENGTH))


@pytest.mark.parametrize("wrong", [{"known": 0}, {"known": LENGTH}, {"after": 1}, {"room": 5}])
def test_numbers_that_leave_nothing_to_foretell_are_refused(wrong):
    with pytest.raises(ValueError, match="`known` must be in 1"):
        searcher(**wrong)
