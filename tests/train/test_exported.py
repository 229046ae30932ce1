"""Training of exported programs against the same training by Flax and optax in this process."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.data.toy import waves
from jaxnas.programs.sandbox.program import Task, trace
from jaxnas.train.batches import epoch_orders
from jaxnas.train.exported import fit_exported
from jaxnas.train.portable import Refused, opened

pytestmark = pytest.mark.usefixtures("quick_compile")

WAVES = waves(length=12, n=48)
TASK = Task((12,), 4, batch=16, eval_batch=5, weight_decay=0.01, platforms=("cpu",))
HEAD = "import flax.linen as nn\nimport jax.numpy as jnp\n"
SOURCE = (
    HEAD
    + """
class Model(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(3, (3,))(x[..., None]))
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(4)(x.reshape(len(x), -1))
"""
)
SEEDS, RATES, EVERY, STEPS = (5, 7), (0.02, 0.003), 3, 8
OPTIMIZERS = {
    "adamw": lambda rate: optax.adamw(rate, weight_decay=0.01),
    "sgd": lambda rate: optax.chain(optax.add_decayed_weights(0.01), optax.sgd(rate, momentum=0.9)),
}


def programs(source=SOURCE, **change):
    return opened(trace(source, TASK._replace(**change)).programs)


def fit(parts, seeds=SEEDS, rates=RATES, key=0, **options):
    options = {"steps": STEPS, "evaluate_every": EVERY} | options
    return fit_exported(parts, WAVES, jax.random.key(key), seeds, rates, **options)


@pytest.fixture(scope="module", params=OPTIMIZERS)
def optimizer(request):
    return request.param


@pytest.fixture(scope="module")
def parts(optimizer):
    return programs(optimizer=optimizer)


@pytest.fixture(scope="module")
def fitted(parts):
    return fit(parts)


def direct(parts, optimizer, seed, rate):
    """The module itself, its weights cut from the program's, trained by an ordinary loop."""
    home = {}
    exec(SOURCE, home)
    model, tx = home["Model"](), OPTIMIZERS[optimizer](rate)
    key_start, key_data = jax.random.split(jax.random.key(0))
    first = jax.random.fold_in(jax.random.fold_in(key_start, seed), 0)
    weights, mean, var, *_ = parts.init.call(jax.random.key_data(first))
    kernel, bias, scale, shift, last, end = jnp.split(weights, np.cumsum([9, 3, 3, 3, 144]))
    params = {
        "Conv_0": {"kernel": kernel.reshape(3, 1, 3), "bias": bias},
        "BatchNorm_0": {"scale": scale, "bias": shift},
        "Dense_0": {"kernel": last.reshape(36, 4), "bias": end},
    }
    stats, memory = {"BatchNorm_0": {"mean": mean, "var": var}}, tx.init(params)

    @jax.jit
    def step(params, stats, memory, x, y):
        def loss(params):
            variables = {"params": params, "batch_stats": stats}
            logits, new = model.apply(variables, x, True, mutable=["batch_stats"])
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), new

        (value, new), slope = jax.value_and_grad(loss, has_aux=True)(params)
        change, memory = tx.update(slope, memory, params)
        return optax.apply_updates(params, change), new["batch_stats"], memory, value

    def accuracy(split):
        logits = model.apply({"params": params, "batch_stats": stats}, split.x, False)
        return 100 * (np.argmax(logits, -1) == split.y).mean()

    losses, scores = [], {}
    for i, index in enumerate(np.asarray(epoch_orders(key_data, 48, 16, STEPS)), 1):
        x, y = WAVES.train.x[index], WAVES.train.y[index]
        params, stats, memory, loss = step(params, stats, memory, x, y)
        losses.append(float(loss))
        if i % EVERY == 0 or i == STEPS:
            scores[i] = accuracy(WAVES.valid), accuracy(WAVES.test)
    return losses, scores


@pytest.mark.parametrize("run", [0, 1])
def test_training_is_what_flax_and_optax_do(parts, fitted, optimizer, run):
    losses, scores = direct(parts, optimizer, SEEDS[run], RATES[run])
    assert fitted.steps.tolist() == list(scores) == [3, 6, 8]
    windows = [np.mean(losses[a:b]) for a, b in ((0, 3), (3, 6), (6, 8))]
    np.testing.assert_allclose(fitted.loss[run], windows, rtol=2e-4)
    np.testing.assert_allclose(fitted.curve[run], [v for v, _ in scores.values()], rtol=1e-5)
    best = max(scores, key=lambda at: scores[at][0])  # the first of equals
    assert fitted.best[run] == best
    np.testing.assert_allclose(fitted.valid[run], scores[best][0], rtol=1e-5)
    np.testing.assert_allclose(fitted.test[run], scores[best][1], rtol=1e-5)
    np.testing.assert_allclose(fitted.last[run], scores[8][0], rtol=1e-5)


def same(first, second):
    for name, a, b in zip(first._fields, first, second, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, err_msg=name)


def test_a_scan_gives_what_the_loop_gives(parts, fitted):
    same(fit(parts, way="scan"), fitted)


DROPS = SOURCE.replace(
    "return nn", "x = nn.Dropout(0.5, deterministic=not train)(x)\n        return nn"
)


