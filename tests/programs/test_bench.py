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
from jaxnas.train.portable import opened

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


def test_programs_are_for_the_device_that_trains_them_alone(desk):
    (verdict,) = desk().check([SOURCE])
    assert opened(verdict.programs).step.platforms == (jax.default_backend(),)


def test_a_score_is_the_mean_over_seeds(desk):
    ((verdict,), alone) = desk().check([SOURCE]), []
    for seed, runs in ((1, 1), (2, 1), (1, 2)):
        (score,) = desk(seed=seed, runs=runs).train([verdict.programs], 5)
        alone.append((score.valid, score.test, *score.curve))
    assert np.mean(alone[:2], axis=0) == pytest.approx(alone[2], rel=1e-5)
    assert alone[0] != alone[1]


def test_a_child_begins_where_its_parent_ended(desk):
    """Of the wider child the layer behind the change has other shapes and draws its own weights."""
    memory = {}
    judge = Judge(*desk(), steps=10, seeds=[SOURCE], memory=memory)
    wider = SOURCE.replace("nn.relu(nn.Dense(6)(x))", "nn.relu(nn.Dense(9)(nn.Dense(6)(x)))")

    def told(source, met, parent):
        asked = Asked(jnp.asarray(pages([source])), jnp.full(1, -1), jnp.array([[parent, 0]]))
        return judge.evaluate(jax.random.key(0), asked, met)

    first = told(SOURCE, np.zeros((0, 32), np.uint8), 0)
    met = np.asarray(first.extra["identity"])
    for parent in (0, 1):
        copy = told(SOURCE.replace("Model", "Net"), met, parent)
        assert REASONS[int(copy.failure[0])] == "duplicate"
    tanh = SOURCE.replace("relu", "tanh")
    on, grown = told(tanh, met, 1), told(wider, met, 1)
    assert float(on.extra["curve"][0, 0]) < float(first.extra["curve"][0, 0])
    assert float(grown.fitness[0]) >= 0
    parent, child, other = memory.values()
    names = [f"Dense/{n}/{name}" for n in range(3) for name in ("kernel", "bias")]
    assert [name for name, _ in parent.layout] == [name for name, _ in child.layout] == names[:4]
    assert [name for name, _ in other.layout] == names
    assert len(other.values) == 8 * 6 + 6 + 6 * 9 + 9 + 10 * len(WAVES.classes)
    scratch = {}
    alone = Judge(*desk(), steps=10, seeds=[SOURCE], memory=scratch)
    asked = Asked(jnp.asarray(pages([wider])), jnp.full(1, -1))
    alone.evaluate(jax.random.key(0), asked)
    (own,) = scratch.values()
    assert np.abs(other.values - own.values)[: 8 * 6 + 6].mean() > 0.01


@pytest.mark.parametrize(
    ("backend", "together", "wanted"), [("cpu", 0, 1), ("gpu", 0, 4), ("tpu", 2, 2), ("cpu", 3, 3)]
)
def test_how_many_train_at_a_time_goes_by_the_device_or_the_setting(
    monkeypatch, backend, together, wanted
):
    asked = []
    worker = SimpleNamespace(train=lambda jobs, deadline: [])
    monkeypatch.setattr(module, "_worker", lambda data, n: asked.append(n) or worker)
    monkeypatch.setattr(module, "default_export_platform", lambda: "cpu")
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    bench(LESSON, TRAINING._replace(together=together)).train([], 1)
    assert asked == [wanted]


def test_a_negative_number_at_a_time_is_refused():
    with pytest.raises(ValueError, match="`together` must be at least 1"):
        bench(LESSON, Training(together=-1))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"runs": 0}, "`runs` must be at least 1, but got 0"),
        ({"learning_rate": -0.1}, "`learning_rate` must be positive, but got -0.1"),
        ({"learning_rate": np.nan}, "`learning_rate` must be positive, but got nan"),
        ({"deadline": 0.0}, "`deadline` must be positive, but got 0.0"),
    ],
)
def test_numbers_that_cannot_be_are_refused_at_once(wrong, message):
    with pytest.raises(ValueError, match=message):
        bench(LESSON, TRAINING._replace(**wrong), level="process")
    with pytest.raises(ValueError, match="`workers` must be at least 1, but got 0"):
        bench(LESSON, TRAINING, level="process", workers=0)


@pytest.mark.parametrize("batch", [0, 1000])
def test_a_batch_that_is_empty_or_larger_than_the_data_is_refused_at_once(batch):
    with pytest.raises(ValueError, match=f"`batch` .* from 1 to the 120 .* but got {batch}"):
        classification(WAVES, batch=batch)


def test_a_level_that_does_not_exist_is_refused_at_once():
    with pytest.raises(ValueError, match="`level` must be auto"):
        bench(LESSON, Training(), level="vault")
