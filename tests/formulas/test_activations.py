"""Activation functions: a grammar that is a table, searched by what is there already."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxnas.core import Asked, close, run_host
from jaxnas.data.toy import waves
from jaxnas.evolve.random_search import random_search
from jaxnas.evolve.regularized import regularized_evolution
from jaxnas.formulas.activations import BASELINES, ActivationJudge, activations, stretches
from jaxnas.formulas.evaluate import interpreted, unrolled
from jaxnas.formulas.grow import sample
from jaxnas.formulas.tape import parse, to_text

GRAMMAR = activations()
X = jnp.linspace(-3, 3, 25)
pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("ReLU", nn.relu),
        ("tanh", jnp.tanh),
        ("Swish", nn.swish),
        ("Mish", jax.nn.mish),
        ("GELU", lambda x: nn.gelu(x, approximate=False)),
    ],
)
def test_what_people_wrote_is_what_flax_has(name, theirs):
    ours = unrolled(GRAMMAR, parse(GRAMMAR, BASELINES[name]), X)
    np.testing.assert_allclose(ours, theirs(X), rtol=1e-5, atol=1e-6)


def test_tapes_that_are_data_give_the_same_values():
    tapes = sample(jax.random.key(0), GRAMMAR, 20)
    run = jax.jit(lambda tapes: jax.lax.map(lambda t: interpreted(GRAMMAR, t, X, X), tapes))
    for tape, value in zip(np.asarray(tapes), run(tapes), strict=True):
        wanted = jnp.broadcast_to(unrolled(GRAMMAR, tape, X), X.shape)
        np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)


def judge(**settings):
    data = waves(length=12, n=96)
    sets = [
        (jnp.asarray(s.x.reshape(len(s.x), -1)), jnp.asarray(s.y)) for s in (data.train, data.test)
    ]
    settings = {"widths": (8,), "steps": 30, "batch": 16, "classes": len(data.classes)} | settings
    return ActivationJudge(GRAMMAR, *sets, **settings)


def measured(problem, texts):
    tapes = jnp.asarray(np.stack([parse(GRAMMAR, text) for text in texts]))
    return problem.evaluate(jax.random.key(1), Asked(tapes, jnp.full(len(texts), -1)))


def test_a_group_trains_as_each_function_does_alone_and_failures_have_a_reason():
    problem = judge()
    texts = ["relu(x)", "1 + 0.5", "square(square(square(square(exp(x * x)))))", "tanh(x)"]
    told = measured(problem, texts)
    assert told.failure.tolist() == [0, 1, 2, 0]
    assert told.cost.tolist() == [1, 0, 1, 1]
    alone = measured(problem, texts[3:])
    np.testing.assert_allclose(told.extra.scores[3], alone.extra.scores[0], atol=1e-4)
    np.testing.assert_allclose(told.extra.curve[3], alone.extra.curve[0], rtol=1e-4)


def test_training_is_that_of_a_loop_over_steps():
    problem = judge(steps=5, seeds=1)
    key = jax.random.split(jax.random.key(1), 1)[0]
    key_weights, key_batches = jax.random.split(key)
    weights = jax.tree.map(lambda p: p[0], problem._start(key_weights, 1))
    x, y = problem.data

    def logits(weights, x):
        return jnp.tanh(x @ weights[0]["w"] + weights[0]["b"]) @ weights[1]["w"] + weights[1]["b"]

    def loss(weights, index):
        rows = jax.nn.log_softmax(logits(weights, x[index]))
        return -rows[jnp.arange(len(index)), y[index]].mean()

    moments, losses = problem.tx.init(weights), []
    for key in jax.random.split(key_batches, 5):
        index = jax.random.randint(key, (16,), 0, len(x))
        value, gradient = jax.value_and_grad(loss)(weights, index)
        losses.append(value)
        updates, moments = problem.tx.update(gradient, moments)
        weights = optax.apply_updates(weights, updates)
    right = 100 * (logits(weights, problem.valid[0]).argmax(1) == problem.valid[1]).mean()
    told = measured(problem, ["tanh(x)"])
    assert float(told.fitness[0]) == pytest.approx(float(right), abs=1e-3)
    np.testing.assert_allclose(told.extra.curve[0, 0], losses, rtol=1e-4)


@pytest.mark.parametrize("steps", [1, 7, 50, 51, 1999])
def test_stretches_are_about_equal_and_cover_all_steps(steps):
    ends = stretches(steps)
    assert len(ends) == min(steps, 50)
    assert ends[-1] == steps
    lengths = np.diff([0, *ends])
    assert set(lengths) <= {steps // len(ends), -(-steps // len(ends))}


@pytest.mark.parametrize("how", ["evolution", "random"])
def test_searchers_that_are_there_already_search_them(how):
    problem = judge(steps=10, seeds=1)
    searcher = (
        regularized_evolution(problem.sample, problem.mutate, population=4, tournament=2, batch=4)
        if how == "evolution"
        else random_search(problem.sample, batch=4)
    )
    *_, (_, state, info) = run_host(close(searcher, problem), jax.random.key(2), 2)
    assert np.isfinite(float(info["fitness"]))
    assert "x" in to_text(GRAMMAR, np.asarray(state.genotype))
