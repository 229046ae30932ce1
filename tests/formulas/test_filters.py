"""Tests that cost no training: known cosines, equal prints, and how many rules pass."""

import jax
import numpy as np
import pytest

from jaxnas.formulas import grow
from jaxnas.formulas.filters import known, screener, tried_mutation
from jaxnas.formulas.tape import Grammar, parse
from jaxnas.formulas.update_rules import BASELINES, space

pytestmark = pytest.mark.usefixtures("quick_compile")
ALL, CONV = space("everything"), space("conv-subset")
FULL = {"g": "g", "m1": "m1", "adam": "adam", "rmsprop": "rmsprop"} | {
    name: BASELINES[name] for name in ("PowerSign", "AddSign", "Adam", "Nesterov")
}
SIGNS = ("both signs", "g2", "g ** 2", "exp(g)", "ld", "2", "noise", "w1", "g2 * w1", "log(m2)")
EQUAL = [
    ("g + g", "2 * g"),
    ("sign(sign(g))", "sign(g)"),
    ("sign(g)", "sg"),
    ("g * m1", "m1 * g"),
    ("g - m1 * 2", "-(2 * m1) + g"),
    ("1 / 2 * g", "g / 2"),
    ("log(exp(m1))", "m1"),
]
APART = [
    ("g", "m1"),
    ("g", "gp"),
    ("g", "adam"),
    ("g", "2 * g"),
    ("sg", "sm1"),
    ("m1", "m1p"),
    ("m2", "m2p"),
    ("rd * g", "g"),
    ("cd * g", "ld * g"),
    ("rd * g", "cd * g"),
    ("w1", "g"),
    ("g3", "m3"),
    ("clip3(g)", "clip4(g)"),
    ("adam", "rmsprop"),
]
TEXTS = sorted({*FULL.values(), *SIGNS[1:], "sg", "-g", "g + g2", *sum([*EQUAL, *APART], ())})


@pytest.fixture(scope="module")
def screened():
    out = screener(ALL)(np.stack([parse(ALL, text) for text in TEXTS]))
    facts = zip(*(np.asarray(x) for x in (*out, out.good)), strict=True)
    return dict(zip(TEXTS, facts, strict=True))


@pytest.mark.parametrize("text", FULL.values(), ids=FULL)
def test_rules_along_the_gradient_have_cosine_one(screened, text):
    meaningful, cosine, _, good = screened[text]
    assert meaningful
    assert good
    assert cosine == pytest.approx(1, abs=0.02)


def test_the_sign_of_a_gaussian_has_its_known_cosine(screened):
    # E|x| / sqrt(E x^2) of a Gaussian, in 25 dimensions a little more.
    assert screened["sg"][1] == pytest.approx(0.81, abs=0.02)
    assert screened["sg"][3]


def test_going_uphill_fails_by_the_angle_alone(screened):
    meaningful, cosine, _, good = screened["-g"]
    assert meaningful
    assert cosine == pytest.approx(-1, abs=0.02)
    assert not good


@pytest.mark.parametrize("text", SIGNS[1:])
def test_what_has_one_sign_or_does_not_see_the_gradient_means_nothing(screened, text):
    assert not screened[text][0]
    assert not screened[text][3]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_equal_rules_have_one_print(screened, one, other):
    assert known(screened[one][2][None], screened[other][2]) == 0


@pytest.mark.parametrize(("one", "other"), APART)
def test_different_rules_have_different_prints(screened, one, other):
    assert known(screened[one][2][None], screened[other][2]) == -1


def differs(old, new):
    """Whether two prints differ, number by number."""
    gap = 0.0
    for a, b in zip(old, new, strict=True):
        if np.isfinite(a) and np.isfinite(b):
            gap += abs(float(a) - float(b))
        elif not (a == b or (np.isnan(a) and np.isnan(b))):
            return True
    return gap / 25 >= 1e-6 * (1 + np.abs(new[np.isfinite(new)]).mean())


def test_prints_are_looked_up_as_a_loop_over_numbers_would():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(30, 25)).astype(np.float32)
    for row in base[10:]:
        row[rng.integers(0, 25, 3)] = rng.choice([np.nan, np.inf, -np.inf], 3)
    found = 0
    for row in base:
        changed = [row, row + np.float32(1e-7), row + np.float32(1e-3), np.nan_to_num(row, nan=0.0)]
        for new in [*changed, np.where(np.isinf(row), -row, row)]:
            wanted = [n for n, old in enumerate(base) if not differs(old, new)]
            assert known(base, new) == (wanted[0] if wanted else -1)
            found += bool(wanted)
    assert 60 <= found <= 120
    nothing = np.full(25, np.nan, np.float32)
    assert known(nothing[None], nothing) == 0
    assert known(base[:0], base[0]) == -1


def lenient():
    """The space `gnn`, whose decays with a floor may stand wherever other leaves may."""
    grammar = space("gnn")
    free = Grammar("lenient", grammar.symbols, nodes=10)
    free.allowed[:] = grammar.allowed
    free.allowed[:, [grammar.token(name) for name in ("ldm", "cdm", "rdm")]] = True
    return free


@pytest.mark.parametrize(
    ("grammar", "constrained", "valid", "senseless", "uphill"),
    [
        (CONV, False, 23, 71, 6),
        (CONV, True, 27, 64, 9),
        (space("gnn"), False, 34, None, None),
        # The reference's 33 % come of constraints that do not name these decays; with ours it is 38.
        (lenient(), True, 33, None, None),
    ],
    ids=["conv-subset", "conv-subset constrained", "gnn", "gnn constrained"],
)
def test_rules_pass_and_repeat_as_often_as_in_the_reference(
    grammar, constrained, valid, senseless, uphill
):
    @jax.jit
    def draw(key):
        return grow.sample(key, grammar, 6000, constrained=constrained)

    out = screener(grammar)(draw(jax.random.key(0)))
    good, meaningful = np.asarray(out.good), np.asarray(out.meaningful)
    assert 100 * good.mean() == pytest.approx(valid, abs=3)
    if senseless:
        assert 100 * (~meaningful).mean() == pytest.approx(senseless, abs=3)
        assert 100 * (meaningful & ~good).mean() == pytest.approx(uphill, abs=3)
    prints = np.asarray(out.prints)[good]
    seen, count = np.empty_like(prints), 0
    for answer in prints:
        if known(seen[:count], answer) < 0:
            seen[count], count = answer, count + 1
    assert 64 <= 100 * (1 - count / len(prints)) <= 85


def test_a_tried_mutation_passes_where_a_plain_one_often_fails():
    start = np.tile(parse(CONV, "g + m1 * sign(g) - g2"), (64, 1))
    keys = jax.random.split(jax.random.key(0), 64)
    tried = tried_mutation(CONV)
    plain = jax.jit(jax.vmap(lambda key, tape: grow.mutate(key, CONV, tape, constrained=True)))
    screen = screener(CONV)
    better = np.asarray(jax.jit(jax.vmap(tried))(keys, start))
    good, before = (np.asarray(screen(t).good) for t in (better, plain(keys, start)))
    assert before.mean() < 0.7
    assert good.mean() > 0.9
    assert (better[good] != start[good]).any(1).all()