def test_runs_side_by_side_give_what_they_give_one_after_another():
    """Three runs in programs for two: the place that is left over is filled and dropped."""
    seeds, rates = (5, 7, 5), (0.02, 0.003, 0.02)
    one = fit(programs(DROPS), seeds, rates)
    same(fit(programs(DROPS, runs=2), seeds, rates), one)
    assert one.loss.shape == (3, 3)
    np.testing.assert_array_equal(one.loss[0], one.loss[2])


def test_the_key_decides_everything_random():
    parts = programs(DROPS)
    first, again, other = (fit(parts, (1,), (0.01,), key=k) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first.loss, other.loss)


def test_dropout_has_a_new_key_at_every_step():
    """Logits are 0 where all is dropped and else confidently wrong, so losses tell the masks."""
    line = "x = nn.Dropout(0.5, deterministic=not train)(jnp.ones((1, 1)))"
    body = f"        {line}\n        return nn.Dense(4, use_bias=False)(jnp.zeros((len(y), 2))) + x * jnp.arange(4.0)\n"
    source = f"{HEAD}\nclass Model(nn.Module):\n    @nn.compact\n    def __call__(self, y, train):\n{body}"
    losses = fit(programs(source), (0,), (0.0,), steps=20, evaluate_every=1).loss[0]
    calm = np.isclose(losses, np.log(4))
    assert 3 <= calm.sum() <= 17


EXPLODES = (
    HEAD
    + """
class Model(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        seen = self.variable("batch_stats", "seen", lambda: jnp.zeros(()))
        if train:
            seen.value += 1
        boom = jnp.where(seen.value > 4.5, jnp.inf, 1.0)
        return nn.Dense(4)(x) * jnp.where(train, boom, 1.0)
"""
)


@pytest.mark.parametrize("way", ["loop", "scan"])
def test_a_run_that_diverges_is_frozen_there_and_scores_nothing(way):
    found = fit(programs(EXPLODES), (0,), (0.01,), way=way, steps=12)
    assert found.diverged.tolist() == [4]
    assert found.valid[0] == found.test[0] == found.last[0] == -np.inf
    assert np.isfinite(found.curve[0]).tolist() == [True, False, False, False]
    assert np.isfinite(found.loss[0]).tolist() == [True, False, False, False]


def test_a_run_that_diverges_does_not_disturb_its_neighbour():
    wild = programs(
        SOURCE.replace("nn.BatchNorm(use_running_average=not train, momentum=0.9)", ""), runs=2
    )
    together, alone = fit(wild, (0, 1), (1e30, 0.01)), fit(wild, (2, 1), (0.01, 0.01))
    assert together.diverged[0] >= 0 > together.diverged[1]
    np.testing.assert_array_equal(together.curve[1], alone.curve[1])


def test_training_begins_with_the_weights_that_are_given(parts):
    """At a rate of zero it ends with them too; those that are not given are drawn as ever."""
    drawn = np.full(9 + 3 + 3 + 3 + 144 + 4, np.nan, np.float32)
    given = drawn.copy()
    given[9:18] = np.arange(9)
    still, moved = ({"seeds": (5,), "rates": (rate,), "steps": 2} for rate in (0.0, 0.01))
    own = fit(parts, **still, start=drawn).weights
    mixed = fit(parts, **still, start=given).weights
    assert own.shape == (1, 166)
    assert mixed[0, 9:18].tolist() == list(range(9))
    np.testing.assert_array_equal(np.delete(mixed, range(9, 18)), np.delete(own, range(9, 18)))
    first = jax.random.fold_in(jax.random.fold_in(jax.random.split(jax.random.key(0))[0], 5), 0)
    np.testing.assert_allclose(own[0], parts.init.call(jax.random.key_data(first))[0], rtol=1e-6)
    told = fit(parts, **moved, start=drawn)
    assert (told.weights != own).mean() > 0.9
    assert fit(parts, **moved).weights.shape == (1, 0)
    assert fit(parts, **moved).loss.tolist() == told.loss.tolist()


def test_weights_that_do_not_fit_are_refused(parts):
    with pytest.raises(Refused, match="a vector of the 3 weights"):
        fit(parts, start=np.zeros(3, np.float32))


def test_what_cannot_be_is_refused(parts):
    with pytest.raises(
        ValueError, match=r"`seeds` and `learning_rates` must be equally many.*2 and 1"
    ):
        fit(parts, (1, 2), (0.1,))
    with pytest.raises(
        ValueError, match=r"`steps` and `evaluate_every` must be at least 1.*0 and 3"
    ):
        fit(parts, steps=0)
    with pytest.raises(ValueError, match="`way` must be one of auto, loop, scan, but got 'fast'"):
        fit(parts, way="fast")
    with pytest.raises(ValueError, match=r"`dataset` must have examples of shape \(12,\).*9"):
        fit_exported(parts, waves(length=9, n=48), jax.random.key(0), (0,), (0.1,), steps=1)
    with pytest.raises(ValueError, match="`batch` must be at most the 8 examples"):
        fit_exported(parts, waves(length=12, n=8), jax.random.key(0), (0,), (0.1,), steps=1)


def test_the_test_split_is_not_scored_where_it_is_not_asked_for(parts, fitted):
    told = fit(parts, tested=False)
    assert np.isnan(told.test).all()
    np.testing.assert_array_equal(told.curve, fitted.curve)
    np.testing.assert_array_equal(told.valid, fitted.valid)
