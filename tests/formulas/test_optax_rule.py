"""Rules as optax transformations and as files walk where the training loop walks."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from reference import expressions as slow

from jaxnas.formulas.optax_rule import as_file, as_optax
from jaxnas.formulas.rules import one_rule
from jaxnas.formulas.tape import flat, parse, to_text
from jaxnas.formulas.update_rules import BASELINES, space

pytestmark = pytest.mark.usefixtures("quick_compile")
ALL = space("everything")
D, STEPS, RATE, DECAY = 5, 8, 0.0123456789, 0.01
RNG = np.random.default_rng(0)
TARGETS = jnp.asarray(RNG.normal(size=(STEPS, D)) + 2, jnp.float32)
W = jnp.asarray(RNG.normal(size=D), jnp.float32)
# Operands that keep values finite: of `pow`, a positive base.
OPERANDS = {"pow": [("g2",), ("w2",)], "exp": [("w2",)], "div": [("m1",), ("g2",)]}
FIXED = [symbol for symbol in ALL.symbols if symbol.name not in slow.RANDOM]
RULES = {
    symbol.name: (symbol.name, *OPERANDS.get(symbol.name, [("adam",), ("m1",)])[: symbol.arity])
    for symbol in FIXED
}
RULES |= {
    f"pow of {base}": ("pow", ("sqrt", ("clip0", (base,))), ("2",))
    for base in ("w2", "am1p", "adam")
}
RULES |= {
    f"{base} to a power": ("pow", (base,), ("2",)) for base in ("w2", "am1p", "rmsprop", "w1", "ld")
}
RULES |= {
    "a power of a square": ("pow", ("g2",), ("cd",)),
    "roots": ("neg", ("pow", ("1",), ("g",))),
}
TAPES = {name: flat(ALL, tree) for name, tree in RULES.items()}


def from_file(tape, **settings):
    names = {}
    exec(
        compile(as_file(ALL, tape, RATE, steps=STEPS, weight_decay=DECAY), "rule.py", "exec"), names
    )
    return names["optimizer"](**settings)


def gradient(w, target):
    return 2 * (w - target)


@pytest.fixture(scope="module")
def walks():
    """Weights after each step: by the loop of training, by optax, by the file."""
    rules = {name: one_rule(ALL, tape) for name, tape in TAPES.items()}
    loaded = {name: from_file(tape) for name, tape in TAPES.items()}
    made = {
        name: as_optax(ALL, tape, RATE, steps=STEPS, weight_decay=DECAY)
        for name, tape in TAPES.items()
    }

    def step(carry, at):
        t, target = at
        new = {}
        for name, (w, memory) in carry["loop"].items():
            raw = gradient(w, target)
            way = rules[name].step(memory, w, raw, raw + DECAY * w, t, float(STEPS), key)
            new[name] = (w - RATE * way[0], way[1])
        moved = {"loop": new}
        for kind, made in txs.items():
            moved[kind] = {}
            for name, (w, state) in carry[kind].items():
                update, state = made[name].update(gradient(w, target), state, w)
                moved[kind][name] = (optax.apply_updates(w, update), state)
        return moved, {kind: {n: w for n, (w, _) in each.items()} for kind, each in moved.items()}

    key, txs = jax.random.key(0), {"optax": made, "file": loaded}
    start = {"loop": {name: (W, rule.start(W)) for name, rule in rules.items()}}
    start |= {kind: {n: (W, tx.init(W)) for n, tx in each.items()} for kind, each in txs.items()}
    times = jnp.arange(1, STEPS + 1, dtype=jnp.float32)
    return jax.device_get(jax.jit(lambda: jax.lax.scan(step, start, (times, TARGETS)))()[1])


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", ["optax", "file"])
def test_the_exported_rule_walks_as_the_searched_one(walks, kind, name):
    wanted = walks["loop"][name]
    assert np.isfinite(wanted).all()
    far = max(1.0, np.abs(wanted).max())
    np.testing.assert_allclose(walks[kind][name], wanted, rtol=1e-6, atol=1e-6 * far)


def test_expression_optax_and_expression_again_keep_the_walk(walks):
    for name, tape in TAPES.items():
        again = parse(ALL, to_text(ALL, tape))
        np.testing.assert_array_equal(again, tape, err_msg=name)
        said = as_file(ALL, tape, RATE, steps=STEPS).splitlines()[0]
        text = said.split("learning_rate * ")[1][1:-1]
        np.testing.assert_array_equal(parse(ALL, text), tape)


@pytest.mark.parametrize("text", BASELINES.values(), ids=BASELINES)
def test_hand_made_rules_run_on_trees_of_parameters(text):
    tape = parse(ALL, text)
    params = {"a": jnp.ones((2, 3)), "b": [jnp.float32(0.5), jnp.ones(1)]}
    loaded = from_file(tape)
    for tx in (as_optax(ALL, tape, RATE, steps=STEPS, weight_decay=DECAY), loaded):
        state = tx.init(params)
        grads = jax.tree.map(lambda w: w + 1, params)
        update, state = tx.update(grads, state, params)
        assert jax.tree.map(jnp.shape, update) == jax.tree.map(jnp.shape, params)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(update))
        assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))


@pytest.mark.parametrize("make", ["optax", "file"])
def test_random_symbols_draw_anew_at_each_step_and_by_the_seed(make):
    tree = ("add", ("drop5", ("noise",)), ("mul", ("ep",), ("drop1", ("g",))))
    tape, w = flat(ALL, tree), jnp.zeros(200)

    def walk(seed):
        tx = as_optax(ALL, tape, 1.0, steps=9, seed=seed) if make == "optax" else from_file(
            tape, learning_rate=1.0, seed=seed
        )  # fmt: skip
        state = tx.init(w)
        first, state = tx.update(w + 1, state, w)
        second, _ = tx.update(w + 1, state, w)
        return np.asarray(first), np.asarray(second)

    (a, b), (again, _), (other, _) = walk(0), walk(0), walk(1)
    np.testing.assert_array_equal(a, again)
    assert (a != b).mean() > 0.5
    assert (a != other).mean() > 0.5


@pytest.mark.parametrize("make", ["optax", "file"])
def test_a_network_of_several_arrays_draws_the_numbers_that_it_draws_in_training(make):
    grammar, seed, names = space("everything", 20), 5, {}
    tape = parse(grammar, "drop5(noise + w1) * ep + drop1(g) * cd + noise * m1 ** 2")
    params = {"a": jnp.ones((2, 3)), "b": [jnp.float32(0.5), jnp.arange(4.0)]}
    if make == "optax":
        tx = as_optax(grammar, tape, 0.1, steps=4, seed=seed)
    else:
        exec(as_file(grammar, tape, 0.1, steps=4), names)
        tx = names["optimizer"](seed=seed)
    (w, back), rule = ravel_pytree(params), one_rule(grammar, tape)
    memory, state = rule.start(w), tx.init(params)
    for t in range(1, 5):
        g, now = jnp.sin(w + t), jax.random.fold_in(jax.random.key(seed), t)
        direction, memory = rule.step(memory, w, g, g, jnp.float32(t), 4.0, now)
        update, state = tx.update(back(g), state, back(w))
        np.testing.assert_allclose(ravel_pytree(update)[0], -0.1 * direction, rtol=1e-6, atol=1e-6)
        w = w - 0.1 * direction
    assert np.unique(np.asarray(direction)).size > 8


def test_decays_stay_at_their_end_after_the_last_step():
    tape = parse(ALL, "ld * g")
    for tx in (as_optax(ALL, tape, 1.0, steps=2), from_file(tape, learning_rate=1.0, steps=2)):
        state, seen = tx.init(jnp.ones(1)), []
        for _ in range(4):
            update, state = tx.update(jnp.ones(1), state, jnp.zeros(1))
            seen.append(float(update[0]))
        assert seen == [-0.5, 0, 0, 0]


def test_weights_must_be_given():
    tx = as_optax(ALL, TAPES["g"], 0.1, steps=3)
    with pytest.raises(ValueError, match="`params` must be given"):
        tx.update(W, tx.init(W))


def test_the_file_keeps_every_digit_of_its_settings():
    text = as_file(ALL, TAPES["g"], RATE, steps=1_234_567, weight_decay=1.23456789e-5)
    for shown in (repr(RATE), "1234567", "1.23456789e-05"):
        assert shown in text


def test_a_rule_of_many_random_symbols_still_has_draws_for_all():
    wide = space("everything", 40)
    tree = ("noise",)
    for _ in range(15):
        tree = ("add", tree, ("noise",))
    names = {}
    exec(as_file(wide, flat(wide, tree), 0.1, steps=2), names)
    tx = names["optimizer"]()
    update, _ = tx.update(W, tx.init(W), W)
    assert np.isfinite(update).all()


def test_the_file_needs_jax_and_optax_alone(tmp_path):
    tape = parse(ALL, "ld * (sm1 - rmsprop) + drop1(w2) * rd")
    (tmp_path / "rule.py").write_text(as_file(ALL, tape, RATE, steps=STEPS))
    (tmp_path / "main.py").write_text(
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'jaxnas':\n"
        "            raise ImportError('jaxnas is refused')\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "import jax, jax.numpy as jnp, optax, rule\n"
        "tx = optax.chain(optax.clip_by_global_norm(1.0), rule.optimizer(0.1, steps=50))\n"
        "w = {'w': jnp.array([3.0, -2.0])}\n"
        "state = tx.init(w)\n"
        "step = jax.jit(lambda w, s: tx.update(w, s, w))\n"
        "for _ in range(50):\n"
        "    update, state = step(w, state)\n"
        "    w = optax.apply_updates(w, update)\n"
        "assert float(jnp.abs(w['w']).sum()) < 4.0, w\n"
        "try:\n"
        "    import jaxnas\n"
        "except ImportError:\n"
        "    print('alone')\n"
    )
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout == "alone\n", done.stderr
