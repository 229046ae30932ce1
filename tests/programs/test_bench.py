"""The judge with its real sandbox and trainer, on a toy."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.core import Asked
from jaxnas.data.toy import waves
from jaxnas.programs import bench as module
from jaxnas.programs.bench import Training, bench
from jaxnas.programs.judge import REASONS, Judge
from jaxnas.programs.lessons import classification
from jaxnas.programs.page import pages

PERCEPTRON = """import flax.linen as nn


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(CLASSES)(nn.relu(nn.Dense(6)(x)))
"""
WAVES = waves(length=8, n=120)
LESSON, TRAINING = classification(WAVES, batch=16), Training(evaluate_every=5)
SOURCE = PERCEPTRON.replace("CLASSES", str(len(WAVES.classes)))


@pytest.fixture(scope="module")
def desk():
    """Benches whose processes end with these tests."""
    ends = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "atexit", SimpleNamespace(register=ends.append))
        yield lambda **runs: bench(LESSON, TRAINING._replace(**runs), workers=1)
    assert len(ends) == 2  # a pool and a worker, shared by all
    for end in ends:
        end()
    module._pool.cache_clear()


def test_sources_become_fitness_and_reasons(desk):
    judge = Judge(*desk(), steps=10, seeds=[SOURCE])
    renamed = SOURCE.replace("Model", "Net") + "# another name\n"
    hot = SOURCE.replace("nn.relu(", "(1e38 * 1e38 * ")
    sources = [SOURCE, renamed, SOURCE.replace("Dense(6)", "Dense('6')"), "Sorry.", hot]
    asked = Asked(jnp.asarray(pages(sources)), jnp.full(5, -1, jnp.int32))
    told = judge.evaluate(jax.random.key(0), asked)
    reasons = [REASONS[code] for code in told.failure.tolist()]
    assert reasons[:2] == ["", ""]
    assert reasons[2] in ("import", "shape")
    assert reasons[3:] == ["parse", "non-finite"]
    assert told.cost.tolist()[:4] == [10, 10, 0, 0]
    size = 8 * 6 + 6 + 7 * len(WAVES.classes)
    assert told.extra["params"].tolist()[:2] == [size, size]
    assert np.array_equal(told.extra["identity"][0], told.extra["identity"][1])
    assert 0 < float(told.fitness[0]) == float(told.fitness[1]) <= 100
    assert told.extra["curve"].shape == (5, 2)
    words = [bytes(row).rstrip(b"\0").decode() for row in np.asarray(told.extra["message"])]
    assert "Dense('6')" in words[2]
    assert "not finite at step" in words[4]


def test_a_score_is_the_mean_over_seeds(desk):
    ((verdict,), alone) = desk().check([SOURCE]), []
    for seed, runs in ((1, 1), (2, 1), (1, 2)):
        (score,) = desk(seed=seed, runs=runs).train([verdict.programs], 5)
        alone.append((score.valid, score.test, *score.curve))
    assert np.mean(alone[:2], axis=0) == pytest.approx(alone[2], rel=1e-5)
    assert alone[0] != alone[1]


def test_a_level_that_does_not_exist_is_refused_at_once():
    with pytest.raises(ValueError, match="`level` must be auto"):
        bench(LESSON, Training(), level="vault")
