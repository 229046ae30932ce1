"""Many different nodes in one program train as each of them does alone, and as plain loops do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.formulas.recurrent import baseline, node, nodes
from jaxnas.formulas.sequence_nets import (
    Size,
    hidden_for,
    losses,
    parameters,
    rest,
    start,
    train,
)  # fmt: skip
from jaxnas.formulas.sequence_tasks import find
from jaxnas.formulas.tape import parse

GRAMMAR = nodes()
TASK = find("toy", streams=4, segment=10, words=12, tokens=600)
SIZE = Size(hidden=6, layers=2, epochs=2, learning_rate=1e-2)
TEXTS = ["tanh(x + keep1(relu(hh) - c1))", "blend(sigmoid(xh), h, xh)"]
TAPES = np.stack([baseline(GRAMMAR, "LSTM"), *(parse(GRAMMAR, text) for text in TEXTS)])
KEYS = jax.random.split(jax.random.key(0), 2)
pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def together():
    return train(TASK, GRAMMAR, TAPES, SIZE, KEYS)


def test_losses_fall_on_what_is_learned(together):
    assert together.curve.shape == (3, 2, 2)
    assert bool((together.train[..., -1] < together.train[..., 0]).all())


@pytest.mark.parametrize("n", [0, 1])
def test_a_group_trains_as_each_node_does_alone(together, n):
    alone = train(TASK, GRAMMAR, TAPES[n : n + 1], SIZE, KEYS[1:])
    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_allclose(ours[n, 1], theirs[0, 0], rtol=1e-5, atol=1e-5)


def test_a_node_that_diverges_leaves_its_neighbours_alone():
    wild = parse(GRAMMAR, "keep0(x + c0 + c0 + c0)")  # three times as much at each step
    size = SIZE._replace(layers=1)
    pair = train(TASK, GRAMMAR, np.stack([wild, TAPES[1]]), size, KEYS[:1])
    alone = train(TASK, GRAMMAR, TAPES[1:2], size, KEYS[:1])
    assert not bool(jnp.isfinite(pair.curve[0]).all())
    np.testing.assert_allclose(pair.curve[1], alone.curve[0], rtol=1e-5)


def test_the_loss_of_segments_is_that_of_a_loop_over_words():
    cell = node(GRAMMAR, TAPES[0])
    size = SIZE._replace(layers=1)
    batched = start(TASK, len(cell.gates), size, jax.random.key(4)[None])
    weights = jax.tree.map(lambda x: x[0], batched)
    carry, total = rest([cell], size, 4), 0.0
    for k in range(2):
        segment = jax.tree.map(lambda x, k=k: x[k], TASK.train)
        summed, carry = losses(TASK, [cell], batched, carry, segment)
        total += float(summed[0])
    assert total == pytest.approx(slow_loss(jax.device_get(weights)), rel=1e-5)


def slow_loss(weights):
    """The standard LSTM, word by word, over the first two segments."""
    gate = weights["layers"][0]
    inputs, targets = (x[:2].reshape(20, 4) for x in (TASK.train.inputs, TASK.train.targets))
    total = 0.0
    for b in range(4):
        h, c = np.zeros(6), np.zeros(6)
        for t in range(20):
            x = weights["embed"][inputs[t, b]]
            o, f, i, g = (
                x @ gate["w"][:, s] + h @ gate["u"][:, s] + gate["b"][s] for s in range(4)
            )
            sigma = [1 / (1 + np.exp(-z)) for z in (o, f, i)]
            c = sigma[1] * c + sigma[2] * np.tanh(g)
            h = sigma[0] * np.tanh(c)
            logits = h @ weights["out"]["w"] + weights["out"]["b"]
            total += np.log(np.exp(logits).sum()) - logits[targets[t, b]]
    return total


def test_used_weights_are_counted_one_by_one():
    for tape in TAPES:
        cell = node(GRAMMAR, tape)
        weights = start(TASK, len(cell.gates), SIZE, jax.random.key(0)[None])
        weights = jax.tree.map(lambda x: x[0], weights)
        used = sum(
            leaf.size for name in ("embed", "out") for leaf in jax.tree.leaves(weights[name])
        )
        for layer in weights["layers"]:
            w, u = cell.reads.sum(0)
            used += w * layer["w"][:, 0].size + u * layer["u"][:, 0].size + layer["b"].size
        assert parameters(TASK, cell, SIZE.hidden, SIZE.layers) == used


def test_weights_that_are_not_used_get_no_gradient():
    cell = node(GRAMMAR, TAPES[1])  # gates x and hh
    size = SIZE._replace(layers=1)
    weights = start(TASK, 3, size, jax.random.key(0)[None])
    segment = jax.tree.map(lambda x: x[0], TASK.train)

    def loss(weights):
        return losses(TASK, [cell], weights, rest([cell], size, 4), segment)[0].sum()

    gradient = jax.jit(jax.grad(loss))(weights)["layers"][0]
    assert not gradient["u"][0, :, 0].any()
    assert not gradient["w"][0, :, 1].any()
    assert not gradient["b"][0, 2].any()
    assert gradient["w"][0, :, 0].any()
    assert gradient["u"][0, :, 1].any()


def test_equal_parameters_mean_as_near_as_whole_units_allow():
    lstm = parameters(TASK, node(GRAMMAR, TAPES[0]), 20)
    for tape in TAPES:
        cell = node(GRAMMAR, tape)
        hidden = hidden_for(TASK, cell, lstm)
        gap = abs(parameters(TASK, cell, hidden) - lstm)
        assert gap <= abs(parameters(TASK, cell, hidden + 1) - lstm)
        assert gap <= abs(parameters(TASK, cell, hidden - 1) - lstm)
    assert hidden_for(TASK, node(GRAMMAR, TAPES[0]), lstm) == 20
