"""Random search, the bit-string toy, and the curve every report prints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.order_statistics import expected_pick

from jaxnas.core import Asked, close, run_scan
from jaxnas.evolve.bit_string import BitString
from jaxnas.evolve.random_search import best_of, random_search

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(
    scope="module", params=[2, 5, 1_000], ids=["two values", "many ties", "hardly a tie"]
)
def picks(request):
    """A table of 37 rows, and the row held after every number of queries, in 4,000 searches."""
    fitness = np.random.default_rng(request.param).integers(0, request.param, 37)
    names, draws = jnp.arange(37.0), jnp.arange(1, 38)
    held = best_of(jnp.asarray(fitness, jnp.float32), names, draws, jax.random.key(1), 4_000)
    return fitness, np.asarray(held, int)


def test_a_search_changes_its_pick_for_strictly_better_rows_only(picks):
    fitness, held = picks
    before, after = fitness[held[:, :-1]], fitness[held[:, 1:]]
    changed = held[:, :-1] != held[:, 1:]
    np.testing.assert_array_equal(changed, after > before)
    assert set(fitness[held[:, -1]]) == {fitness.max()}


def test_the_first_query_is_any_row_and_of_equal_best_rows_each_ends_as_often(picks):
    fitness, held = picks
    best = np.flatnonzero(fitness == fitness.max())
    for column, rows in ((0, np.arange(37)), (-1, best)):
        counts = np.bincount(held[:, column], minlength=37)[rows]
        assert counts.sum() == 4_000
        share = 1 / len(rows)
        assert np.abs(counts - 4_000 * share).max() <= 5 * (4_000 * share * (1 - share)) ** 0.5


def test_the_mean_pick_after_any_number_of_queries_is_the_order_statistic(picks):
    fitness, held = picks
    told = np.cos(np.arange(37.0))  # what is reported has nothing to do with what is seen
    for n in range(1, 38):
        each = told[held[:, n - 1]]
        wanted = expected_pick(fitness, told, n)
        assert abs(each.mean() - wanted) < 4.5 * each.std() / 4_000**0.5 + 1e-9


def test_all_draws_find_a_best_and_one_draw_is_the_average_cell():
    fitness = jnp.array([0.3, -1.0, 0.9, 0.2, 0.9])
    curves = best_of(fitness, fitness * 10, jnp.array([1, 5]), jax.random.key(0), 4_000)
    np.testing.assert_allclose(curves[:, 1], 9.0, rtol=1e-6)
    error = float(curves[:, 0].std()) / 4_000**0.5
    assert abs(float(curves[:, 0].mean()) - 2.6) < 5 * error


def test_a_table_of_negative_numbers_is_searched_too():
    fitness = -jnp.arange(1.0, 9.0)
    curves = best_of(fitness, fitness, jnp.arange(1, 9), jax.random.key(1), 50)
    assert bool((jnp.diff(curves, axis=1) >= 0).all())
    assert curves[:, -1].tolist() == [-1.0] * 50


def test_random_search_asks_as_it_was_told_and_counts():
    problem = BitString(6)
    search = close(random_search(problem.sample, batch=3, budget=7), problem)
    state, info = run_scan(search, jax.random.key(0), 5)
    assert info["asked"].genotypes.shape == (5, 3, 6)
    assert info["asked"].budget.tolist() == [[7, 7, 7]] * 5
    assert int(state.searcher) == 15
    assert float(state.cost) == 15.0
    with pytest.raises(ValueError, match="`batch` must be at least 1, but got 0"):
        random_search(problem.sample, batch=0)


def test_candidates_of_random_search_are_fair_and_independent():
    problem = BitString(4, noise=0.0)
    _, info = run_scan(close(random_search(problem.sample), problem), jax.random.key(2), 4_000)
    bits = np.asarray(info["asked"].genotypes)[:, 0]
    counts = np.bincount(bits @ [8, 4, 2, 1], minlength=16)
    assert np.abs(counts - 250).max() < 5 * (250 * 15 / 16) ** 0.5
    again = np.corrcoef(bits[1:].sum(1), bits[:-1].sum(1))[0, 1]
    assert abs(again) < 5 / 4_000**0.5


def test_a_mutation_of_bits_flips_exactly_one_each_as_often_as_the_next():
    problem, parent = BitString(7), jnp.array([1, 0, 1, 1, 0, 0, 1], bool)
    keys = jax.random.split(jax.random.key(3), 7_000)
    flipped = jax.vmap(lambda key: problem.mutate(key, parent))(keys) ^ parent
    assert bool((flipped.sum(1) == 1).all())
    assert np.abs(np.asarray(flipped.sum(0)) - 1_000).max() < 5 * (1_000 * 6 / 7) ** 0.5


def test_bits_are_measured_with_noise_clipped_to_a_share():
    ones = jnp.tile(jnp.array([0, 10, 3]), 2_000)
    strings = jnp.arange(10) < ones[:, None]
    asked = Asked(strings, jnp.full(6_000, -1, jnp.int32))
    said = BitString(10, noise=0.05).evaluate(jax.random.key(0), asked)
    np.testing.assert_allclose(said.extra[:3], [0.0, 1.0, 0.3], rtol=1e-6)
    assert float(said.fitness.min()) == 0.0
    assert float(said.fitness.max()) == 1.0
    middle = np.asarray(said.fitness[2::3])
    assert abs(middle.mean() - 0.3) < 5 * 0.05 / 2_000**0.5
    assert abs(middle.std() - 0.05) < 0.005
