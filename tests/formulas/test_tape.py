"""Tapes, text and LaTeX against plain recursion over trees and Python's own reading of the text."""

import re

import numpy as np
import pytest
from matplotlib.mathtext import MathTextParser
from reference import expressions as slow

from jaxnas.formulas.tape import (
    END,
    HOLE,
    Grammar,
    Symbol,
    depth,
    flat,
    nested,
    parse,
    size,
    to_latex,
    to_text,
    translated,
)
from jaxnas.formulas.update_rules import BASELINES, space

SPACES = ("conv-subset", "conv", "gnn", "adversarial", "everything")
GNN, ALL = space("gnn"), space("everything")
X, Y = (Symbol(name, 0, lambda s, row: s, name) for name in "xy")


def trees(grammar, n, seed=0, without=()):
    rng = np.random.default_rng(seed)
    draw = lambda: slow.random_tree(rng, grammar.symbols, grammar.nodes, without)  # noqa: E731
    return [draw() for _ in range(n)]


@pytest.mark.parametrize("name", SPACES)
def test_thousands_of_expressions_survive_tape_and_text(name):
    grammar = space(name)
    for tree in trees(grammar, 1000):
        tape = flat(grammar, tree)
        assert nested(grammar, tape) == tree == slow.decoded(grammar.symbols, tape)
        assert size(tape) == slow.count(tree)
        np.testing.assert_array_equal(parse(grammar, to_text(grammar, tape)), tape)


def test_python_computes_from_the_text_what_the_tree_means():
    grammar, rng = space("conv-subset"), np.random.default_rng(1)
    values = {s.name: rng.normal(size=9) for s in grammar.symbols if s.arity == 0}
    values |= {"1": np.ones(9), "2": np.full(9, 2.0)}
    known = values | slow.OPERATORS
    compared = 0
    for tree in trees(grammar, 2000, without=("drop1", "div")):
        wanted, fine = slow.value(tree, values)
        if fine:
            text = to_text(grammar, flat(grammar, tree))
            np.testing.assert_allclose(eval(text, {}, known) * np.ones(9), wanted, rtol=1e-12)
            compared += 1
    assert compared > 1000


def test_upper_case_and_calls_are_read_as_well():
    tapes = [parse(GNN, text) for text in ("m1 + g * 2", "Add(M1, Mul(G, 2))", " add(m1,g*2.0) ")]
    np.testing.assert_array_equal(tapes[0], tapes[1])
    np.testing.assert_array_equal(tapes[0], tapes[2])
    assert nested(GNN, tapes[0]) == ("add", ("m1",), ("mul", ("g",), ("2",)))


def test_operators_bind_as_in_python():
    assert nested(GNN, parse(GNN, "-g ** 2")) == ("neg", ("pow", ("g",), ("2",)))
    assert to_text(GNN, flat(GNN, ("pow", ("neg", ("g",)), ("2",)))) == "(-g) ** 2"
    assert to_text(GNN, flat(GNN, ("sub", ("g",), ("sub", ("m1",), ("1",))))) == "g - (m1 - 1)"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("m1 + sine(g)", ("position 6", "'sine'", "'sign'")),
        ("m1 + rmsprob * g", ("position 6", "'rmsprob'", "'rmsprop'")),
        ("exp(g, g)", ("position 1", "exp takes 1 operands, not 2")),
        ("exp", ("exp takes 1 operands, not 0",)),
        ("g(g)", ("g takes 0 operands, not 1",)),
        ("g + 3", ("position 5", "'3'")),
        ("g + 2.0000001", ("position 5", "'2.0000001'")),
        ("g +", ("position",)),
        ("", ("no expression",)),
        ("_ + g", ("'_'",)),
        ("g + " * 9 + "g", ("19 nodes", "hold 10")),
        ("g % 2", ("position 1",)),
        ("+g", ("position 1",)),
        ("g < 1", ("position 1",)),
        ("exp(*g)", ("position 5",)),
        ("exp(x=g)", ("position 1",)),
        ("g if g else g", ("position 1",)),
        ("True", ("'True'",)),
        ("1j", ("'1j'",)),
        ("1e999", ("position 1",)),
        ("  m1 + sine(g)", ("position 8", "'sine'")),
        ("  g +", ("position",)),
        ("\uff47 + sine(g)", ("position 5", "'sine'")),  # a wide g, of three bytes
        ("(m1 +\n sine(g))", ("position 8", "'sine'")),
        (" (m1 +\n g +)", ("position 12",)),
    ],
)
def test_what_is_no_expression_is_refused_with_its_place(text, words):
    with pytest.raises(ValueError, match=re.escape(repr(text))) as error:
        parse(GNN, text)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    "text",
    [
        '__import__("os").system("touch hit")',
        '[c for c in ().__class__.__base__.__subclasses__()]',
        "g.__class__",
        "(lambda: g)()",
        "lambda: g",
        "(g := 1)",
        "exec('open(\"hit\", \"w\")')",
        "open('hit', 'w')",
        "f'{open(\"hit\", \"w\")}'",
        "g; import os",
        "import os",
        "await g",
        "g\n+ g",
        "\0",
        "g\0",
        "\ud800",
        "9" * 400,
        "9" * 5000,
        "0x" + "f" * 1000,
        "g ** " + "9" * 400,
        "-" * 900 + "g",
        "g" + " ** g" * 190,
        "(" * 1000 + "g" + ")" * 1000,
        "exp(" * 2000 + "g" + ")" * 2000,
        "-" * 10**5 + "g",
        "g" + " + g" * 50_000,
        "g" + " ** g" * 20_000,
        "g" * 10**5,
        "[" * 10**5,
    ],
    ids=lambda text: ascii(text[:24]),
)  # fmt: skip
def test_hostile_text_is_refused_and_executes_nothing(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"no expression|cannot be read") as error:
        parse(GNN, text)
    assert not any(tmp_path.iterdir())
    assert len(str(error.value)) < 2100


