"""Random expressions against an exact walk through the super-tree and plain recursion."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import expressions as slow

from jaxnas.formulas import grow
from jaxnas.formulas.tape import END, HOLE, Grammar, Symbol, flat
from jaxnas.formulas.update_rules import space

pytestmark = pytest.mark.usefixtures("quick_compile")
GNN = space("gnn")
TOY_ROOTS, TOY_BELOW = ("neg", "x"), {"neg": ("neg", "y"), "add": ("x",)}


def toy(nodes, arities=(("add", 2), ("neg", 1), ("x", 0), ("y", 0))):
    symbols = [Symbol(name, arity, lambda s, row: s, name) for name, arity in arities]
    return Grammar("toy", symbols, nodes=nodes, roots=TOY_ROOTS, below=TOY_BELOW)


def sampled(grammar, n, constrained, key=0):
    draw = jax.jit(lambda key: grow.sample(key, grammar, n, constrained=constrained))
    return np.asarray(draw(jax.random.key(key)))


def rules(grammar):
    """Roots and neighbours that are forbidden, read off the grammar's table by name."""
    known = [symbol.name for symbol in grammar.symbols]
    rows = dict(zip([*known, None], grammar.allowed, strict=True))
    return {p: {n for n, may in zip(known, row, strict=True) if not may} for p, row in rows.items()}


@pytest.mark.parametrize("constrained", [False, True])
def test_expressions_are_drawn_as_often_as_a_walk_through_the_super_tree_says(constrained):
    grammar, n = toy(3), 20_000
    forbidden = (TOY_ROOTS, TOY_BELOW) if constrained else ((), None)
    wanted = slow.odds(grammar.symbols, 3, *forbidden)
    assert sum(wanted.values()) == pytest.approx(1)
    drawn = Counter(slow.decoded(grammar.symbols, t) for t in sampled(grammar, n, constrained))
    assert set(drawn) == set(wanted)  # tight: each is reached, and nothing else
    chi = sum((drawn[tree] - n * p) ** 2 / (n * p) for tree, p in wanted.items())
    df = len(wanted) - 1
    assert chi < df + 4 * np.sqrt(2 * df)


def test_every_expression_of_three_nodes_is_in_the_super_tree_and_none_is_there_twice():
    wanted = slow.odds(toy(3).symbols, 3)
    leaves = [("x",), ("y",)]
    twos = [("neg", leaf) for leaf in leaves]
    threes = [("neg", two) for two in twos] + [("add", a, b) for a in leaves for b in leaves]
    assert set(wanted) == {*leaves, *twos, *threes}


@pytest.fixture(scope="module")
def gnn():
    return {c: sampled(GNN, 3000, c) for c in (False, True)}


@pytest.mark.parametrize("constrained", [False, True])
def test_samples_are_whole_expressions_within_the_tape(gnn, constrained):
    sizes = {slow.count(slow.decoded(GNN.symbols, tape)) for tape in gnn[constrained]}
    assert sizes == set(range(1, 11))


def test_root_symbols_are_drawn_in_proportion_to_the_holes_they_open(gnn):
    costs = np.array([max(symbol.arity, 1) for symbol in GNN.symbols])
    wanted = 3000 * costs / costs.sum()
    chi = ((np.bincount(gnn[False][:, 0], minlength=len(costs)) - wanted) ** 2 / wanted).sum()
    df = len(costs) - 1
    assert chi < df + 4 * np.sqrt(2 * df)


def test_constraints_hold_for_every_neighbour_of_constrained_samples_alone(gnn):
    forbidden = rules(GNN)
    broken = {
        c: sum(
            name in forbidden[parent]
            for tape in tapes
            for parent, name in slow.parents(slow.decoded(GNN.symbols, tape))
        )
        for c, tapes in gnn.items()
    }
    assert broken[True] == 0
    assert broken[False] > 1000


def test_the_constraints_are_those_of_the_paper():
    everything = space("everything")
    forbidden = rules(everything)
    clips, signs = {"clip5", "clip4", "clip3", "clip0"}, {"sg", "sm1", "sm1p"}
    decays = {"ld", "cd", "rd", "ldm", "cdm", "rdm", "ep"}
    drops = {"drop1", "drop3", "drop5"}
    weights = {"w1", "w2", "w3", "w4"}
    moments = {"g", "m1", "m1p", "g3", "m3", "m3p", "am3p"}
    assert forbidden.pop(None) == (
        {"pow", "neg", "exp", "sqrt", "1", "2", "noise"} | clips | decays | weights | moments
    )
    wanted = {"neg": {"neg"}, "log": {"exp"}, "sqrt": {"sign", "1"} | signs}
    wanted |= {"sign": decays | {"1", "2", "sign"} | clips | signs}
    wanted |= dict.fromkeys(drops, drops)
    wanted |= dict.fromkeys(clips, clips | decays | {"neg", "1", "2"})
    assert {parent: names for parent, names in forbidden.items() if names} == wanted


