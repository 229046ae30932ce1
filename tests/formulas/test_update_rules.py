"""Buffers and hand-made rules against closed forms, optax and hand formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import expressions as slow

from jaxnas.formulas.rules import any_rule, many_rules, one_rule
from jaxnas.formulas.tape import flat, parse
from jaxnas.formulas.update_rules import BASELINES, BUFFERS, buffers, remember, space

pytestmark = pytest.mark.usefixtures("quick_compile")
ALL = space("everything")
D, STEPS, RATE, DECAY = 6, 100, 0.05, 0.01
RNG = np.random.default_rng(0)
TARGETS = jnp.asarray(RNG.normal(size=(STEPS, D)), jnp.float32)
W = jnp.asarray(RNG.normal(size=D), jnp.float32)
OPTAX = {
    "SGD": optax.identity(),
    "momentum": optax.trace(0.9),
    "Nesterov": optax.trace(0.9, nesterov=True),
    "Adam": optax.chain(optax.scale_by_adam(0.9, 0.999, 1e-8), optax.scale(0.003)),
    "RMSprop": optax.chain(
        optax.scale_by_rms(decay=0.99, eps=1e-8, eps_in_sqrt=False), optax.scale(0.03)
    ),
    "AdamW": optax.chain(
        optax.scale_by_adam(0.9, 0.999, 1e-8), optax.add_decayed_weights(0.01), optax.scale(0.003)
    ),
    "Lion": optax.scale_by_lion(0.9, 0.99),
}


def gradient(w, target):
    return jnp.sinh(w - target)


def test_buffers_are_the_weighted_sums_they_stand_for():
    raws = np.asarray(TARGETS[:30])
    gs = raws + DECAY * np.asarray(W)
    memory = {name: jnp.zeros(D) for name in BUFFERS}
    for t in range(1, 31):
        memory, read = remember(
            memory, jnp.asarray(gs[t - 1]), jnp.asarray(raws[t - 1]), jnp.float32(t)
        )
        wanted = slow.leaves(np.asarray(W, float), raws[:t], gs[:t], STEPS)
        for name in ("m1", "m2", "m3", "m1p", "m2p", "m3p"):
            np.testing.assert_allclose(read[name], wanted[name], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(read["before"], wanted["gp"], rtol=1e-6)
    assert set(memory) == set(read) == set(BUFFERS)


@pytest.fixture(scope="module")
def walks():
    """Weights after each step of every hand-made rule, and of its twin in optax, in one program."""
    ours = many_rules(ALL, np.stack([parse(ALL, text) for text in BASELINES.values()]))
    start = jnp.tile(W, (len(BASELINES), 1))
    keys = jnp.broadcast_to(jax.random.key(0), len(BASELINES))

    def step(carry, at):
        w, memory, theirs = carry
        t, target = at
        raw = gradient(w, target)
        direction, memory = ours.step(memory, w, raw, raw, t, float(STEPS), keys)
        moved = {}
        for name, (v, state) in theirs.items():
            update, state = OPTAX[name].update(gradient(v, target), state, v)
            moved[name] = (v - RATE * update, state)
        w = w - RATE * direction
        return (w, memory, moved), (w, {name: v for name, (v, _) in moved.items()})

    theirs = {name: (W, tx.init(W)) for name, tx in OPTAX.items()}
    times = jnp.arange(1, STEPS + 1, dtype=jnp.float32)
    run = jax.jit(lambda: jax.lax.scan(step, (start, ours.start(start), theirs), (times, TARGETS)))
    w, twins = run()[1]
    return {name: np.asarray(w[:, n]) for n, name in enumerate(BASELINES)}, twins


@pytest.mark.parametrize("name", OPTAX)
def test_hand_made_rules_walk_as_in_optax(walks, name):
    ours, theirs = walks
    np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-6, atol=2e-6)
    assert np.abs(ours[name][-1] - np.asarray(W)).max() > 1e-3


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("PowerSign", lambda g, s, ld, cd: np.e**s * g),
        ("PowerSign-ld", lambda g, s, ld, cd: np.e ** (ld * s) * g),
        ("PowerSign-cd", lambda g, s, ld, cd: np.e ** (cd * s) * g),
        ("AddSign", lambda g, s, ld, cd: (1 + s) * g),
        ("AddSign-ld", lambda g, s, ld, cd: (1 + ld * s) * g),
        ("AddSign-cd", lambda g, s, ld, cd: (1 + cd * s) * g),
    ],
)
def test_rules_of_signs_walk_by_their_formula(walks, name, formula):
    m, w = np.zeros(D), np.asarray(W, float)
    for t in range(1, STEPS + 1):
        # Each step starts from our weights of the step before: a sign that flips is not carried on.
        g = np.sinh(w - np.asarray(TARGETS[t - 1], float))
        m = 0.9 * m + g
        ld, cd = 1 - t / STEPS, (1 + np.cos(np.pi * t / STEPS)) / 2
        wanted = w - RATE * formula(g, np.sign(g) * np.sign(m), ld, cd)
        np.testing.assert_allclose(walks[0][name][t - 1], wanted, rtol=1e-5, atol=1e-5)
        w = walks[0][name][t - 1].astype(float)


def test_all_hand_made_rules_are_checked():
    assert {*OPTAX, *(name for name in BASELINES if "Sign" in name)} == set(BASELINES)


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        (("g",), ()),
        (("add", ("m1",), ("sm1",)), ("m1",)),
        (("mul", ("adam",), ("gp",)), ("adam1", "adam2", "before")),
        (("am2p",), ("m2p",)),
        (("lion",), ("lion1",)),
    ],
)
def test_a_rule_keeps_only_the_buffers_it_reads(tree, names):
    tape = flat(ALL, tree)
    assert set(buffers(ALL, tape)) == set(names)
    assert set(one_rule(ALL, tape).start(W)) == set(names)
    assert set(any_rule(ALL, jnp.asarray(tape)).start(W)) == set(BUFFERS)


def test_every_symbol_reads_buffers_that_its_rule_keeps():
    for symbol in ALL.symbols:
        tape = flat(ALL, (symbol.name, *[("g",)] * symbol.arity))
        rule = one_rule(ALL, tape)
        key, t = jax.random.key(0), jnp.float32(1)
        out, kept = rule.step(rule.start(W), W, W, W, t, 10.0, key)
        assert out.shape == W.shape
        assert set(kept) == set(rule.start(W))


def test_weight_decay_is_seen_by_all_but_adam_and_rmsprop():
    raw, g = TARGETS[0], TARGETS[0] + W

    def first(name):
        rule = one_rule(ALL, parse(ALL, name))
        return [
            rule.step(rule.start(W), W, raw, g, jnp.float32(1), 10.0, jax.random.key(0))[0]
            for g in (raw, g)
        ]

    for name in ("adam", "rmsprop", "adamw", "lion"):
        np.testing.assert_array_equal(*first(name))
    for name in ("g", "g2", "sg", "m1", "m2", "m3", "m1p", "am3p", "nesterov"):
        plain, decayed = first(name)
        assert not np.array_equal(plain, decayed)


@pytest.mark.parametrize("name", ["conv-subset", "conv", "gnn", "adversarial"])
def test_spaces_hold_what_the_paper_searches(name):
    common = {
        "add",
        "sub",
        "mul",
        "div",
        "pow",
        "neg",
        "exp",
        "log",
        "sqrt",
        "clip3",
        "drop1",
        "sign",
    }
    common |= {"g", "g2", "m1", "m2", "sg", "sm1", "1", "2"}
    more = {
        "conv-subset": "ld cd rd",
        "conv": "ld cd rd clip4 clip5 drop3 drop5 g3 m3 noise w1 w2 w3 w4 ep",
        "gnn": "g3 m3 adam rmsprop ldm cdm rdm",
        "adversarial": "g3 m3 noise ld cd rd ep",
    }[name]
    assert {symbol.name for symbol in space(name).symbols} == common | set(more.split())
