"""Cells measured by training them: budgets, costs, and cells that compute nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.cells.trained import trained
from jaxnas.core import Asked, Problem, close, run_host
from jaxnas.data.toy import waves
from jaxnas.evolve.random_search import random_search
from jaxnas.train.fit import Recipe

pytestmark = pytest.mark.usefixtures("quick_compile")

RECIPE = Recipe(epochs=3, batch=8, learning_rate=0.05)
CELLS = jnp.array([[3, 1, 2, 0, 4, 3], [0] * 6, [1] * 6, [3] * 6], jnp.int8)


@pytest.fixture(scope="module")
def problem():
    return trained(waves(length=12, n=32), RECIPE, channels=4, layers=1, execution="vmap_scan")


@pytest.fixture(scope="module")
def said(problem):
    return problem.evaluate(jax.random.key(0), Asked(CELLS, jnp.array([-1, 2, 1, 3], jnp.int32)))


def test_a_budget_per_candidate_is_honoured_and_charged_in_epochs(said):
    assert said.cost.tolist() == [3.0, 2.0, 1.0, 3.0]
    assert said.cost.dtype == said.fitness.dtype == jnp.float32
    assert said.extra["loss"].shape == (4, 3)


def test_a_cell_without_any_path_trains_to_a_constant_guess(said):
    assert bool(jnp.isfinite(said.extra["loss"]).all())
    assert said.extra["diverged"].tolist() == [-1] * 4
    # Zeros reach the classifier whatever the input, so one class is guessed: a quarter is right.
    assert float(said.fitness[1]) == float(said.extra["test"][1]) == 25.0


def test_budgets_of_others_change_nothing(problem, said):
    alone = problem.evaluate(jax.random.key(0), Asked(CELLS, jnp.array([3, 2, 3, 1], jnp.int32)))
    np.testing.assert_allclose(alone.fitness[:2], said.fitness[:2])
    np.testing.assert_allclose(alone.extra["loss"][:2], said.extra["loss"][:2], rtol=1e-5)


def test_it_is_a_problem_whose_label_says_how_it_was_measured(problem):
    assert isinstance(problem, Problem)
    for label, split in ((problem.label, "validation"), (problem.reported_label, "test")):
        assert all(word in label for word in ("waves", split, "%", "3 epochs", "C=4 N=1"))
    assert problem.sample(jax.random.key(0), 5).shape == (5, 6)


def test_a_host_search_runs_on_it(problem):
    search = close(random_search(problem.sample, batch=4, budget=1), problem)
    *_, (_, state, info) = run_host(search, jax.random.key(1), 2)
    assert float(state.cost) == 8.0
    assert float(state.fitness) >= float(info["measured"].fitness.max())
