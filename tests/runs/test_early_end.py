"""A search that runs out of means: what it has found by then counts, and more lets it go on."""

import jax
import jax.numpy as jnp
import pytest

from jaxnas.core import Exhausted, Leg, Search, legs_over_seeds
from jaxnas.runs import create, open_run
from jaxnas.runs.drive import drive

KEYS = jax.random.split(jax.random.key(3), 2)


def searched(folder, most, steps=5):
    """A walk of which only so many steps can be paid."""

    def step(key, state):
        if int(state["made"]) == most:
            raise Exhausted(f"The budget of steps is spent: {most}.")
        walk = state["walk"] + jax.random.normal(key)
        return {"made": state["made"] + 1, "walk": walk}, {"walk": walk}

    def init(key):
        return {"made": jnp.int32(0), "walk": jax.random.normal(key)}

    legs = legs_over_seeds([Leg(Search(init, step, lambda state: state["walk"]), steps)], "loop")
    run = open_run(folder) if folder.exists() else create(folder, {})
    with run:
        return run, drive(run, legs, KEYS, every=1, mode="host")


def test_a_search_whose_means_are_spent_ends_with_the_state_it_has(tmp_path):
    run, done = searched(tmp_path / "run", most=3)
    assert (done.step, done.early) == (3, "The budget of steps is spent: 3.")
    assert done.state["made"].tolist() == [3, 3]
    assert run.last() == 3
    assert run.ended()
    told = run.meta()
    assert (told["status"], told["early"], told["steps"]) == ("ended early", done.early, 5)
    assert done.search.best(done.state).tolist() == done.state["walk"].tolist()


def test_it_goes_on_with_more_as_if_it_had_never_ended(tmp_path):
    whole, wanted = searched(tmp_path / "whole", most=9)
    run, cut = searched(tmp_path / "run", most=3)
    _, again = searched(tmp_path / "run", most=3)
    assert (again.step, again.early) == (cut.step, cut.early)
    assert again.state["walk"].tolist() == cut.state["walk"].tolist()
    _, done = searched(tmp_path / "run", most=9)
    assert (done.step, done.early) == (5, "")
    assert done.state["walk"].tolist() == wanted.state["walk"].tolist()
    assert run.steps() == whole.steps()
    assert (run.meta()["status"], run.meta()["early"]) == ("finished", "")


def test_before_the_first_step_there_is_the_state_it_begins_with(tmp_path):
    run, done = searched(tmp_path / "run", most=0)
    assert (done.step, run.last()) == (0, 0)
    first = jax.vmap(jax.random.normal)(jax.vmap(lambda key: jax.random.fold_in(key, 0))(KEYS))
    assert done.state["walk"].tolist() == first.tolist()
    _, done = searched(tmp_path / "run", most=9)
    assert done.state["walk"].tolist() == searched(tmp_path / "b", most=9)[1].state["walk"].tolist()


def test_a_configuration_is_replaced_within_the_run_alone(tmp_path):
    run = create(tmp_path / "run", {"limit": 1})
    with pytest.raises(ValueError, match="open for reading"):
        run.reconfigure({"limit": 2})
    with run:
        run.reconfigure({"limit": 2})
    assert run.config == open_run(tmp_path / "run").config == {"limit": 2}
