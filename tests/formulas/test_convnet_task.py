from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.data.dataset import Split
from jaxnas.data.toy import shapes
from jaxnas.formulas import tasks, training
from jaxnas.formulas.convnet import BOUND, convnet
from jaxnas.formulas.tape import parse
from jaxnas.formulas.tasks import Scale
from jaxnas.formulas.training import trainer
from jaxnas.formulas.update_rules import space

pytestmark = pytest.mark.usefixtures("quick_compile")
EVERYTHING = space("everything")
DATA = shapes(n=32, seed=3)


def pooled(x):
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, window, "VALID")


def forward(params, statistics, x, train):
    """The network in JAX's own operations; gives logits and new statistics."""
    after = {}
    for n in range(2):
        name = f"Norm_{n}"
        kernel, norm = params[f"Conv_{n}"]["kernel"], params[name]["batch"]
        layout = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=layout)
        x = pooled(jnp.maximum(x + params[f"bias_{n}"], 0))
        old = statistics[name]["batch"]
        now = {"mean": x.mean((0, 1, 2)), "var": x.var((0, 1, 2))}
        after[name] = {"batch": jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, old, now)}
        used = now if train else old
        x = (x - used["mean"]) / jnp.sqrt(used["var"] + 1e-5) * norm["scale"] + norm["bias"]
    for n in range(2):
        dense = params[f"Dense_{n}"]
        x = x.reshape(len(x), -1) @ dense["kernel"] + dense["bias"]
        x = jnp.maximum(x, 0) if n == 0 else x
    return x, after


def normalised(split):
    x = (split.x / 255 - np.array(DATA.mean)) / np.array(DATA.std)
    return jnp.asarray(x, jnp.float32), jnp.asarray(split.y)


def test_its_size_on_cifar_is_what_the_layers_add_up_to():
    rng = np.random.default_rng(0)
    few = Split(rng.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8), np.arange(4, dtype=np.int32))
    names = tuple(map(str, range(10)))
    task = convnet(batch=2, dataset=replace(DATA, train=few, valid=few, test=few, classes=names))
    params, _ = jax.eval_shape(task.start, jax.random.key(0))
    sizes = [np.prod(leaf.shape) for leaf in jax.tree.leaves(params)]
    layers = [27 * 32 + 32, 2 * 32, 9 * 32 * 32 + 32, 2 * 32, 2048 * 1024 + 1024, 1024 * 10 + 10]
    assert sum(sizes) == sum(layers) == 2_118_698


def test_training_is_that_of_a_plain_loop_from_the_same_weights():
    task, key = convnet(epochs=2, batch=16, dataset=DATA), jax.random.key(1)
    assert task.steps == 4
    out = trainer(task, EVERYTHING, "group")(
        parse(EVERYTHING, "m1")[None], jnp.full((1, 1), 0.02), key[None]
    )
    (params, memory), items = task.start(key), task.feed(key)
    statistics = memory["batch_stats"]
    x, y = normalised(DATA.train)
    optimizer = optax.sgd(0.02, momentum=0.9)
    state, losses = optimizer.init(params), []

    @jax.jit
    def step(params, statistics, state, x, y):
        def loss(params):
            logits, after = forward(params, statistics, x, True)
            each = optax.softmax_cross_entropy_with_integer_labels(logits, y)
            return each.mean(), after

        (value, after), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradient, state)
        return value, optax.apply_updates(params, updates), after, state

    for item in items:
        value, params, statistics, state = step(params, statistics, state, x[item], y[item])
        losses.append(float(value))
    np.testing.assert_allclose(out.losses[0, 0], losses, rtol=1e-3)
    x, y = normalised(DATA.valid)
    right = (forward(params, statistics, x, False)[0].argmax(-1) == y).mean()
    assert float(out.score[0, 0]) == pytest.approx(max(float(right), BOUND))


def test_each_epoch_sees_each_image_once_and_the_decays_end_with_the_last_step():
    task = convnet(epochs=3, batch=8, dataset=DATA)
    items = np.asarray(task.feed(jax.random.key(0)))
    assert items.shape == (task.steps, 8) == (12, 8)
    for n in range(3):
        assert sorted(items[4 * n : 4 * n + 4].ravel().tolist()) == list(range(32))


def test_one_after_another_and_one_rule_a_program_give_the_same_numbers(monkeypatch):
    task = convnet(steps=2, batch=8, examples=8, dataset=DATA)
    tapes = np.stack([parse(EVERYTHING, rule) for rule in ("g", "adam")])
    keys, rates = jax.random.split(jax.random.key(2), 2), jnp.full((2, 2), 1e-3)
    expected = trainer(task._replace(side_by_side=True), EVERYTHING, "group")(tapes, rates, keys)
    monkeypatch.setattr(training, "MEMORY", 1)
    out = trainer(task, EVERYTHING, "group")(tapes, rates, keys)
    np.testing.assert_allclose(out.losses, expected.losses, rtol=1e-5)
    np.testing.assert_allclose(out.score, expected.score, rtol=1e-5)


def test_the_final_task_trains_on_all_training_images_and_says_what_data_it_used():
    noted = replace(DATA, note="lossy")
    search, final = (convnet(batch=8, final=final, dataset=noted) for final in (False, True))
    assert (search.steps, final.steps) == (5 * (32 // 8), 5 * (48 // 8))
    assert search.label == "validation accuracy after 20 steps on 32 images of shapes (lossy)"
    assert final.label == "test accuracy after 30 steps on 48 images of shapes (lossy)"


def test_tasks_take_their_scale_from_the_recipe():
    kind = tasks.find("convnet")
    proxy, task = kind.search(Scale(steps=10, seeds=2, examples=64, dataset="shapes"))
    assert (proxy.steps, task.steps, task.seeds) == (2, 10, 2)
    whole, longest = kind.search(Scale(dataset="shapes"))
    assert (whole.steps, longest.steps, longest.seeds) == (2, 10, 4)  # 256 images, batches of 100
    (final,) = kind.finals(Scale(dataset="shapes"), True).values()
    assert (final.proxy.steps, final.task.steps) == (2, 15)  # 384 images
    assert final.task.label.startswith("test accuracy")
