"""The value of expressions: three ways against each other and against numpy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import expressions as slow

from jaxnas.formulas.evaluate import interpreted, unrolled
from jaxnas.formulas.tape import END, flat
from jaxnas.formulas.update_rules import BUFFERS, Inputs, remember, space

pytestmark = pytest.mark.usefixtures("quick_compile")
D, T, STEPS = 12, 10, 4
GNN, ALL = space("gnn"), space("everything")
RNG = np.random.default_rng(0)
RAWS = RNG.normal(size=(STEPS, D))
W = RNG.normal(size=D)
GS = RAWS + 0.1 * W


def inputs(t=STEPS, key=0):
    """What a rule sees after `t` gradients."""
    memory = read = {name: jnp.zeros(D) for name in BUFFERS}
    for n, (raw, g) in enumerate(zip(RAWS[:t], GS[:t], strict=True)):
        raw, g = jnp.float32(raw), jnp.float32(g)
        memory, read = remember(memory, g, raw, jnp.float32(n + 1))
    return Inputs(jnp.float32(W), raw, g, read, jnp.float32(t), float(T), jax.random.key(key))


def leaves(t=STEPS):
    return slow.leaves(W, RAWS[:t], GS[:t], T)


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(1)
    without = {"div", "pow", "drop1"}
    trees = [slow.random_tree(rng, GNN.symbols, 10, without) for _ in range(61)]
    trees += [("drop1", ("g",)), ("add", ("drop1", ("g",)), ("drop1", ("g",))), ("g",)]
    return trees, np.stack([flat(GNN, tree) for tree in trees])


@pytest.fixture(scope="module")
def values(drawn):
    seen = inputs()

    def one(tape):
        return interpreted(GNN, tape, seen, seen.g)

    apart = [np.broadcast_to(unrolled(GNN, tape, seen), D) for tape in drawn[1]]
    mapped = jax.jit(lambda tapes: jax.lax.map(one, tapes))(drawn[1])
    return np.stack(apart), np.asarray(mapped), np.asarray(jax.jit(jax.vmap(one))(drawn[1]))


@pytest.mark.parametrize("way", [1, 2], ids=["map", "vmap"])
def test_written_out_and_interpreted_expressions_have_one_value(values, way):
    np.testing.assert_allclose(values[way], values[0], rtol=1e-5, atol=1e-6)


def test_random_expressions_are_worth_what_numpy_says(drawn, values):
    compared = 0
    for tree, found in zip(drawn[0], values[1], strict=True):
        if slow.RANDOM & set(slow.names(tree)):
            continue
        wanted, fine = slow.value(tree, leaves())
        if fine and np.abs(wanted).max() < 1e6:
            scale = 1e-5 * (1 + np.abs(wanted).max())
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=scale, err_msg=str(tree))
            compared += 1
    assert compared > 40


@pytest.mark.parametrize("symbol", ALL.symbols, ids=lambda s: s.name)
def test_every_symbol_is_worth_what_numpy_says(symbol):
    if symbol.name in slow.RANDOM:
        pytest.skip("is drawn, see below")
    operands = [("w1",), ("m1",)][: symbol.arity]
    for t in (1, 2, STEPS):
        tree = (symbol.name, *operands)
        found = np.broadcast_to(unrolled(ALL, flat(ALL, tree), inputs(t)), D)
        with np.errstate(invalid="ignore"):
            wanted, _ = slow.value(tree, leaves(t))
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-7)


def many(text_tree, n=400):
    """A random expression under many keys."""
    tape, seen = flat(ALL, text_tree), inputs()
    keys = jax.random.split(jax.random.key(7), n)
    wide = seen._replace(g=jnp.ones((n, D)), keys=keys)
    return np.broadcast_to(unrolled(ALL, tape, wide), (n, D))


@pytest.mark.parametrize(("name", "rate"), [("drop1", 0.1), ("drop3", 0.3), ("drop5", 0.5)])
def test_dropout_keeps_its_share_and_the_mean(name, rate):
    out = many((name, ("g",)))
    assert set(np.unique(out.round(5))) == {0.0, np.float32(1 / (1 - rate)).round(5)}
    assert abs((out > 0).mean() - (1 - rate)) < 0.03
    assert abs(out.mean() - 1) < 0.06


def test_noise_has_its_variance_and_differs_between_weights_and_runs():
    out = many(("noise",))
    assert abs(out.mean()) < 0.01
    assert abs(out.var() - 0.01) < 0.001
    assert len(np.unique(out)) > 0.99 * out.size


def test_annealed_noise_is_one_number_a_step_of_falling_variance():
    out = many(("ep",))
    assert (out == out[:, :1]).all()
    assert abs(out[:, 0].var() * (1 + STEPS) ** 0.55 - 1) < 0.25


def test_draws_depend_on_the_place_in_the_tape_and_the_key_alone():
    two = many(("sub", ("noise",), ("noise",)))
    assert (two != 0).all()
    tape = flat(ALL, ("noise",))
    alone = unrolled(ALL, tape, inputs(key=3))
    wide = inputs()._replace(keys=jnp.stack([jax.random.key(k) for k in (9, 3, 5)]))
    beside = unrolled(ALL, tape, wide._replace(g=jnp.ones((3, D))))
    np.testing.assert_array_equal(beside[1], alone)


def test_division_and_powers_are_unprotected_but_for_a_small_constant():
    def at(tree, **more):
        seen = inputs()
        return unrolled(ALL, flat(ALL, tree), seen._replace(g=jnp.array([0.0, -2.0, 4.0]), **more))

    half = ("div", ("1",), ("2",))
    np.testing.assert_allclose(at(("div", ("g",), ("g",))), [0, 1, 1])
    np.testing.assert_allclose(at(("div", ("1",), ("g",))), [1e8, -0.5, 0.25])
    np.testing.assert_allclose(at(("pow", ("g",), half)), [0, np.nan, 2], rtol=1e-6)
    np.testing.assert_allclose(at(("log", ("g",))), [-np.inf, np.log(2), np.log(4)], rtol=1e-6)


def test_constants_alone_overflow_to_infinity_and_raise_nothing():
    tower = ("2",)
    for _ in range(4):
        tower = ("pow", ("2",), tower)
    assert np.isinf(np.asarray(unrolled(ALL, flat(ALL, tower), inputs())))
    negative = ("pow", ("neg", ("1",)), ("div", ("1",), ("2",)))
    assert np.isnan(np.asarray(unrolled(ALL, flat(ALL, negative), inputs())))


def test_an_empty_tape_is_worth_nothing():
    seen = inputs()
    out = interpreted(GNN, jnp.full(10, END, jnp.int32), seen, seen.g)
    np.testing.assert_array_equal(out, np.zeros(D))


@pytest.mark.parametrize(("name", "rest"), [("ld", 0.0), ("cd", 0.0), ("ldm", 0.01), ("cdm", 0.03)])
def test_decays_fall_from_one_over_a_half_to_nothing(name, rest):
    tape = flat(ALL, (name,))
    at = [unrolled(ALL, tape, inputs()._replace(t=jnp.float32(t), T=100.0)) for t in (0, 50, 100)]
    np.testing.assert_allclose(at, np.array([1, 0.5, 0]) + rest, atol=1e-6)


def test_restarts_come_twenty_times():
    tape = flat(ALL, ("rd",))
    at = inputs()._replace(t=jnp.arange(200.0), T=200.0)
    out = np.asarray(unrolled(ALL, tape, at))
    np.testing.assert_allclose(out[:190], out[10:], atol=1e-5)
    assert out[0] == 1
    assert (np.diff(out[:10]) < 0).all()
