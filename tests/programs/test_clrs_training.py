"""Training a triplet function on an algorithm, live and as exported programs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.data.clrs_probes import spec
from jaxnas.data.dataset import DataError
from jaxnas.programs import clrs, clrs_net, clrs_scores, clrs_trace, clrs_training, gmpnn, triplets
from jaxnas.programs.sandbox import rules
from jaxnas.programs.sandbox.verdict import Rejected

V1 = triplets.SEEDS["v1"]
ALGORITHM, SMALL = (
    "bfs",
    {"batch": 4, "eval_batch": 8, "hidden": 8, "platforms": ("cpu",)},
)


@pytest.fixture(scope="module")
def material():
    """Small examples of dm-clrs, or a skip that says what is missing."""
    try:
        key = jax.random.key(1)
        return clrs_training.draw(ALGORITHM, key, lengths=(3, 4), examples=16, valid=8)
    except DataError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def task(material):
    return clrs_training.setting(ALGORITHM, material, **SMALL)


@pytest.fixture(scope="module")
def traced(task):
    return clrs_trace.trace(triplets.SOURCES["v1"], task)


@pytest.fixture(scope="module")
def built(traced):
    """Training as read back from the bytes of programs."""
    return clrs_training.opened(traced.programs)


def test_a_step_of_the_programs_is_one_of_clipped_adam_on_the_loss_of_the_batch_in_turn(
    material, built, task, quick_compile
):
    key, rate = jax.random.key_data(jax.random.key(3)), jnp.float32(0.01)
    batches = tuple(jax.tree.map(lambda a: a[:4], e) for e in material.train)
    before = jax.jit(built.init)(jax.random.key_data(jax.random.key(0)))
    after, loss = jax.jit(built.step)(before, batches, jnp.int32(1), key, rate)
    form = jax.tree.structure(jax.eval_shape(clrs.build(V1, task).init, key))
    (weights, _), (params, _) = form.unflatten(before), form.unflatten(after)

    lost = partial(_slow_loss, clrs_net.Step(spec(ALGORITHM), V1, hidden=8), batches[1])
    expected, gradient = jax.jit(jax.value_and_grad(lost))(weights)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))
    assert sum(float(abs(g).sum()) > 0 for g in jax.tree.leaves(gradient)) > 40
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(gradient)))
    for old, new, g in zip(*map(jax.tree.leaves, (weights, params, gradient)), strict=True):
        g = np.asarray(g) / max(norm, 1.0)
        # Adam's first step is the gradient over its own size.
        wanted = np.asarray(old) - 0.01 * g / (abs(g) + 1e-8)
        told = abs(g) > 1e-5  # of less, rounding decides the sign
        np.testing.assert_allclose(np.asarray(new)[told], wanted[told], atol=1e-4)


def _slow_loss(net, examples, params):
    """The steps one after another, without scan, checkpoints or switch."""
    truth, (batch, nodes) = examples.inputs | examples.hints, examples.inputs["pos"].shape
    read = {p.name: p for p in net.probes if p.stage != "output"}
    seen = {name: clrs_net.weights(p, truth[name], nodes) for name, p in read.items()}
    seen |= {name: seen[name][:, 0] for name in examples.hints}
    state, told, last = jnp.zeros((batch, nodes, net.hidden)), [], {}
    lengths = np.asarray(examples.lengths)
    for i in range(next(iter(examples.hints.values())).shape[1] - 1):
        state, new = net.apply({"params": params}, seen, state)
        seen |= {name: clrs_net.soft(read[name], new[name]) for name in examples.hints}
        told.append(new)
        for b in range(batch):
            if i == 0 or i + 1 < lengths[b]:
                last[b] = {name: new[name][b] for name in examples.outputs}
    outputs = {name: jnp.stack([last[b][name] for b in range(batch)]) for name in examples.outputs}
    hints = {name: jnp.stack([t[name] for t in told], 1) for name in examples.hints}
    return clrs_scores.loss(net.probes, examples, outputs, hints)


def test_training_the_programs_of_a_source_lowers_the_loss(
    material, traced, built, task, quick_compile
):
    key = jax.random.key(2)
    assert traced.params == clrs.size(V1, task)
    settings = {"steps": 30, "learning_rate": 0.01, "evaluate_every": 10}
    told = clrs_training.fit(built, material, task, key, **settings)
    assert told.steps.tolist() == [10, 20, 30]
    assert told.loss[-1] < 0.7 * told.loss[0]
    assert told.valid == told.curve.max()
    assert told.curve[told.steps.tolist().index(told.best)] == told.valid
    assert 0 <= told.last <= 100


def test_training_that_diverges_ends_and_scores_minus_infinity(material, task):
    broken = clrs.Built(
        lambda key: jnp.int32(0),
        lambda state, *_: (state + 1, jnp.where(state > 12, jnp.nan, 1.0)),
        lambda state, known: {"pi": jnp.zeros((8, 4, 4))},
    )
    told = clrs_training.fit(broken, material, task, jax.random.key(0), steps=50, evaluate_every=10)
    assert (told.valid, told.last) == (-np.inf, -np.inf)
    assert told.steps.tolist() == [10, 20]
    assert np.isnan(told.curve).tolist() == [False, True]


def test_validation_examples_must_fill_batches(material, task):
    odd = task._replace(eval_batch=3)
    with pytest.raises(ValueError, match=r"batches of `task.eval_batch` = 3, but has 8"):
        clrs_training.fit(clrs.build(V1, odd), material, odd, jax.random.key(0), steps=1)


def test_programs_of_another_form_are_refused():
    with pytest.raises(ValueError, match="must be init, step, evaluate"):
        clrs_training.opened({"init": b""})


PLAIN = clrs.Setting("bfs", (3,), (3,), (3, 3), hidden=4, batch=2, eval_batch=2, platforms=("cpu",))


@pytest.mark.parametrize("name", triplets.SOURCES)
def test_each_source_keeps_the_rules_and_defines_its_function(name):
    source = triplets.SOURCES[name]
    rules.check(source)
    assert triplets.STUB in source
    function = (triplets.SEEDS | triplets.DISCOVERED)[name]
    loaded = clrs_trace.load(source)
    reads = jax.random.key(0), jnp.ones((1, 3, 4)), jnp.ones((1, 3, 3, 2)), jnp.ones((1, 2))
    told = [
        jax.make_jaxpr(gmpnn.Messages(f, 2, 2).init_with_output)(*reads) for f in (loaded, function)
    ]
    assert str(told[0]) == str(told[1])


@pytest.mark.parametrize(
    ("source", "failure", "said"),
    [
        ("def get_triplet_msgs(", "parse", "never closed"),
        ("x = 1", "parse", "no function is defined"),
        ("import nothing_like_it\ndef f(z): return z", "import", "nothing_like_it"),
        (f"{triplets.STUB}\n    return z", "shape", r"returned shape \(1, 2, 8\)"),
        (f"{triplets.STUB}\n    return None", "shape", "a NoneType"),
        ("def f(z): return z", "shape", "positional argument"),
    ],
)
def test_a_source_that_cannot_be_used_is_rejected_with_what_to_mend(source, failure, said):
    with pytest.raises(Rejected, match=said) as caught:
        clrs_trace.trace(source, PLAIN)
    assert caught.value.failure == failure


def test_names_and_layout_of_a_source_make_no_new_candidate_but_other_sums_do(monkeypatch):
    monkeypatch.setattr(clrs_trace, "exported", lambda built, setting: {})
    source = triplets.SOURCES["div2mean"]
    renamed = source.replace("nodes", "n").replace("edges = [", "# of edges\n    edges = [")
    same, other = (clrs_trace.trace(s, PLAIN) for s in (source, renamed))
    assert same == other
    assert same.depth == 7
    changed = clrs_trace.trace(source.replace("z / 2", "z / 3"), PLAIN)
    assert changed.params == same.params
    assert changed.identity != same.identity
