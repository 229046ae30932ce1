"""The grammar of recurrent nodes: LSTM and GRU written in it are those of flax."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxnas.formulas.recurrent import BASELINES, MEMORIES, baseline, node, nodes, sees_input
from jaxnas.formulas.tape import parse, size, to_latex, to_text

GRAMMAR = nodes()
B, D, H, T = 3, 5, 4, 6
pytestmark = pytest.mark.usefixtures("quick_compile")
# The linear inputs in the order of the tape, as (part of W, part of U) of flax.
PARTS = {
    "LSTM": [("io", "ho"), ("if", "hf"), ("ii", "hi"), ("ig", "hg")],
    "GRU": [("iz", "hz"), ("in", None), ("ir", "hr"), (None, "hn")],
}


def ours(name, params, xs):
    """Outputs of a node and its last output and memories, with flax's weights."""
    cell = node(GRAMMAR, baseline(GRAMMAR, name))
    nothing = {"kernel": 0.0}

    def part(key):
        return params[key] if key else nothing

    def gates(which, x):
        return [x @ part(p[which])["kernel"] if p[which] else 0.0 * x[:, :1] for p in PARTS[name]]

    bias = [part(i).get("bias", 0.0) + part(h).get("bias", 0.0) for i, h in PARTS[name]]

    def step(carry, x):
        h, c = cell.step(gates(0, x), gates(1, carry[0]), bias, *carry)
        return (h, c), h

    return jax.lax.scan(step, (jnp.zeros((B, H)), jnp.zeros((MEMORIES, B, H))), xs)


def theirs(cell, params, xs):
    def step(carry, x):
        return cell.apply({"params": params}, carry, x)

    return jax.lax.scan(step, cell.initialize_carry(jax.random.key(0), (B, D)), xs)


@pytest.mark.parametrize(
    ("name", "cell"),
    [("LSTM", nn.LSTMCell(H)), ("LSTM", nn.OptimizedLSTMCell(H)), ("GRU", nn.GRUCell(H))],
    ids=["LSTMCell", "OptimizedLSTMCell", "GRUCell"],
)
def test_a_node_written_in_the_grammar_is_that_of_flax(name, cell):
    xs = jax.random.normal(jax.random.key(1), (T, B, D))
    carry = cell.initialize_carry(jax.random.key(0), (B, D))
    params = cell.init(jax.random.key(2), carry, xs[0])["params"]
    params = jax.tree.map(
        lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape), params
    )
    weight = jax.random.normal(jax.random.key(3), (T, B, H))

    def scored(run, params, xs):
        last, hs = run(params, xs)
        return (weight * hs).sum() + sum(jnp.sin(x).sum() for x in jax.tree.leaves(last)), (
            last,
            hs,
        )

    grad = partial(jax.value_and_grad, argnums=(1, 2), has_aux=True)
    (_, (mine, hs)), mine_grad = jax.jit(grad(scored), static_argnums=0)(
        partial(ours, name), params, xs
    )
    (_, (other, want)), other_grad = jax.jit(grad(scored), static_argnums=0)(
        partial(theirs, cell), params, xs
    )
    close = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6)
    close(hs, want)
    if name == "LSTM":
        close(mine[1][0], other[0])
        close(mine[0], other[1])
    else:
        close(mine[0], other)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-6), mine_grad, other_grad)


def stepped(text, h=0.0, c=(0.0, 0.0, 0.0)):
    """One step of a node with all gates at 2, 3 and 0.5 (`W x`, `U h` and `b`)."""
    cell = node(GRAMMAR, parse(GRAMMAR, text))
    n = len(cell.gates)
    gates = (jnp.full((n, 1), v) for v in (2.0, 3.0, 0.5))
    h, c = cell.step(*gates, jnp.full(1, h), jnp.array(c)[:, None])
    return float(h[0]), c[:, 0].tolist()


def test_each_linear_input_reads_its_part():
    assert stepped("xh")[0] == 5.5
    assert stepped("x")[0] == 2.5
    assert stepped("hh")[0] == 3.5
    assert stepped("h", h=7.0)[0] == 7.0
    assert stepped("blend(x, h, hh)", h=7.0)[0] == 2.5 * 7 + (1 - 2.5) * 3.5


def test_every_occurrence_has_weights_of_its_own():
    cell = node(GRAMMAR, parse(GRAMMAR, "xh - xh"))
    h, _ = cell.step(jnp.array([[1.0], [5.0]]), jnp.zeros((2, 1)), jnp.zeros((2, 1)), jnp.zeros(1),
                     jnp.zeros((3, 1)))  # fmt: skip
    assert float(h[0]) == -4


def test_what_is_kept_is_read_one_step_later():
    h, c = stepped("keep1(x + c1)", c=(0.0, 10.0, 0.0))
    assert (h, c) == (12.5, [0.0, 12.5, 0.0])


def test_a_memory_that_is_read_but_never_written_reads_zero():
    assert stepped("x + c2", c=(1.0, 2.0, 4.0))[0] == 2.5


def test_of_several_writers_of_one_memory_the_one_nearest_the_front_counts():
    assert stepped("keep0(x) + keep0(hh) + c0")[1][0] == 2.5
    assert stepped("keep0(keep0(x) + hh) * c0")[1][0] == 6.0


def test_memories_are_apart():
    _, c = stepped("keep0(x) + keep2(hh) + c0 * c2", c=(1.0, 1.0, 1.0))
    assert c == [2.5, 1.0, 3.5]


def test_text_is_read_back_and_latex_has_no_holes():
    for name in BASELINES:
        tape = baseline(GRAMMAR, name)
        np.testing.assert_array_equal(parse(GRAMMAR, to_text(GRAMMAR, tape)), tape)
        assert "{}" not in to_latex(GRAMMAR, tape)
    assert size(baseline(GRAMMAR, "LSTM")) == 15


def test_nodes_that_never_see_the_input_are_told_apart():
    assert sees_input(GRAMMAR, parse(GRAMMAR, "tanh(x)"))
    assert not sees_input(GRAMMAR, parse(GRAMMAR, "tanh(hh) * h"))


def test_a_node_that_nobody_wrote_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="LSTM, GRU, RNN, but got 'MGU'"):
        baseline(GRAMMAR, "MGU")
    with pytest.raises(ValueError, match="position 6, nodes has no 'softmax'"):
        parse(GRAMMAR, "tanh(softmax(x))")
