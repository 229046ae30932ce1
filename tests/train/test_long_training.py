"""A long training: the arithmetic by loops, epochs, what is told, and what stops it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.optim import Sgd, cosine, linear_loss

from jaxnas.core import run_host
from jaxnas.data.dataset import on_everything
from jaxnas.data.toy import waves
from jaxnas.nn.network import Network
from jaxnas.train import long
from jaxnas.train.long import training
from jaxnas.train.recipe import Recipe

pytestmark = pytest.mark.usefixtures("quick_compile")

WAVES = waves(length=12, n=50)
BATCH, EPOCHS, PER_EPOCH = 16, 3, 3
KEY = jax.random.key(0)
RECIPES = {
    "darts": Recipe(
        epochs=EPOCHS,
        batch=BATCH,
        learning_rate=0.3,
        final_learning_rate=0.1,
        nesterov=False,
        weight_decay=0.01,
        clip=0.5,
    ),
    "imagenet": Recipe(
        epochs=EPOCHS,
        batch=BATCH,
        learning_rate=0.3,
        schedule="exponential",
        decay=0.5,
        nesterov=False,
        weight_decay=0.01,
        clip=0.5,
    ),
    "nas_bench_201": Recipe(epochs=EPOCHS, batch=BATCH, learning_rate=0.3),
}


def linear(watch=None, scale=None):
    """A linear classifier of signals; its logits are scaled by a function of how far it is."""

    def init(key, x):
        kernel = 0.1 * jax.random.normal(key, (x.shape[1], 4))
        params = {"kernel": kernel, "bias": jnp.zeros(4)}
        return {"params": params, "progress": {"done": jnp.float32(0)}}

    def apply(variables, x, train, rngs=None):
        done = variables["progress"]["done"]
        if watch is not None and train:
            jax.debug.callback(lambda value: watch.append(float(value)), done)
        logits = x[..., 0] @ variables["params"]["kernel"] + variables["params"]["bias"]
        return logits * (1.0 if scale is None or not train else scale(done)), variables

    return Network(init, apply)


def run(made, steps=EPOCHS * PER_EPOCH):
    search = made.train._replace(step=jax.jit(made.train.step))
    trail = list(run_host(search, KEY, steps))
    return [state for _, state, _ in trail], [info for *_, info in trail]


@pytest.mark.parametrize("name", RECIPES)
def test_training_is_sgd_on_shuffled_epochs_as_loops_do_it(name, monkeypatch):
    recipe, orders = RECIPES[name], []
    real = long.epoch_order

    def recorded(key, size, batch):
        order = real(key, size, batch)
        jax.debug.callback(lambda o: orders.append(np.asarray(o)), order)
        return order

    monkeypatch.setattr(long, "epoch_order", recorded)
    made = training(linear(), WAVES, recipe)
    assert made.per_epoch == PER_EPOCH
    start = made.train.init(jax.random.fold_in(KEY, 0)).network.variables["params"]
    params = [np.asarray(start[part], np.float64) for part in ("kernel", "bias")]
    states, infos = run(made)
    jax.effects_barrier()
    sgd = Sgd(
        momentum=0.9,
        weight_decay=recipe.weight_decay,
        clip=recipe.clip,
        nesterov=recipe.nesterov,
    )
    for step, (state, info) in enumerate(zip(states, infos, strict=True)):
        epoch, at = divmod(step, PER_EPOCH)
        np.testing.assert_array_equal(orders[step], orders[epoch * PER_EPOCH])
        index = orders[step][at]
        x = (WAVES.train.x[index].astype(np.float64) - WAVES.mean) / WAVES.std
        y = WAVES.train.y[index]
        if recipe.schedule == "cosine":
            rate = cosine(0.3, recipe.final_learning_rate, step / (EPOCHS * PER_EPOCH))
        else:
            rate = 0.3 * 0.5 ** (step / PER_EPOCH)
        right = (x @ params[0] + params[1]).argmax(1) == y
        loss, gradients = linear_loss(x, y, *params)
        params = sgd.step(params, gradients, rate)
        told = [info[k] for k in ("train_loss", "train_accuracy", "learning_rate", "diverged")]
        np.testing.assert_allclose(told, [loss, 100 * right.mean(), rate, -1], rtol=1e-4)
        got = state.network.variables["params"]
        np.testing.assert_allclose(got["kernel"], params[0], atol=1e-5)
        np.testing.assert_allclose(got["bias"], params[1], atol=1e-5)
    firsts = [orders[epoch * PER_EPOCH] for epoch in range(EPOCHS)]
    assert all(len(np.unique(order)) == PER_EPOCH * BATCH for order in firsts)
    assert not np.array_equal(firsts[0], firsts[1])


def test_the_network_knows_before_every_step_how_much_of_training_is_done():
    watched, total = [], EPOCHS * PER_EPOCH
    run(training(linear(watched), WAVES, RECIPES["darts"]))
    jax.effects_barrier()
    np.testing.assert_allclose(watched, np.arange(total) / total, rtol=1e-6)


def test_a_loss_that_is_not_finite_freezes_everything_and_says_when():
    made = training(
        linear(scale=lambda done: jnp.where(done >= 4 / 9 - 1e-6, jnp.nan, 1.0)),
        WAVES,
        RECIPES["darts"],
    )
    states, infos = run(made)
    assert [int(info["diverged"]) for info in infos] == [-1] * 4 + [4] * 5
    assert np.isnan(infos[4]["train_loss"])
    for state in states[4:]:
        last = states[3].network._replace(diverged=state.network.diverged)
        jax.tree.map(np.testing.assert_array_equal, state.network, last)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(states[-1].network.variables))
    _, told = made.evaluate.step(KEY, states[-1])
    assert told["test_accuracy"] == told["valid_accuracy"] == -np.inf


def test_evaluating_counts_right_answers_and_changes_nothing():
    made = training(linear(), WAVES, RECIPES["darts"])
    state = run(made, steps=2)[0][-1]
    after, told = made.evaluate.step(KEY, state)
    jax.tree.map(np.testing.assert_array_equal, after.network, state.network)
    params = jax.tree.map(np.asarray, made.evaluate.best(state)["params"])
    assert set(told) == {"valid_accuracy", "test_accuracy"}
    for name, split in (("valid", WAVES.valid), ("test", WAVES.test)):
        x = (split.x - WAVES.mean) / WAVES.std
        right = (x @ params["kernel"] + params["bias"]).argmax(1) == split.y
        np.testing.assert_allclose(told[f"{name}_accuracy"], 100 * right.mean(), rtol=1e-5)


def test_on_everything_nothing_is_held_out_and_only_test_is_evaluated():
    whole = on_everything(WAVES)
    np.testing.assert_array_equal(whole.train.x[:50], WAVES.train.x)
    np.testing.assert_array_equal(whole.train.x[50:], WAVES.valid.x)
    np.testing.assert_array_equal(whole.train.y, [*WAVES.train.y, *WAVES.valid.y])
    made = training(linear(), whole, RECIPES["darts"])
    assert made.per_epoch == (50 + len(WAVES.valid.y)) // BATCH
    _, told = made.evaluate.step(KEY, made.train.init(KEY))
    assert set(told) == {"test_accuracy"}
