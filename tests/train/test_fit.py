"""Training many at once: one result however it is executed, and a slow reference for it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from reference.optim import Sgd, cosine, linear_loss

from jaxnas.data.dataset import Split
from jaxnas.data.toy import shapes, waves
from jaxnas.nn.network import Network, from_linen
from jaxnas.train import batches, fit as fit_module
from jaxnas.train.fit import Recipe, fit, trainer
from jaxnas.train.plan import Plan

pytestmark = pytest.mark.usefixtures("quick_compile")

WAVES = waves(length=12, n=48)
ALL_WAYS = ("loop", "scan", "vmap", "vmap_scan")


def linear(genotype, *, features=12, classes=4):
    """A linear classifier that multiplies its logits with the genotype."""

    def init(key, x):
        kernel = 0.1 * jax.random.normal(key, (features, classes))
        return {"params": {"kernel": kernel, "bias": jnp.zeros(classes)}, "seen": jnp.int32(0)}

    def apply(variables, x, train, rngs=None):
        p = variables["params"]
        logits = (x.reshape(x.shape[0], -1) @ p["kernel"] + p["bias"]) * genotype
        return logits, {**variables, "seen": variables["seen"] + train}

    return Network(init, apply)


RECIPE = Recipe(epochs=3, batch=16, learning_rate=0.3, weight_decay=0.01, clip=0.5)
GENOTYPES = jnp.array([1.0, 0.5, 2.0, 1.5])
BUDGETS = jnp.array([3, 1, -1, 2], jnp.int32)


@pytest.fixture(scope="module")
def by_way():
    def run(execution):
        many = trainer(linear, WAVES, RECIPE, execution=execution)
        return many(jax.random.key(0), GENOTYPES, BUDGETS)

    return {way: run(way) for way in ALL_WAYS}


@pytest.mark.parametrize("way", ALL_WAYS[1:])
def test_all_ways_of_execution_give_the_same(by_way, way):
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), by_way[way], by_way["loop"]
    )


def test_budgets_are_kept_per_candidate(by_way):
    fitted = by_way["vmap_scan"]
    assert fitted.epochs.tolist() == [3, 1, 3, 2]
    assert fitted.variables["seen"].tolist() == [9, 3, 9, 6]  # three steps an epoch
    assert fitted.loss.shape == (4, 3)
    assert fitted.diverged.tolist() == [-1] * 4


def reference_fit(genotype, variables, orders, recipe, epochs):
    """Training by numpy loops from the same start on the same batches."""
    params = [np.asarray(variables["params"][n], np.float64) for n in ("kernel", "bias")]
    optimizer = Sgd(
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        clip=recipe.clip,
        nesterov=True,
    )
    step, losses = 0, []
    for order in orders[:epochs]:
        losses.append([])
        for index in order:
            x = WAVES.train.x[index].astype(np.float64)
            scaled = [p * genotype for p in params]
            loss, gradients = linear_loss(x, WAVES.train.y[index], *scaled)
            rate = cosine(recipe.learning_rate, 0.0, step / (epochs * len(order)))
            params = optimizer.step(params, [g * genotype for g in gradients], rate)
            losses[-1].append(loss)
            step += 1
    return params, np.mean(losses, 1)


def test_training_is_nesterov_sgd_with_decay_clip_and_cosine(by_way, monkeypatch):
    """Batches and initial weights are recorded on the way; all arithmetic is done again."""
    orders, starts = [], []
    real = fit_module.epoch_order

    def recorded(key, size, batch):
        order = real(key, size, batch)
        jax.debug.callback(lambda o: orders.append(np.asarray(o)), order)
        return order

    def spied(genotype):
        network = linear(genotype)

        def init(key, x):
            variables = network.init(key, x)
            jax.debug.callback(lambda v: starts.append(jax.tree.map(np.asarray, v)), variables)
            return variables

        return network._replace(init=init)

    monkeypatch.setattr(fit_module, "epoch_order", recorded)
    many = trainer(spied, WAVES, RECIPE, execution="loop")
    for n, genotype in enumerate(GENOTYPES.tolist()):
        del orders[:], starts[:]
        epochs = int(by_way["loop"].epochs[n])
        fitted = many(jax.random.key(0), GENOTYPES[n : n + 1], jnp.array([epochs]))
        jax.effects_barrier()
        (kernel, bias), losses = reference_fit(
            genotype, starts[-1], orders[-epochs:], RECIPE, epochs
        )
        np.testing.assert_allclose(fitted.variables["params"]["kernel"][0], kernel, atol=1e-5)
        np.testing.assert_allclose(fitted.variables["params"]["bias"][0], bias, atol=1e-5)
        np.testing.assert_allclose(fitted.loss[0], losses, atol=1e-5)
        for split, told in ((WAVES.valid, fitted.valid), (WAVES.test, fitted.test)):
            right = ((split.x @ kernel + bias) * genotype).argmax(1) == split.y
            np.testing.assert_allclose(told[0], 100 * right.mean(), rtol=1e-6)


def explosive(genotype):
    """Multiplies its logits by 1e30 from the fifth training step on where the genotype is 9."""
    network = linear(1.0)

    def apply(variables, x, train, rngs=None):
        logits, new = network.apply(variables, x, train)
        boom = (genotype == 9.0) & (variables["seen"] >= 4) & train
        return logits * jnp.where(boom, jnp.float32(1e30) * 1e30, 1.0), new

    return network._replace(apply=apply)


@pytest.mark.parametrize("way", ALL_WAYS)
def test_a_candidate_that_diverges_is_frozen_there_and_disturbs_nobody(way):
    many = trainer(explosive, WAVES, RECIPE, execution=way)
    ill = many(jax.random.key(1), jnp.array([1.0, 9.0, 1.0]))
    well = many(jax.random.key(1), jnp.array([1.0, 1.0, 1.0]))
    assert ill.diverged.tolist() == [-1, 4, -1]
    assert ill.valid[1] == ill.test[1] == -jnp.inf
    assert ill.variables["seen"].tolist() == [9, 4, 9]
    assert bool(jnp.isfinite(ill.variables["params"]["kernel"]).all())
    assert bool(jnp.isfinite(ill.loss[1, 0]))
    for others in (0, 2):
        jax.tree.map(lambda a, b, n=others: np.testing.assert_array_equal(a[n], b[n]), ill, well)


def test_what_happens_after_the_budget_cannot_diverge():
    """The second epoch of the others would kill it, but it stops after the first."""
    many = trainer(explosive, WAVES, RECIPE, execution="vmap_scan")
    fitted = many(jax.random.key(1), jnp.array([9.0, 1.0]), jnp.array([1, 3], jnp.int32))
    assert fitted.diverged.tolist() == [-1, -1]
    assert bool(jnp.isfinite(fitted.valid).all())


def test_groups_that_do_not_divide_the_candidates_change_nothing(by_way, monkeypatch):
    monkeypatch.setattr(fit_module, "choose", lambda *a, **k: Plan(3, True))
    many = trainer(linear, WAVES, RECIPE)
    fitted = many(jax.random.key(0), GENOTYPES, BUDGETS)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), fitted, by_way["loop"])


def test_the_same_key_gives_the_same_and_another_key_another_result():
    many = trainer(linear, WAVES, RECIPE, execution="vmap_scan")
    first, again, other = (many(jax.random.key(k), GENOTYPES[:2]) for k in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first.loss, other.loss)
    assert not np.array_equal(
        first.variables["params"]["kernel"][0], first.variables["params"]["kernel"][1]
    )


def two_layers(genotype):
    del genotype

    def init(key, x):
        k1, k2 = jax.random.split(key)
        hidden = jax.random.normal(k1, (21, 32)) / 21**0.5
        return {"params": {"a": hidden, "b": jax.random.normal(k2, (32, 4)) / 32**0.5}}

    def apply(variables, x, train, rngs=None):
        p = variables["params"]
        sizes = jnp.abs(jnp.fft.rfft(x[..., 0]))
        return jax.nn.relu(sizes @ p["a"]) @ p["b"], variables

    return Network(init, apply)


def test_training_learns_waves_far_beyond_chance():
    """A quarter is chance; the size of each frequency tells the shapes apart."""
    data = waves(length=40, n=256, noise=0.05)
    recipe = Recipe(epochs=30, batch=32, learning_rate=0.02, weight_decay=0.0)
    fitted = fit(two_layers(None), data, recipe, jax.random.key(0))
    assert fitted.valid.shape == ()
    assert float(fitted.valid) > 70.0
    assert float(fitted.test) > 70.0
    assert float(fitted.loss[-1]) < 0.7 * float(fitted.loss[0])


def test_images_are_augmented_unless_that_is_switched_off(monkeypatch):
    calls = []
    real = batches.crop_flip
    monkeypatch.setattr(batches, "crop_flip", lambda *a: calls.append(1) or real(*a))
    images = shapes(size=8, n=16)
    net = linear(1.0, features=192)
    for data, network, augment, expected in (
        (images, net, True, 1),
        (images, net, False, 0),
    ):
        del calls[:]
        fit(network, data, Recipe(epochs=1, batch=8, augment=augment), jax.random.key(0))
        assert bool(calls) == bool(expected)


def test_batches_larger_than_the_set_and_unknown_executions_are_refused():
    with pytest.raises(ValueError, match=r"`batch` must be between 1 and the 48.*waves.*got 49"):
        trainer(linear, WAVES, Recipe(batch=49))
    with pytest.raises(ValueError, match=r"`batch`.*got 0"):
        trainer(linear, WAVES, Recipe(batch=0))
    with pytest.raises(ValueError, match=r"`execution` must be one of auto.*got 'turbo'"):
        trainer(linear, WAVES, RECIPE, execution="turbo")(jax.random.key(0), GENOTYPES)


def test_a_split_larger_than_a_judging_batch_is_counted_once():
    """503 test examples are judged in two batches of which the second is mostly padding."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(503, 12)).astype(np.float32)
    data = WAVES.__class__(**{**WAVES.__dict__, "test": Split(x, np.arange(503) % 4)})
    fitted = fit(linear(1.0), data, RECIPE, jax.random.key(0), execution="loop")
    p = fitted.variables["params"]
    right = (x @ np.asarray(p["kernel"]) + np.asarray(p["bias"])).argmax(1) == np.arange(503) % 4
    np.testing.assert_allclose(fitted.test, 100 * right.mean(), rtol=1e-6)


