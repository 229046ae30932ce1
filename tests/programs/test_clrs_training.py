"""Training a triplet function on an algorithm, live and as exported programs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import ShapeDtypeStruct as Shape, export
from reference import clrs_examples

from jaxnas.data.clrs_probes import spec
from jaxnas.programs import clrs, clrs_net, clrs_scores, clrs_trace, clrs_training, gmpnn, triplets
from jaxnas.programs.sandbox import rules
from jaxnas.programs.sandbox.verdict import Rejected
from jaxnas.train.portable import Refused

V1 = triplets.SEEDS["v1"]
ALGORITHM, SMALL = (
    "bfs",
    {"batch": 4, "eval_batch": 8, "hidden": 8, "platforms": ("cpu",)},
)


@pytest.fixture(scope="module")
def material():
    return clrs_examples.material(ALGORITHM)


@pytest.fixture(scope="module")
def task(material):
    return clrs_training.setting(ALGORITHM, material, **SMALL)


@pytest.fixture(scope="module")
def traced(task):
    return clrs_trace.trace(triplets.SOURCES["v1"], task)


@pytest.fixture(scope="module")
def built(traced, task):
    """Training as read back from the bytes of programs."""
    return clrs_training.opened(traced.programs, task)


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
    told = clrs_training.fit(built, material, task, key, (0,), (0.01,), steps=45, evaluate_every=15)
    assert told.steps.tolist() == [15, 30, 45]
    assert told.loss[0, -1] < 0.9 * told.loss[0, 0]
    assert told.valid[0] == told.curve.max()
    assert told.curve[0, told.steps.tolist().index(told.best[0])] == told.valid[0]
    assert 0 <= told.last[0] <= 100
    assert told.diverged.tolist() == [-1]
    assert np.isnan(told.test).all()


def test_a_run_depends_on_its_seed_and_rate_and_not_on_its_place(material, built, task):
    def fit(seeds, rates):
        key = jax.random.key(2)
        return clrs_training.fit(
            built, material, task, key, seeds, rates, steps=4, evaluate_every=2
        )

    both, alone = fit((3, 4), (0.01, 0.02)), fit((4,), (0.02,))
    np.testing.assert_array_equal(both.loss[1:], alone.loss)
    np.testing.assert_array_equal(both.curve[1:], alone.curve)
    assert (both.loss[0] != both.loss[1]).all()


def test_training_that_diverges_ends_and_scores_minus_infinity(material, task):
    broken = clrs.Built(
        lambda key: jnp.int32(0),
        lambda state, *_: (state + 1, jnp.where(state > 12, jnp.nan, 1.0)),
        lambda state, known: {"pi": jnp.zeros((8, 4, 4))},
    )
    told = clrs_training.fit(broken, material, task, jax.random.key(0), steps=30, evaluate_every=10)
    assert (told.valid.tolist(), told.last.tolist()) == ([-np.inf], [-np.inf])
    assert told.steps.tolist() == [10, 20, 30]
    assert told.diverged.tolist() == [13]
    assert np.isnan(told.curve).tolist() == np.isnan(told.loss).tolist() == [[False, True, True]]


def test_examples_to_judge_must_fill_batches():
    material = clrs_examples.material(ALGORITHM, test=(5, 4))
    task = clrs_training.setting(ALGORITHM, material, **SMALL)
    for odd, said in (({"eval_batch": 3}, "has 8"), ({"test_batch": 3}, "has 16")):
        other = task._replace(**odd)
        with pytest.raises(
            ValueError, match=rf"batches of `task.{next(iter(odd))}` = 3, but {said}"
        ):
            clrs_training.fit(clrs.build(V1, other), material, other, jax.random.key(0), steps=1)


def test_the_test_set_is_scored_by_the_state_that_was_best_in_validation(material):
    """States count steps, and all but that after 10 predict the contrary."""
    tested = clrs_examples.material(ALGORITHM, test=(5, 4))
    task = clrs_training.setting(ALGORITHM, tested, **SMALL, test_batch=4)

    def predicting(examples, wrong):
        truth = jax.nn.one_hot(examples.outputs["pi"][0], examples.inputs["pos"].shape[1])
        right = truth.at[:wrong].multiply(-1)

        def predict(state, known):
            count = known.inputs["pos"].shape[0]
            return {"pi": jnp.tile(jnp.where(state == 10, right, -right), (count, 1, 1))}

        return predict

    counting = clrs.Built(
        lambda key: jnp.int32(0),
        lambda state, *_: (state + 1, jnp.float32(1)),
        predicting(tested.valid, 0),
        predicting(tested.test, 1),
    )
    run = partial(clrs_training.fit, counting, key=jax.random.key(0), steps=20, evaluate_every=5)
    told = run(tested, task)
    assert (told.valid.tolist(), told.best.tolist()) == ([100.0], [10])
    assert told.test.tolist() == [pytest.approx(80.0)]  # four of five nodes
    assert np.isnan(run(material, task).test).all()


@pytest.mark.parametrize(
    ("forged", "said"),
    [
        ({"init": b""}, "cannot be read"),
        ({"step": "init"}, "must be as `clrs.forms` says, but step is not"),
        ({"evaluate": "taught"}, "but evaluate is not"),
        ({"evaluate": "shorter"}, "what evaluate gives"),
        ({"step": "calling"}, "must only compute, but step has a custom call"),
    ],
)
def test_forged_programs_are_refused(traced, task, forged, said):
    programs = traced.programs | {name: _forged(how, traced, task) for name, how in forged.items()}
    with pytest.raises(Refused, match=said):
        clrs_training.opened(programs, task)
    short = {name: traced.programs[name] for name in ("init", "step")}
    with pytest.raises(Refused, match="lacks"):
        clrs_training.opened(short, task)


def _forged(how, traced, task):
    """Bytes of a program that is not as it should be."""
    if isinstance(how, bytes) or how in traced.programs:
        return traced.programs.get(how, how)
    state = [
        Shape(a.shape, a.dtype)
        for a in export.deserialize(bytearray(traced.programs["init"])).out_avals
    ]
    forms = clrs.forms(task, state)
    (kept, known), told = forms["evaluate"]

    def calling(*taken):
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), forms["step"][1])
        evil = jax.ffi.ffi_call("evil", Shape((), "float32"))(zeros[1])
        return zeros[0], evil

    def taught(state, known, outputs):
        return outputs

    def shorter(state, known):
        return {name: jnp.zeros(leaf.shape[:-1]) for name, leaf in told.items()}

    function, taken = {
        "calling": (calling, forms["step"][0]),
        "taught": (taught, (kept, known, told)),
        "shorter": (shorter, (kept, known)),
    }[how]
    unsafe = [export.DisabledSafetyCheck.custom_call("evil")]
    return bytes(export.export(jax.jit(function), disabled_checks=unsafe)(*taken).serialize())


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


SIZES = PLAIN._replace(nodes=(3, 4), steps=(3, 3), valid=(4, 3), test=(5, 3))


@pytest.mark.parametrize(
    ("shape", "apart"),
    [((1, 3), True), ((1, 4), True), ((1, 5), True), ((1, 6), False), ((0, 7), False)],
)
def test_functions_that_differ_on_graphs_of_one_size_there_is_are_two(monkeypatch, shape, apart):
    """Trained on graphs of 3 and 4 nodes, validated on 4, tested on 5."""
    monkeypatch.setattr(clrs_trace, "exported", lambda built, setting: {})
    source = triplets.SOURCES["div2mean"].replace("z / 2", "z")
    axis, number = shape
    line = f"{triplets.STUB}\n    z = z / (3 if z.shape[{axis}] == {number} else 2)\n"
    ids = {
        clrs_trace.trace(source.replace(f"{triplets.STUB}\n", one), SIZES).identity
        for one in (line, f"{triplets.STUB}\n    z = z / 2\n")
    }
    assert len(ids) == 1 + apart


def test_functions_that_send_back_other_gradients_are_two(monkeypatch):
    """The encoders before them learn otherwise."""
    monkeypatch.setattr(clrs_trace, "exported", lambda built, setting: {})
    head = (
        "import jax\n@jax.custom_vjp\ndef half(x):\n    return x / 2\n"
        "half.defvjp(lambda x: (x / 2, None), lambda _, g: (g * {},))\n"
    )
    source = triplets.SOURCES["div2mean"].replace(
        f"{triplets.STUB}\n", f"{triplets.STUB}\n    z = half(z)\n"
    )
    one, same, other = (
        clrs_trace.trace(head.format(slope) + source, SIZES).identity for slope in (0.5, 0.5, 0.0)
    )
    assert one == same != other


def test_which_weights_are_used_at_which_size_tells_functions_apart(monkeypatch):
    """At each size alone all of these compute the same."""
    monkeypatch.setattr(clrs_trace, "exported", lambda built, setting: {})
    source = (
        f"import flax.linen as nn\n{triplets.STUB}\n"
        "    a, b = nn.Dense(out_size)(edge_fts), nn.Dense(out_size)(edge_fts)\n"
        "    return a if z.shape[1] {} 3 else b\n"
    )
    task = SIZES._replace(test=None)
    one, same, two, other = (
        clrs_trace.trace(source.format(sign), task).identity for sign in ("<", ">=", "==", "!=")
    )
    assert one == same != two == other