@pytest.mark.parametrize("constrained", [False, True])
def test_weights_of_a_partial_expression_are_the_costs_of_its_children(constrained):
    forbidden = rules(GNN)
    token = GNN.token
    add, neg, sign, g = map(token, ("add", "neg", "sign", "g"))
    for partial, nodes in [
        ([HOLE], None),
        ([add, HOLE, HOLE], None),
        ([add, neg, HOLE, sign, HOLE], None),
        ([add, neg, HOLE, sign, HOLE], 5),
        ([add, add, add, HOLE, g, neg, HOLE, neg, neg, HOLE], None),
        ([add, add, g, g, neg, g], None),
    ]:
        tape = jnp.array(partial + [END] * (10 - len(partial)), jnp.int32)
        found = np.asarray(grow.weights(GNN, tape, nodes=nodes, constrained=constrained))
        over = [parent for parent, _ in slow.parents(slow.decoded(GNN.symbols, tape))]
        for row in range(10):
            for k, symbol in enumerate(GNN.symbols):
                fits = len(partial) + symbol.arity <= (nodes or 10)
                hole = row < len(partial) and partial[row] == HOLE
                may = hole and not (constrained and symbol.name in forbidden[over[row]])
                wanted = max(len(partial) - 1 + symbol.arity, 1) if fits and may else 0
                assert found[row, k] == wanted


def test_ends_and_parents_are_those_of_the_tree(gnn):
    tapes = gnn[False][:400]
    ends = np.asarray(jax.jit(jax.vmap(lambda t: grow.ends(GNN, t)))(tapes))
    above = np.asarray(jax.jit(jax.vmap(lambda t: grow.above(GNN, t)))(tapes))
    for tape, end, over in zip(tapes, ends, above, strict=True):
        tree = slow.decoded(GNN.symbols, tape)
        n = slow.count(tree)
        assert end[:n].tolist() == slow.ends(tree)
        assert (end[n:] >= 10).all()
        names = [None if k < 0 else GNN.symbols[k].name for k in over]
        assert names == [parent for parent, _ in slow.parents(tree)] + [None] * (10 - n)


def test_ends_and_parents_see_holes_as_leaves():
    tape = jnp.array([0, HOLE, GNN.token("neg"), HOLE, *[END] * 6], jnp.int32)
    assert grow.ends(GNN, tape).tolist()[:4] == [4, 2, 4, 4]
    assert grow.above(GNN, tape).tolist() == [-1, 0, 0, GNN.token("neg"), *[-1] * 6]


def test_filling_a_hole_is_replacing_it_in_the_tree():
    tape = jnp.array([0, HOLE, GNN.token("neg"), HOLE, *[END] * 6], jnp.int32)
    tree = slow.decoded(GNN.symbols, tape)
    for row in (1, 3):
        for k, symbol in enumerate(GNN.symbols):
            new = slow.decoded(GNN.symbols, np.asarray(grow.fill(GNN, tape, row, k)))
            holes = [("_",)] * symbol.arity
            assert new == slow.replaced(tree, row, (symbol.name, *holes))


@pytest.fixture(scope="module")
def mutants(gnn):
    def both(key, tape):
        return [grow.mutate(key, GNN, tape, constrained=c) for c in (False, True)]

    keys = jax.random.split(jax.random.key(1), 1000)
    return np.asarray(jax.jit(jax.vmap(both))(keys, gnn[True][:1000]))


def test_a_mutant_differs_in_one_subtree_or_one_symbol(gnn, mutants):
    same = smaller = larger = 0
    for tape, new in zip(gnn[True], mutants[0], strict=False):
        old_tree, new_tree = (slow.decoded(GNN.symbols, t) for t in (tape, new))
        old, new = ([int(k) for k in t if k != END] for t in (tape, new))
        close = len(old) == len(new) and sum(a != b for a, b in zip(old, new, strict=True)) <= 1
        new_ends = slow.ends(new_tree)
        regrown = any(
            old[:row] == new[:row] and row < len(new) and old[end:] == new[new_ends[row] :]
            for row, end in enumerate(slow.ends(old_tree))
        )
        assert close or regrown
        same += old == new
        smaller, larger = smaller + (len(new) < len(old)), larger + (len(new) > len(old))
    assert same < 300
    assert min(smaller, larger) > 50


def test_constrained_mutants_of_what_keeps_the_constraints_keep_them(gnn, mutants):
    forbidden, broken = rules(GNN), [0, 0]
    for c in (0, 1):
        for new in mutants[c]:
            pairs = slow.parents(slow.decoded(GNN.symbols, new))
            broken[c] += any(name in forbidden[parent] for parent, name in pairs)
    assert broken[1] == 0
    assert broken[0] > 50


def test_a_constrained_mutant_may_still_be_any_symbol_that_fits_between_its_neighbours():
    tape = jnp.asarray(flat(GNN, ("sign", ("exp", ("g2",)))))
    keys = jax.random.split(jax.random.key(3), 600)
    new = jax.vmap(lambda key: grow.mutate(key, GNN, tape, constrained=True))(keys)
    seen = {slow.decoded(GNN.symbols, one) for one in np.asarray(new)}
    roots = {tree[0] for tree in seen if tree[1:] == (("exp", ("g2",)),)}
    assert roots == {"sign", "drop1"}  # no log above exp; the others are no roots


def test_an_expression_that_is_whole_is_left_as_it_is():
    tape = flat(GNN, ("add", ("g",), ("m1",)))
    done = grow.complete(jax.random.key(0), GNN, jnp.asarray(tape))
    np.testing.assert_array_equal(done, tape)
