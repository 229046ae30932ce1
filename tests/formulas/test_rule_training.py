"""Many rules trained at once, against each other and against one loop in numpy."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.core import Asked
from jaxnas.data.toy import waves
from jaxnas.formulas import training
from jaxnas.formulas.judge import Judge
from jaxnas.formulas.mnistnet import mnistnet
from jaxnas.formulas.tape import END, parse
from jaxnas.formulas.training import Task, choose, prepare, trainer
from jaxnas.formulas.update_rules import space
from jaxnas.train.batches import epoch_orders

pytestmark = pytest.mark.usefixtures("quick_compile")
GNN = space("gnn", 8)
STEPS, D = 6, 4
TEXTS = ["g", "m1", "adam", "ldm * (sm1 - rmsprop)", "sg + g", "drop1(m1)", "exp(g2) * g"]
TAPES = np.stack([parse(GNN, text) for text in TEXTS])
RATES = (0.01, 0.1, 30.0)
KEYS = jax.random.split(jax.random.key(5), len(RATES))


def start(key):
    return {"w": jax.random.normal(key, (D - 1,)), "b": jnp.ones(1)}, jnp.float32(0)


def feed(key):
    return jax.random.normal(jax.random.fold_in(key, 1), (STEPS, D))


def loss(params, memory, item, key):
    w = jnp.concatenate([params["b"], params["w"]])
    slip = 0.01 * jax.random.normal(key, (D,))
    return (jnp.exp((w - item) ** 2 / 20) + slip * w).sum(), memory + 1


def score(losses, params, memory):
    return -losses.mean() - 0 * params["b"][0] + 0 * memory


TOY = Task(
    name="toy", start=start, feed=feed, loss=loss, score=score, steps=STEPS, rates=RATES, seeds=2,
    bound=-1e4, space="gnn", label="minus the mean loss", decay=0.1,
)  # fmt: skip


def run(train, tapes=TAPES, keys=KEYS, rates=RATES):
    return train(tapes, jnp.tile(jnp.asarray(rates), (len(tapes), 1)), keys)


@pytest.fixture(scope="module")
def trained():
    return {how: run(trainer(TOY, GNN, how)) for how in ("group", "map", "select")}


@pytest.mark.parametrize("how", ["map", "select"])
def test_all_ways_of_training_give_the_same_numbers(trained, how):
    np.testing.assert_array_equal(trained[how].frozen, trained["group"].frozen)
    np.testing.assert_allclose(trained[how].losses, trained["group"].losses, rtol=1e-5)
    np.testing.assert_allclose(trained[how].score, trained["group"].score, rtol=1e-5)


def loop(rule, rate, key, project=lambda w: w):
    """One run in numpy, up to its first loss that is not finite; `rule` is `(g, raw, t, m) -> ...`."""
    params, _ = start(key)
    w = np.concatenate([params["b"], params["w"]]).astype(float)
    m, losses = np.zeros(D), []
    for t in range(1, STEPS + 1):
        item = np.asarray(feed(key))[t - 1].astype(float)
        slip = 0.01 * np.asarray(jax.random.normal(jax.random.fold_in(key, t), (D,)), float)
        with np.errstate(over="ignore", invalid="ignore"):
            value = (np.exp((w - item) ** 2 / 20) + slip * w).sum()
            raw = np.exp((w - item) ** 2 / 20) * (w - item) / 10 + slip
        if not np.isfinite(np.float32(value)):
            return losses + [losses[-1]] * (STEPS - len(losses)), t
        losses.append(value)
        g = raw + 0.1 * w
        m = 0.9 * m + g
        w = project(w - rate * rule(g, m))
    return losses, 0


@pytest.mark.parametrize(("n", "rule"), [(0, lambda g, m: g), (1, lambda g, m: m)])
def test_a_run_is_the_loop_one_would_write(trained, n, rule):
    for r, (rate, key) in enumerate(zip(RATES, KEYS, strict=True)):
        losses, frozen = loop(rule, rate, key)
        np.testing.assert_allclose(trained["group"].losses[n, r], losses, rtol=2e-4)
        assert trained["group"].frozen[n, r] == frozen
        wanted = TOY.bound if frozen else -np.mean(losses)
        assert float(trained["group"].score[n, r]) == pytest.approx(wanted, rel=2e-4)


def test_a_run_stops_at_its_first_loss_that_is_not_finite(trained):
    for out in trained.values():
        losses, frozen = np.asarray(out.losses), np.asarray(out.frozen)
        assert np.isfinite(losses).all()
        assert (frozen > 1).any()
        assert (frozen == 0).any()
        for n, r in np.argwhere(frozen > 0):
            assert (losses[n, r, frozen[n, r] - 1 :] == losses[n, r, frozen[n, r] - 2]).all()
            assert out.score[n, r] == TOY.bound


@pytest.mark.parametrize(("how", "tolerance"), [("map", 0), ("group", 1e-6), ("select", 1e-6)])
def test_a_run_does_not_depend_on_the_runs_beside_it(trained, how, tolerance):
    alone = run(trainer(TOY, GNN, how), TAPES[3:6], KEYS[1:2], RATES[1:2])
    beside = trained[how]
    np.testing.assert_allclose(alone.losses[:, 0], beside.losses[3:6, 1], rtol=tolerance, atol=0)
    np.testing.assert_allclose(alone.score[:, 0], beside.score[3:6, 1], rtol=tolerance, atol=0)


def test_more_rules_than_a_group_holds_are_trained_in_several(trained, monkeypatch):
    monkeypatch.setattr(training, "GROUP", 3)
    parts = run(trainer(TOY, GNN, "group"))
    np.testing.assert_allclose(parts.losses, trained["group"].losses, rtol=1e-5)
    np.testing.assert_array_equal(parts.frozen, trained["group"].frozen)


def test_weights_are_projected_after_each_step():
    def inside(params, memory):
        return jax.tree.map(lambda x: jnp.clip(x, -0.5, 0.5), params)

    out = run(trainer(TOY._replace(project=inside), GNN, "map"), TAPES[:1])
    for r, (rate, key) in enumerate(zip(RATES, KEYS, strict=True)):
        losses, _ = loop(lambda g, m: g, rate, key, lambda w: np.clip(w, -0.5, 0.5))
        np.testing.assert_allclose(out.losses[0, r], losses, rtol=2e-4)


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_task_that_does_not_start_finite_is_refused(bad):
    broken = TOY._replace(loss=lambda p, m, item, key: (bad * loss(p, m, item, key)[0], m))
    with pytest.raises(ValueError, match="`task` 'toy' starts with a loss of"):
        trainer(broken, GNN)

    def steep(params, memory, item, key):
        return jnp.sqrt(jnp.abs(params["b"] - 1)).sum(), memory

    with pytest.raises(ValueError, match="gradients of which some are not finite"):
        trainer(TOY._replace(loss=steep), GNN)


def test_an_unknown_way_of_training_is_refused():
    with pytest.raises(
        ValueError, match="`how` must be auto, group, map or select, but got 'vmap'"
    ):
        trainer(TOY, GNN, "vmap")


def test_the_way_is_chosen_by_device_and_work_and_how_large_the_network_is():
    task = mnistnet(steps=100, hidden=(4,), batch=16, dataset=waves(length=8, n=120))
    short, large = task._replace(steps=10), task._replace(side_by_side=False)
    assert [choose(task, 10, "gpu"), choose(task, 10, "cpu")] == ["select", "group"]
    assert [choose(short, 10, "cpu"), choose(large, 10, "cpu")] == ["map", "map"]


@pytest.fixture(scope="module")
def judged():
    texts = ["adam", "-g", "g", "g2", "exp(exp(2) * 2) * g"]
    tapes = np.stack([*(parse(GNN, text) for text in texts), np.full(8, END, np.int32)])
    rates = (0.01, 0.1, 0.3)
    judge = Judge(TOY._replace(bound=-6.0, rates=rates), GNN, how="map")
    asked = Asked(jnp.asarray(tapes), jnp.full(len(tapes), -1))
    return judge, tapes, judge.evaluate(jax.random.key(3), asked)


def test_rules_are_run_for_all_seeds_at_the_rate_that_one_seed_likes_best(judged):
    judge, tapes, measured = judged
    key_rate, key_seeds = jax.random.split(jax.random.key(3))
    rates = judge.task.rates
    for n in (0, 2):
        keys = jnp.stack([key_rate] * 3)
        first = run(judge.train, tapes[n : n + 1], keys, rates).score[0]
        best = rates[int(np.argmax(first))]
        again = run(judge.train, tapes[n : n + 1], jax.random.split(key_seeds, 2), (best, best))
        assert float(measured.extra.rate[n]) == pytest.approx(best)
        np.testing.assert_allclose(measured.extra.scores[n], again.score[0], rtol=1e-5)
        assert float(measured.fitness[n]) == pytest.approx(float(again.score[0].mean()), rel=1e-5)


def test_what_is_not_worth_training_scores_nothing_costs_nothing_and_says_why(judged):
    measured = judged[2]
    assert np.isfinite(measured.fitness).tolist() == [True, False, True, False, False, False]
    assert measured.cost.tolist() == [1, 0, 1, 0, 0, 0]
    assert measured.failure.tolist() == [0, 1, 0, 1, 2, 3]


def test_a_rule_whose_seeds_all_end_at_the_bound_is_worth_nothing():
    def lucky(losses, params, memory):  # the seed that chooses the rate is fine, the others are not
        return jnp.where(jnp.abs(losses[0] - first) < 1e-6, -1.0, -9.0)

    key_rate, _ = jax.random.split(jax.random.key(3))
    runs = prepare(TOY, key_rate)
    item, now = runs.items[0], jax.random.fold_in(key_rate, 1)
    first = loss(start(key_rate)[0], 0.0, item, now)[0]
    judge = Judge(TOY._replace(score=lucky, bound=-9.0), GNN, how="map")
    asked = Asked(jnp.asarray(TAPES[:1]), jnp.full(1, -1))
    measured = judge.evaluate(jax.random.key(3), asked)
    assert measured.fitness.tolist() == [-np.inf]
    assert measured.cost.tolist() == [0]
    assert measured.failure.tolist() == [2]


def test_nothing_but_empty_tapes_trains_nothing(judged):
    asked = Asked(jnp.full((3, 8), END, jnp.int32), jnp.full(3, -1))
    measured = judged[0].evaluate(jax.random.key(0), asked)
    assert measured.fitness.tolist() == [-np.inf] * 3
    assert measured.cost.tolist() == [0] * 3


def test_samples_of_a_judge_pass_its_tests(judged):
    drawn = judged[0].sample(jax.random.key(1), 20)
    assert drawn.shape == (20, 8)
    assert np.asarray(judged[0].screen(drawn).good).all()


def test_batches_are_epochs_shuffled_anew():
    index = np.asarray(epoch_orders(jax.random.key(0), 10, 3, 8))
    assert index.shape == (8, 3)
    first, second = index[:3].ravel(), index[3:6].ravel()
    assert len(set(first)) == len(set(second)) == 9
    assert set(index.ravel()) <= set(range(10))
    assert (first != second).any()
    with pytest.raises(ValueError, match="`batch` must be at most the 10 examples, but got 11"):
        epoch_orders(jax.random.key(0), 10, 11, 1)


@pytest.mark.parametrize(("hidden", "relu"), [((20,), False), ((5, 6), True)])
def test_mnistnet_is_the_network_one_would_write(hidden, relu):
    data = waves(length=12, n=400)
    task = mnistnet(steps=3, hidden=hidden, relu=relu, batch=16, dataset=data)
    params, memory = task.start(jax.random.key(0))
    item = task.feed(jax.random.key(1))[0]
    x = np.concatenate([data.train.x, data.valid.x]).reshape(-1, 12)
    y = np.concatenate([data.train.y, data.valid.y])
    kept = np.random.default_rng(10).permutation(len(y))[: int(0.4 * len(y))]
    h = ((x[kept] / 255 - data.mean[0]) / data.std[0])[np.asarray(item)]
    assert [kernel.shape for kernel, _ in params] == list(
        zip((12, *hidden), (*hidden, len(data.classes)), strict=True)
    )
    for n, (kernel, bias) in enumerate(params):
        assert max(np.abs(kernel).max(), np.abs(bias).max()) <= kernel.shape[0] ** -0.5
        h = h @ np.asarray(kernel, float) + np.asarray(bias, float)
        if n < len(params) - 1:
            h = np.maximum(h, 0) if relu else 1 / (1 + np.exp(-h))
    logs = h - np.log(np.exp(h).sum(1, keepdims=True))
    wanted = -logs[np.arange(16), y[kept][np.asarray(item)]].mean()
    found = partial(task.loss, params, memory)(item, jax.random.key(2))[0]
    assert float(found) == pytest.approx(wanted, rel=1e-5)
    assert float(task.score(jnp.array([1.0, 2.0, 99.0]), params, memory)) == -6.0