def test_a_budget_of_nothing_judges_the_initial_weights():
    many = trainer(linear, WAVES, RECIPE, execution="scan")
    fitted = many(jax.random.key(0), GENOTYPES[:2], jnp.array([0, 2]))
    assert fitted.epochs.tolist() == [0, 2]
    assert np.isnan(fitted.loss[0]).all()
    assert np.isfinite(fitted.loss[1]).all()
    p = jax.tree.map(lambda leaf: np.asarray(leaf[0]), fitted.variables["params"])
    assert (p["bias"] == 0).all()  # training moves it at once
    logits = WAVES.valid.x.reshape(len(WAVES.valid.y), -1) @ p["kernel"]
    right = 100 * (logits.argmax(1) == WAVES.valid.y).mean()
    np.testing.assert_allclose(fitted.valid[0], right, rtol=1e-6)


class Dropped(nn.Module):
    """Half of the inputs are dropped while training."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dropout(0.5, deterministic=not train)(x.reshape(x.shape[0], -1))
        return nn.Dense(4)(x)


def test_dropout_has_a_key_of_its_own_at_every_step():
    results = [
        fit(from_linen(Dropped()), WAVES, RECIPE, jax.random.key(k), execution=way)
        for k, way in ((0, "scan"), (0, "loop"))
    ]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), *results)
    keys = []

    def apply(variables, x, train, rngs=None):
        if train:
            words = jax.random.key_data(rngs["dropout"])
            jax.debug.callback(lambda k: keys.append(tuple(np.ravel(k))), words)
        return linear(1.0).apply(variables, x, train)

    fit(Network(linear(1.0).init, apply), WAVES, RECIPE, jax.random.key(0), execution="scan")
    jax.effects_barrier()
    assert len(set(keys)) == RECIPE.epochs * 3
