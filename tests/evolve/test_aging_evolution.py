"""Aging evolution against a queue in plain Python that is told the same random draws."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.aging import aging_evolution

from jaxnas.cells import nas_bench_201 as nb
from jaxnas.core import Asked, Measured, close, run_scan
from jaxnas.evolve.bit_string import BitString
from jaxnas.evolve.regularized import regularized_evolution

pytestmark = pytest.mark.usefixtures("quick_compile")


class Cells:
    """Cells with a made-up fitness of many ties."""

    sample, mutate = staticmethod(nb.sample), staticmethod(nb.mutate)

    def evaluate(self, key, asked):
        fitness = (asked.genotypes.astype(jnp.float32) ** 2).sum(-1) % 17
        return Measured(fitness, jnp.ones_like(fitness))


def replay(problem, key, *, steps, population, tournament, batch):
    """The reference, told what the keys of `run_scan` and `close` draw."""
    step_keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(steps + 1))
    halves = jax.vmap(jax.random.split)(step_keys)
    founders = problem.sample(halves[0, 0], population)
    ask = jax.vmap(jax.random.split)(halves[1:, 0])
    draws = jax.vmap(lambda k: jax.random.randint(k, (batch, tournament), 0, population))(ask[:, 0])
    mutations = jax.vmap(lambda k: jax.random.split(k, batch))(ask[:, 1])
    mutate, evaluate = jax.jit(problem.mutate), jax.jit(problem.evaluate)

    def measure(step, genotypes):
        asked = Asked(jnp.stack(genotypes), jnp.full(batch, -1, jnp.int32))
        return np.asarray(evaluate(halves[step + 1, 1], asked).fitness).tolist()

    def child(step, n, parent):
        return mutate(mutations[step, n], parent)

    return aging_evolution(list(founders), np.asarray(draws).tolist(), child, measure, batch)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    "problem", [Cells(), BitString(12, noise=0.05)], ids=["cells", "bit string"]
)
def test_every_candidate_is_the_one_a_queue_would_have_made(problem, batch):
    settings = {"population": 8, "tournament": 3, "batch": batch}
    key, steps = jax.random.key(5), 80 // batch
    search = close(regularized_evolution(problem.sample, problem.mutate, **settings), problem)
    state, info = run_scan(search, key, steps)
    history, alive, parents = replay(problem, key, steps=steps, **settings)

    names, fitness = (np.array(column) for column in zip(*history, strict=True))
    asked = np.asarray(info["asked"].genotypes)
    np.testing.assert_array_equal(asked.reshape(-1, asked.shape[-1]), names)
    np.testing.assert_allclose(info["measured"].fitness.ravel(), fitness, rtol=1e-6)
    np.testing.assert_array_equal(info["asked"].parents.ravel(), parents)
    np.testing.assert_array_equal(search.best(state), names[fitness.argmax()])
    oldest = int(state.searcher.age) % 8
    living = np.roll(state.searcher.genotypes, -oldest, axis=0)
    np.testing.assert_array_equal(living, [name for name, _ in alive])


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_the_oldest_die_however_good_they_are(batch):
    """Fitness falls with every birth, so a rule that kills the worst would keep the founders."""

    def tell_births(births, state):
        names = births + jnp.arange(batch)
        asked = Asked(names, jnp.full(batch, -1, jnp.int32))
        return searcher.tell(state, asked, Measured(-names * 1.0, jnp.ones(batch)))

    searcher = regularized_evolution(
        lambda key, n: jnp.full(n, -1), lambda key, x: x, population=6, tournament=2, batch=batch
    )
    state = searcher.init(jax.random.key(0))
    for births in range(0, 30, batch):
        state = tell_births(births, state)
        born = births + batch
        alive = {int(x) for x in state.genotypes if x >= 0}
        assert alive == set(range(max(0, born - 6), born))
        assert int(state.age) == born


def test_the_founders_are_asked_for_once_and_in_order():
    searcher = regularized_evolution(
        lambda key, n: jnp.arange(n), lambda key, x: x + 100, population=6, tournament=2, batch=2
    )
    state, asked = searcher.init(jax.random.key(0)), []
    for i in range(4):
        wanted, state = searcher.ask(jax.random.key(i), state)
        asked += wanted.genotypes.tolist()
        assert wanted.budget.tolist() == [-1, -1]
        state = searcher.tell(state, wanted, Measured(jnp.ones(2), jnp.ones(2)))
    assert asked[:6] == [0, 1, 2, 3, 4, 5]
    assert all(child >= 100 for child in asked[6:])


def test_a_tournament_is_drawn_with_replacement():
    """With P = S = 2 the worse one is drawn twice in a quarter of tournaments, and then wins."""
    searcher = regularized_evolution(
        lambda key, n: jnp.arange(n), lambda key, x: x, population=2, tournament=2
    )
    state = searcher.init(jax.random.key(0))._replace(
        fitness=jnp.array([1.0, 2.0]), age=jnp.int32(2)
    )
    keys = jax.random.split(jax.random.key(1), 4_000)
    parents = jax.vmap(lambda key: searcher.ask(key, state)[0].genotypes[0])(keys)
    worse = float((parents == 0).mean())
    assert abs(worse - 0.25) < 5 * (0.25 * 0.75 / 4_000) ** 0.5


def test_a_population_that_never_measured_anything_finite_goes_on():
    class Broken(BitString):
        def evaluate(self, key, asked):
            return Measured(jnp.full(2, jnp.nan), jnp.ones(2))

    problem = Broken(5)
    searcher = regularized_evolution(
        problem.sample, problem.mutate, population=4, tournament=2, batch=2
    )
    state, info = run_scan(close(searcher, problem), jax.random.key(0), 10)
    assert int(state.searcher.age) == 20
    assert bool((info["fitness"] == -jnp.inf).all())
    children = np.asarray(info["asked"].genotypes)[2:].reshape(16, 5)
    assert len(np.unique(children, axis=0)) > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"population": 4, "tournament": 5},
            "`tournament`.*`population`.*5 with a population of 4",
        ),
        ({"population": 4, "tournament": 0}, "`tournament`.*got 0 with a population of 4"),
        ({"population": 9, "tournament": 2, "batch": 2}, "`batch`.*2 with a population of 9"),
        ({"population": 9, "tournament": 2, "batch": 0}, "`batch`.*0 with a population of 9"),
        ({"population": 4, "tournament": 2, "batch": 8}, "`batch`.*8 with a population of 4"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name_and_value(settings, message):
    with pytest.raises(ValueError, match=message):
        regularized_evolution(nb.sample, nb.mutate, **settings)
