"""Variation on tapes against recursion on nested trees."""

import jax
import numpy as np
import pytest
from reference import trees as slow

from jaxnas.formulas import trees
from jaxnas.formulas.grow import sample
from jaxnas.formulas.recurrent import baseline, nodes
from jaxnas.formulas.tape import depth, flat, nested, parse, size, to_text

GRAMMAR = nodes(20)
TAPES = np.asarray(sample(jax.random.key(0), GRAMMAR, 24))
SMALL = [
    parse(GRAMMAR, text) for text in ("h", "x", "tanh(xh)", "c0 + relu(hh)", "blend(h, x, xh)")
]
PAIRS = [(TAPES[i], TAPES[(7 * i + 3) % 24]) for i in range(24)]
PAIRS += [(a, b) for a in SMALL for b in SMALL]


def tree(tape):
    return nested(GRAMMAR, tape)


def test_the_samples_differ_in_size_and_hold_every_arity():
    assert len({size(tape) for tape in TAPES}) > 3
    assert {int(GRAMMAR.arity[token]) for tape in TAPES for token in tape if token >= 0} == {
        0,
        1,
        2,
        3,
    }


def test_levels_and_ends_are_those_of_the_tree():
    for tape in [*TAPES, *SMALL]:
        assert max(trees.depths(GRAMMAR, tape)) == depth(tree(tape)) == slow.levels(tree(tape))
        for row, end in enumerate(trees.ends(GRAMMAR, tape)):
            part = np.full_like(tape, -1)
            part[: end - row] = tape[row:end]
            assert slow.count(tree(part)) == end - row


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_distance_is_that_of_the_recursion(beta):
    for a, b in PAIRS:
        ours = trees.distance(GRAMMAR, a, b, beta=beta)
        assert ours == pytest.approx(slow.distance(tree(a), tree(b), beta), abs=1e-12)
        assert ours == pytest.approx(trees.distance(GRAMMAR, b, a, beta=beta), abs=1e-12)
        assert 0 <= ours <= 1
    assert trees.distance(GRAMMAR, TAPES[0], TAPES[0]) == 0


def test_trees_whose_roots_differ_in_arity_are_as_far_apart_as_can_be():
    lstm, rnn = baseline(GRAMMAR, "LSTM"), baseline(GRAMMAR, "RNN")
    assert trees.distance(GRAMMAR, lstm, rnn) == 1
    relu = parse(GRAMMAR, "relu(h)")
    assert trees.distance(GRAMMAR, relu, rnn) == 0, "the shape counts, not the symbols"


def test_homologous_crossover_gives_the_children_of_the_recursion_and_all_of_them():
    rng = np.random.default_rng(0)
    for a, b in PAIRS[::3]:
        wanted = {
            pair
            for pair in slow.crossings(tree(a), tree(b))
            if max(map(slow.count, pair)) <= GRAMMAR.nodes
        }
        drawn = [trees.homologous(rng, GRAMMAR, a, b) for _ in range(40)]
        seen = {(tree(one), tree(two)) for one, two in drawn}
        assert seen <= wanted | {(tree(a), tree(b))}
        if len(wanted) <= 4:
            assert wanted <= seen


def test_crossing_a_tree_with_itself_changes_nothing():
    rng = np.random.default_rng(1)
    for tape in TAPES:
        for child in trees.homologous(rng, GRAMMAR, tape, tape):
            np.testing.assert_array_equal(child, tape)


def test_replacing_keeps_the_shape_and_changes_one_symbol():
    rng = np.random.default_rng(2)
    for tape in TAPES:
        child = trees.replace(rng, GRAMMAR, tape)
        nested(GRAMMAR, child)
        assert trees.distance(GRAMMAR, tape, child) == 0
        if (tape != child).any():  # `blend` has no other symbol of its arity
            assert (tape != child).sum() == 1


def test_inserting_puts_one_operator_above_a_branch_with_leaves_beside_it():
    rng, grown = np.random.default_rng(3), 0
    for tape in [*SMALL, *TAPES]:
        child = trees.insert(rng, GRAMMAR, tape)
        if size(child) == size(tape):
            np.testing.assert_array_equal(child, tape)
            continue
        grown += 1
        whole, lifted = tree(child), []
        for path in _paths(whole):
            operands = slow.subtree(whole, path)[1:]
            for k, operand in enumerate(operands):
                if all(len(other) == 1 for other in operands[:k] + operands[k + 1 :]):
                    lifted.append(slow.planted(whole, path, operand))
        assert tree(tape) in lifted, f"{to_text(GRAMMAR, tape)} is not in {to_text(GRAMMAR, child)}"
    assert grown > 10


def _paths(tree):
    return slow.common(tree, tree)


def test_shrinking_leaves_a_leaf_in_the_place_of_a_branch():
    rng = np.random.default_rng(4)
    for tape in TAPES:
        child = trees.shrink(rng, GRAMMAR, tape)
        if size(tape) == 1:
            assert size(child) == 1
            continue
        assert size(child) < size(tape)
        paths = slow.common(tree(tape), tree(child))
        cut = [
            p
            for p in paths
            if len(slow.subtree(tree(tape), p)) != len(slow.subtree(tree(child), p))
        ]
        assert len(cut) == 1
        assert len(slow.subtree(tree(child), cut[0])) == 1


def test_what_does_not_fit_comes_back_as_it_was():
    full = flat(GRAMMAR, _tower(GRAMMAR.nodes))
    rng = np.random.default_rng(5)
    for _ in range(10):
        np.testing.assert_array_equal(trees.insert(rng, GRAMMAR, full), full)


def _tower(nodes):
    return ("h",) if nodes == 1 else ("tanh", _tower(nodes - 1))
