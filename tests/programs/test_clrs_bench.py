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
MATERIAL = clrs_examples.material("bfs", ((3, 3),), 8, 4)
TASK = clrs_training.setting(
    "bfs", MATERIAL, batch=4, eval_batch=4, hidden=4, triplet_features=2, platforms=("cpu",)
)
LESSON = Lesson(
    "bfs", TASK, partial(clrs_training.fit_triplets, TASK, MATERIAL), limits=lessons.LONG
)
PLAIN = triplets.SOURCES["v8"]


@pytest.fixture(scope="module")
def desk():
    """A bench whose processes end with these tests."""
    ends = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "atexit", SimpleNamespace(register=ends.append))
        yield bench(LESSON, Training(learning_rate=0.01, evaluate_every=2), workers=1)
    for end in ends:
        end()
    module._pool.cache_clear()


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
    here = LESSON.fit(verdict.programs, jax.random.key(0), (0,), (0.01,), steps=4, evaluate_every=2)
    assert score.valid == pytest.approx(here.valid[0])
    np.testing.assert_allclose(score.curve, here.loss[0], rtol=1e-5)


def test_programs_of_another_task_cost_the_candidate_alone(desk):
    (verdict,) = desk.check([PLAIN])
    forged = verdict.programs | {"evaluate": verdict.programs["init"]}
    (score,) = desk.train([forged], 4)
    assert score.failure == "forbidden"
    assert "evaluate is not" in score.message


@pytest.mark.parametrize(
    "wrong", [{"examples": 3}, {"batch": 0}, {"hidden": 0}, {"nodes": ()}, {"nodes": (1, 4)}]
)
def test_numbers_that_cannot_be_are_refused_before_anything_is_drawn(wrong, monkeypatch):
    monkeypatch.setattr(clrs_training, "draw", lambda *_, **__: pytest.fail("it was drawn"))
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        lessons.clrs("bfs", **({"batch": 4, "examples": 8} | wrong))
