"""Expressions and update rules by recursion and numpy, to check tapes against."""

import itertools

import numpy as np

END, HOLE = -1, -2
OPERATORS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / (b + 1e-8),
    "pow": np.power,
    "neg": lambda a: -a,
    "exp": np.exp,
    "log": lambda a: np.log(np.abs(a)),
    "sqrt": lambda a: np.sqrt(np.abs(a)),
    "sign": np.sign,
    "clip5": lambda a: np.minimum(np.maximum(a, -1e-5), 1e-5),
    "clip4": lambda a: np.minimum(np.maximum(a, -1e-4), 1e-4),
    "clip3": lambda a: np.minimum(np.maximum(a, -1e-3), 1e-3),
    "clip0": lambda a: np.minimum(np.maximum(a, -1.0), 1.0),
}
RANDOM = {"drop1", "drop3", "drop5", "noise", "ep"}


def decoded(symbols, tape):
    """A tape as `(name, operand, ...)`; anything but one whole expression fails."""
    todo = [int(token) for token in tape if token != END]
    assert todo == [int(token) for token in tape[: len(todo)]], "END stands before a symbol"

    def read():
        token = todo.pop(0)
        if token == HOLE:
            return ("_",)
        return (symbols[token].name, *(read() for _ in range(symbols[token].arity)))

    tree = read()
    assert not todo
    return tree


def random_tree(rng, symbols, nodes, without=()):
    """Grown from the root by halving the nodes that are left; sizes from 1 to `nodes`."""
    usable = [symbol for symbol in symbols if symbol.name not in without]
    fitting = [symbol for symbol in usable if symbol.arity < nodes]
    symbol = fitting[rng.integers(len(fitting))]
    left, operands = nodes - 1, []
    for n in range(symbol.arity):
        room = left - (symbol.arity - n - 1)
        operands.append(random_tree(rng, symbols, int(rng.integers(1, room + 1)), without))
        left -= count(operands[-1])
    return (symbol.name, *operands)


def count(tree):
    return 1 + sum(count(operand) for operand in tree[1:])


def names(tree):
    return [tree[0], *itertools.chain(*(names(operand) for operand in tree[1:]))]


def parents(tree, parent=None):
    """`(parent, name)` of each node, root first."""
    below = (parents(operand, tree[0]) for operand in tree[1:])
    return [(parent, tree[0]), *itertools.chain(*below)]


def ends(tree, at=0):
    """Where the subtree of each node ends on the tape."""
    here = [at + count(tree)]
    for operand in tree[1:]:
        here += ends(operand, at + 1 + len(here) - 1)
    return here


def subtrees(tree):
    return [tree, *itertools.chain(*(subtrees(operand) for operand in tree[1:]))]


def replaced(tree, row, new):
    """The tree with the subtree at a row of its tape replaced."""
    if row == 0:
        return new
    at, operands = 1, []
    for operand in tree[1:]:
        inside = at <= row < at + count(operand)
        operands.append(replaced(operand, row - at, new) if inside else operand)
        at += count(operand)
    return (tree[0], *operands)


def expands(partial, whole):
    """Whether a tree with holes can be completed to another."""
    if partial == ("_",):
        return True
    return (
        partial[0] == whole[0]
        and len(partial) == len(whole)
        and all(map(expands, partial[1:], whole[1:]))
    )


def odds(symbols, nodes, roots=(), below=None):
    """The probability of every expression of at most `nodes` nodes, by walking the super-tree.

    A hole is picked at random, then a symbol in proportion to how many holes were opened by then,
    at least one.
    """
    found = {}

    def walk(tree, probability):
        holes = [n for n, name in enumerate(names(tree)) if name == "_"]
        if not holes:
            found[tree] = found.get(tree, 0.0) + probability
            return
        for row in holes:
            parent = parents(tree)[row][0]
            forbidden = roots if parent is None else (below or {}).get(parent, ())
            costs = {
                symbol: max(count(tree) - 1 + symbol.arity, 1)
                for symbol in symbols
                if symbol.name not in forbidden and count(tree) + symbol.arity <= nodes
            }
            for symbol, cost in costs.items():
                new = replaced(tree, row, (symbol.name, *[("_",)] * symbol.arity))
                walk(new, probability / len(holes) * cost / sum(costs.values()))

    walk(("_",), 1.0)
    return found


def value(tree, leaves):
    """The value of a tree, and whether all values within were finite."""
    if len(tree) == 1:
        return leaves[tree[0]], bool(np.isfinite(leaves[tree[0]]).all())
    operands = [value(operand, leaves) for operand in tree[1:]]
    with np.errstate(all="ignore"):
        here = OPERATORS[tree[0]](*(operand for operand, _ in operands))
    return here, bool(np.isfinite(here).all()) and all(fine for _, fine in operands)


def average(terms, decay, gain, first):
    """`first` times the oldest term and `gain` times each later one, all decayed by their age."""
    t = len(terms)
    total = first * decay ** (t - 1) * terms[0]
    for i in range(1, t):
        total = total + gain * decay ** (t - 1 - i) * terms[i]
    return total


def leaves(w, raws, gs, T):
    """Every leaf that is not random after the gradients `raws`, and `gs` with weight decay."""
    t, g, raw = len(gs), gs[-1], raws[-1]
    squares, cubes = [x * x for x in gs], [x * x * x for x in gs]
    m1 = average(gs, 0.9, 1.0, 1.0)
    m1p, m2p = average(gs, 0.9, 0.1, 0.1), average(squares, 0.999, 0.001, 0.001)
    m3p = average(cubes, 0.999, 0.001, 0.001)
    first = average(raws, 0.9, 0.1, 0.1) / (1 - 0.9**t)
    second = average([x * x for x in raws], 0.999, 0.001, 0.001) / (1 - 0.999**t)
    adam = 0.003 * first / (np.sqrt(second) + 1e-8)
    rms = average([x * x for x in raws], 0.99, 0.01, 0.01)
    lion = average(raws[:-1], 0.99, 0.01, 0.01) if t > 1 else 0 * raw
    ld = 1 - t / T
    cd = 0.5 * (1 + np.cos(np.pi * t / T))
    rd = 0.5 * (1 + np.cos(np.pi * ((20 * t) % T) / T))
    found = {
        "g": g, "g2": g * g, "g3": g * g * g, "gp": gs[-2] if t > 1 else 0 * g, "sg": np.sign(g),
        "m1": m1, "m2": average(squares, 0.999, 0.001, 1.0), "m3": average(cubes, 0.999, 0.001, 1.0),
        "m1p": m1p, "m2p": m2p, "m3p": m3p, "am1p": m1p / (1 - 0.9**t),
        "am2p": m2p / (1 - 0.999**t), "am3p": m3p / (1 - 0.999**t), "sm1": np.sign(m1),
        "sm1p": np.sign(m1p), "1": 1.0, "2": 2.0, "w1": w, "w2": 0.1 * w, "w3": 0.01 * w,
        "w4": 0.001 * w, "adam": adam, "rmsprop": 0.03 * raw / (np.sqrt(rms) + 1e-8), "ld": ld,
        "cd": cd, "rd": rd, "ldm": ld + 0.01, "cdm": cd + 0.03, "rdm": rd + 0.03,
        "nesterov": g + 0.9 * m1, "adamw": adam + 0.003 * 0.01 * w,
        "lion": np.sign(0.9 * lion + 0.1 * raw),
    }  # fmt: skip
    return {name: np.broadcast_to(np.asarray(x, float), g.shape) for name, x in found.items()}
