"""`close`: who the incumbent is, whatever a problem says."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.core import Asked, Measured, Problem, Searcher, close, run_scan

pytestmark = pytest.mark.usefixtures("quick_compile")

NAN, INF = float("nan"), float("inf")


class Script(NamedTuple):
    """A problem that says what it was told to say, whatever it is asked."""

    fitness: tuple[tuple[float, ...], ...]

    def sample(self, key, n):
        return jnp.full((n, 2), -1, jnp.int32)

    def evaluate(self, key, asked):
        said = jnp.asarray(self.fitness, jnp.float32)[asked.genotypes[0, 0]]
        return Measured(said, jnp.full(said.shape, 2.5, jnp.float32), {"ignored": said})


def counting(batch):
    """Asks for `(step, position in the batch)` and counts steps."""

    def ask(key, state):
        names = jnp.stack([jnp.full(batch, state), jnp.arange(batch, dtype=jnp.int32)], axis=1)
        return Asked(names, jnp.full(batch, -1, jnp.int32)), state

    return Searcher(lambda key: jnp.int32(0), ask, lambda state, asked, measured: state + 1)


def incumbents(rows):
    """The incumbent's name and fitness after every row of fitness."""
    search = close(counting(len(rows[0])), Script(tuple(map(tuple, rows))))
    key, trail = jax.random.key(0), []
    state = search.init(key)
    for _ in rows:
        state, info = search.step(key, state)
        trail.append((*np.asarray(search.best(state)).tolist(), float(info["fitness"])))
    return trail


def slow_incumbents(rows):
    """The same by the words of the docstring: first of equals, NaN never wins."""
    best, name, trail = -INF, (-1, -1), []
    for step, row in enumerate(rows):
        for place, value in enumerate(row):
            if value > best:
                best, name = value, (step, place)
        trail.append((*name, best))
    return trail


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 3.0, 3.0], [3.0, 2.0, 1.0], [4.0, 4.0, 0.0]],
        [[NAN, 1.0, NAN], [NAN, NAN, NAN], [2.0, NAN, 2.0]],
        [[-INF, -INF, -INF], [-INF, NAN, -INF], [-INF, -5.0, -INF]],
        [[-INF, NAN, -INF], [NAN, NAN, NAN]],
        [[0.0, -0.0, 0.0], [INF, INF, 1.0], [INF, 2.0, NAN]],
    ],
    ids=["ties", "nan", "minus infinity first", "nothing finite at all", "zeros and infinity"],
)
def test_the_first_of_equals_stays_and_nan_counts_as_minus_infinity(rows):
    assert incumbents(rows) == slow_incumbents(rows)


def test_random_fitness_with_holes_gives_the_incumbent_of_a_plain_loop():
    rng = np.random.default_rng(0)
    rows = rng.choice([NAN, -INF, 0.0, 1.0, 2.0, 3.0], (40, 5)).tolist()
    assert incumbents(rows) == slow_incumbents(rows)


def test_before_anything_finite_the_answer_is_a_sample_of_the_space():
    assert incumbents([[NAN, -INF]]) == [(-1, -1, -INF)]


def test_what_a_searcher_is_told_holds_no_nan_and_info_leaves_extra_out():
    told = []

    def tell(state, asked, measured):
        told.append(measured)
        return state + 1

    search = close(counting(3)._replace(tell=tell), Script(((NAN, 1.0, -INF),)))
    _, info = search.step(jax.random.key(0), search.init(jax.random.key(0)))
    assert told[0].fitness.tolist() == [-INF, 1.0, -INF]
    assert told[0].extra is not None
    assert info["measured"].extra is None
    assert info["measured"].fitness.tolist() == [-INF, 1.0, -INF]


def test_cost_adds_up_over_candidates_and_steps():
    search = close(counting(3), Script(((1.0, 2.0, 3.0),) * 4))
    state, info = run_scan(search, jax.random.key(0), 4)
    assert info["cost"].tolist() == [7.5, 15.0, 22.5, 30.0]
    assert float(state.cost) == 30.0


def test_genotypes_may_be_any_tree():
    class Pair(NamedTuple):
        def sample(self, key, n):
            return {"a": jax.random.normal(key, (n, 3)), "b": (jnp.arange(n, dtype=jnp.int8),)}

        def evaluate(self, key, asked):
            fitness = asked.genotypes["a"].sum(-1)
            return Measured(fitness, jnp.ones_like(fitness))

    def ask(key, state):
        return Asked(Pair().sample(key, 4), jnp.full(4, -1, jnp.int32)), state

    search = close(Searcher(lambda key: jnp.int32(0), ask, lambda s, *_: s + 1), Pair())
    state, info = run_scan(search, jax.random.key(1), 6)
    flat = np.asarray(info["measured"].fitness).ravel()
    asked = np.asarray(info["asked"].genotypes["a"]).reshape(-1, 3)
    best = search.best(state)
    np.testing.assert_array_equal(best["a"], asked[flat.argmax()])
    assert int(best["b"][0]) == flat.argmax() % 4


def test_a_named_tuple_with_both_methods_is_a_problem():
    assert isinstance(Script(((1.0,),)), Problem)
    assert not isinstance(counting(1), Problem)
