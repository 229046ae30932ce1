"""Canonical forms of thousands of random expressions, compared by value."""

import numpy as np
import pytest
from reference import expressions as slow

from jaxnas.formulas.rewrite import canonical
from jaxnas.formulas.tape import flat, nested, parse, to_text
from jaxnas.formulas.update_rules import space

ALL = space("everything")


def short(text, grammar=ALL):
    return to_text(grammar, canonical(grammar, parse(grammar, text)))


@pytest.fixture(scope="module")
def leaves():
    rng = np.random.default_rng(0)
    raws = [rng.normal(size=20) for _ in range(3)]
    w = rng.normal(size=20)
    return slow.leaves(w, raws, [raw + 0.1 * w for raw in raws], 10)


@pytest.mark.parametrize("name", ["conv-subset", "gnn", "everything"])
def test_the_short_form_is_stable_never_longer_and_worth_the_same(name, leaves):
    grammar, rng = space(name), np.random.default_rng(3)
    compared = changed = 0
    for _ in range(800):
        tree = slow.random_tree(rng, grammar.symbols, 10)
        tape = flat(grammar, tree)
        once = canonical(grammar, tape)
        shorter = nested(grammar, once)
        np.testing.assert_array_equal(canonical(grammar, once), once)
        assert slow.count(shorter) <= slow.count(tree)
        if slow.RANDOM & set(slow.names(tree)):
            continue
        before, fine = slow.value(tree, leaves)
        if fine:
            after, _ = slow.value(shorter, leaves)
            np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-12, err_msg=str(tree))
            compared, changed = compared + 1, changed + (shorter != tree)
    assert compared > 150
    assert changed > 20


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("-(-g)", "g"),
        ("log(exp(m1))", "m1"),
        ("sign(sign(m2))", "sign(m2)"),
        ("sign(-g)", "-sg"),
        ("g + g", "2 * g"),
        ("m1 + g", "g + m1"),
        ("g + m1", "g + m1"),
        ("g * (g * g)", "g3"),
        ("g / g", "g / g"),
        ("g - -m1", "g + m1"),
        ("-(g - m1)", "m1 - g"),
        ("g - m1", "g - m1"),
        ("1 * g ** 1", "g"),
        ("clip3(clip3(g))", "clip3(g)"),
        ("clip3(clip4(g))", "clip3(clip4(g))"),
        ("noise + noise", "noise + noise"),
        ("drop1(g) + drop1(g)", "drop1(g) + drop1(g)"),
        ("drop1(g) * drop1(g)", "drop1(g) * drop1(g)"),
        ("sqrt(-g) + log(-g)", "log(g) + sqrt(g)"),
    ],
)
def test_short_forms_that_one_would_write_by_hand(text, wanted):
    assert short(text) == wanted


def test_a_rule_whose_result_the_grammar_lacks_is_left_out():
    assert short("g * (g * g)", space("conv-subset")) in ("g * g2", "g2 * g")