def test_a_partly_written_expression_shows_its_holes():
    tape = np.array([GNN.token("add"), HOLE, GNN.token("exp"), HOLE, *[END] * 6], np.int32)
    assert to_text(GNN, tape) == "_ + exp(_)"
    assert to_text(GNN, np.full(10, END, np.int32)) == ""


@pytest.mark.parametrize("bad", [[0], [0, 1], [17, 17], [99], [0, END, 17, 17], [END, 17]])
def test_tapes_that_are_not_one_expression_are_refused(bad):
    with pytest.raises(ValueError, match="no expression of gnn"):
        nested(GNN, np.array(bad + [END] * (10 - len(bad)), np.int32))


def test_depth_counts_the_longest_way():
    assert [depth(nested(GNN, parse(GNN, text))) for text in ("g", "exp(g)", "g + exp(-m1)")] == [
        1,
        2,
        4,
    ]


def test_a_grammar_must_hold_a_leaf_and_know_what_its_rules_name():
    neg = Symbol("neg", 1, lambda s, row, a: -a, "-{}")
    with pytest.raises(ValueError, match="no leaf"):
        Grammar("toy", [neg], nodes=3)
    with pytest.raises(ValueError, match="twice"):
        Grammar("toy", [X, X], nodes=3)
    with pytest.raises(ValueError, match="`nodes` must be at least 1, but got 0"):
        Grammar("toy", [X], nodes=0)
    with pytest.raises(ValueError, match="nearest is 'x'"):
        Grammar("toy", [X, neg], nodes=3, roots=["xx"])
    with pytest.raises(ValueError, match="`roots` of 'toy' forbid all that fit"):
        Grammar("toy", [X, neg], nodes=1, roots=["x"])  # no room for an operator
    Grammar("toy", [X, neg], nodes=2, roots=["x"])
    with pytest.raises(ValueError, match="`below` of 'toy' forbids every leaf below 'neg'"):
        Grammar("toy", [X, Y, neg], nodes=3, below={"neg": ["x", "y"]})
    with pytest.raises(ValueError, match="`name` must be one of conv-subset"):
        space("cnn")


@pytest.mark.parametrize("name", SPACES)
def test_tapes_mean_the_same_in_the_grammar_of_all_symbols(name):
    grammar = space(name, 8)
    ours = trees(grammar, 50)
    tapes = np.stack([flat(grammar, tree) for tree in ours])
    moved = np.asarray(translated(grammar, ALL, tapes))
    assert moved.shape == (50, 10)
    assert [nested(ALL, tape) for tape in moved] == ours


def drawn(latex):
    return MathTextParser("path").parse(f"${latex}$")


@pytest.mark.parametrize("symbol", ALL.symbols, ids=lambda s: s.name)
def test_the_latex_of_every_symbol_can_be_set_and_shows_its_operands(symbol):
    tree = (symbol.name, *[("m1",), ("adam",)][: symbol.arity])
    latex = to_latex(ALL, flat(ALL, tree))
    drawn(latex)
    shown = ["m_1", r"\mathrm{Adam}"]
    assert all(latex.count(part) == 1 for part in shown[: symbol.arity])


def test_the_latex_of_random_expressions_can_be_set():
    for tree in trees(ALL, 60):
        drawn(to_latex(ALL, flat(ALL, tree)))


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("(g + 1) * m1", r"\left(g + 1\right) \cdot m_1"),
        ("g - (m1 - 1)", r"g - \left(m_1 - 1\right)"),
        ("(g - m1) - 1", r"g - m_1 - 1"),
        ("(-g) ** 2", r"{\left(-g\right)}^{2}"),
        ("-(-g)", r"-\left(-g\right)"),
        ("-g ** 2", r"-{g}^{2}"),
        ("g2 ** 2", r"{\left(g^2\right)}^{2}"),
        ("(g / m1) ** 2", r"{\left(\frac{g}{m_1}\right)}^{2}"),
        ("log(g) ** 2", r"{\left(\ln|g|\right)}^{2}"),
        ("g ** (m1 + 1)", r"{g}^{m_1 + 1}"),
        ("(g + 1) / 2", r"\frac{g + 1}{2}"),
        ("exp(log(g) * 2)", r"e^{\ln|g| \cdot 2}"),
        ("2 * (g / m1)", r"2 \cdot \frac{g}{m_1}"),
    ],
)
def test_parentheses_stand_in_latex_where_they_must(text, latex):
    assert to_latex(ALL, parse(ALL, text)) == latex


@pytest.mark.parametrize("name", BASELINES)
def test_hand_made_rules_can_be_read(name):
    tape = parse(ALL, BASELINES[name])
    np.testing.assert_array_equal(parse(ALL, to_text(ALL, tape)), tape)
