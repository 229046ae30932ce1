"""Triplet functions through the real sandbox and the real trainer, on runs of no algorithm."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import clrs_examples

from jaxnas.core import Asked
from jaxnas.programs import bench as module, clrs, clrs_training, lessons, triplets
from jaxnas.programs.bench import Training, bench
from jaxnas.programs.judge import REASONS, Judge
from jaxnas.programs.lessons import Lesson
from jaxnas.programs.page import pages

pytestmark = pytest.mark.usefixtures("quick_compile")
MATERIAL = clrs_examples.material("bfs", ((3, 3),), 8, 4, test=(5, 4))
SMALL = {"eval_batch": 4, "hidden": 4, "triplet_features": 2, "platforms": ("cpu",)}
FINAL = clrs_training.setting("bfs", MATERIAL, batch=4, **SMALL)
TASK = FINAL._replace(test=None)
FIT = partial(clrs_training.fit_triplets, FINAL, MATERIAL)
LESSON = Lesson("bfs", TASK, FINAL, FIT, limits=lessons.LONG)
TRAINING = Training(learning_rate=0.01, evaluate_every=2, tested=False)
PLAIN = triplets.SOURCES["v8"]


@pytest.fixture(scope="module")
def desks():
    """Benches whose processes end with these tests: of a search, and of what it finds."""
    ends = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "atexit", SimpleNamespace(register=ends.append))
        yield [
            bench(LESSON, TRAINING._replace(tested=tested), workers=1) for tested in (False, True)
        ]
    for end in ends:
        end()
    module._pool.cache_clear()


@pytest.fixture
def desk(desks):
    return desks[0]


def test_triplet_functions_become_scores_and_reasons(desk):
    renamed = PLAIN.replace("nodes", "messages") + "# the same\n"
    sources = {
        PLAIN: "",
        renamed: "",
        PLAIN + "def f(:": "parse",
        "x = 1\n": "parse",
        f"import os\n{PLAIN}": "forbidden",
        PLAIN.replace("(1, z", "(2, z"): "shape",
        PLAIN.replace("jnp.tile(", "jnp.title("): "shape",
        PLAIN.replace("(nodes,", "(nodes * 1e38 * 1e38,"): "non-finite",
    }
    asked = Asked(jnp.asarray(pages(list(sources))), jnp.full(len(sources), -1, jnp.int32))
    told = Judge(*desk, steps=4, seeds=[PLAIN]).evaluate(jax.random.key(0), asked)
    assert [REASONS[code] for code in told.failure.tolist()] == list(sources.values())
    assert told.extra["params"].tolist()[:2] == [clrs.size(triplets.SEEDS["v8"], TASK)] * 2
    assert np.array_equal(told.extra["identity"][0], told.extra["identity"][1])
    assert 0 <= float(told.fitness[0]) == float(told.fitness[1]) <= 100
    assert np.isfinite(told.extra["curve"][0]).all()
    assert np.isnan(told.extra["test"][0])
    assert told.cost.tolist() == [4, 4, 0, 0, 0, 0, 0, 0]
    words = [bytes(row).rstrip(b"\0").decode() for row in np.asarray(told.extra["message"])]
    assert f"write `{triplets.STUB}`" in words[3]
    assert "returned shape (2, 2, 2, 4)" in words[5]
    assert "not finite at step 0" in words[7]


def test_a_score_is_that_of_training_in_this_process(desk):
    (verdict,) = desk.check([PLAIN])
    (score,) = desk.train([verdict.programs], 4)
    how = {"steps": 4, "evaluate_every": 2, "tested": False}
    here = LESSON.fit(verdict.programs, jax.random.key(0), (0,), (0.01,), **how)
    assert score.valid == pytest.approx(here.valid[0])
    np.testing.assert_allclose(score.curve, here.loss[0], rtol=1e-5)


def test_a_test_set_of_other_graphs_is_scored_where_it_is_asked_for_alone(desks):
    searched, final = desks
    (plain,), (verdict,) = searched.check([PLAIN]), final.check([PLAIN])
    assert sorted(verdict.programs) == ["evaluate", "init", "step", "test"]
    assert sorted(plain.programs) == ["evaluate", "init", "step"]
    (score,), (again,) = final.train([verdict.programs], 4), searched.train([plain.programs], 4)
    assert 0 <= score.test <= 100
    assert np.isnan(again.test)
    assert score.valid == again.valid
    (refused,) = final.train([plain.programs], 4)
    assert refused.failure == "forbidden"
    assert "lacks {'test'}" in refused.message


def test_programs_of_another_task_cost_the_candidate_alone(desk):
    (verdict,) = desk.check([PLAIN])
    forged = verdict.programs | {"evaluate": verdict.programs["init"]}
    (score,) = desk.train([forged], 4)
    assert score.failure == "forbidden"
    assert "evaluate is not" in score.message


@pytest.mark.parametrize(
    "wrong",
    [
        {"examples": 3},
        {"batch": 0},
        {"hidden": 0},
        {"nodes": ()},
        {"nodes": (1, 4)},
        {"test_nodes": 1},
    ],
)
def test_numbers_that_cannot_be_are_refused_before_anything_is_drawn(wrong, monkeypatch):
    monkeypatch.setattr(clrs_training, "draw", lambda *_, **__: pytest.fail("it was drawn"))
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        lessons.clrs("bfs", **({"batch": 4, "examples": 8} | wrong))
    with pytest.raises(
        ValueError, match="`test_nodes` must be at least 17 for kmp_matcher, but got 8"
    ):
        lessons.clrs("kmp_matcher", test_nodes=8)
