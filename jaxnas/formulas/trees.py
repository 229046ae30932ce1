"""Variation that respects where symbols stand in the tree, and how far two trees are apart.

On tapes in Polish notation two trees are walked together by two counters: they go on by one where
the arities agree and past the whole subtree where they do not. The places met are the common region
(Poli & Langdon, "Genetic Programming with One-Point Crossover", 1997). All of it runs on the host.
"""

from typing import Any

import numpy as np
from jaxtyping import Int

from jaxnas.formulas.tape import END, Grammar, size

Tapes = Int[np.ndarray, " L"]


def ends(grammar: Grammar, tape: Tapes) -> list[int]:
    """Where the subtree at each row ends, exclusive."""
    stack: list[int] = []
    found = [0] * size(tape)
    for row in reversed(range(len(found))):
        end = row + 1
        for _ in range(grammar.arity[tape[row]]):
            end = stack.pop()
        found[row] = end
        stack.append(end)
    return found


def depths(grammar: Grammar, tape: Tapes) -> list[int]:
    """Level of each row, 1 at the root."""
    found, stop = [], ends(grammar, tape)
    open_until: list[int] = []
    for row, end in enumerate(stop):
        open_until = [at for at in open_until if at > row]
        found.append(len(open_until) + 1)
        open_until.append(end)
    return found


def common(grammar: Grammar, tape: Tapes, other: Tapes) -> list[tuple[int, int]]:
    """Pairs of rows that stand at the same place in both trees, from the root on.

    Below a pair whose arities differ nothing is common; the pair itself is.
    """
    stop, other_stop = ends(grammar, tape), ends(grammar, other)
    pairs, i, j = [], 0, 0
    while i < len(stop) and j < len(other_stop):
        pairs.append((i, j))
        alike = grammar.arity[tape[i]] == grammar.arity[other[j]]
        i, j = (i + 1, j + 1) if alike else (stop[i], other_stop[j])
    return pairs


def distance(grammar: Grammar, tape: Tapes, other: Tapes, *, beta: float = 0.5) -> float:
    """How different the shapes of two trees are: 0 for the same shape, 1 for different roots.

    Trujillo et al., "neat Genetic Programming", Information Sciences 2016: with `n` and `d` the
    nodes and levels of both trees together, and of their common region twice.

    Args:
      grammar: of both.
      tape: `[L]`.
      other: `[L]`.
      beta: how much nodes count; levels count `1 - beta`.
    """
    pairs = common(grammar, tape, other)
    levels = depths(grammar, tape)
    nodes = size(tape) + size(other)
    deep = max(levels) + max(depths(grammar, other))
    shared = max(levels[i] for i, _ in pairs)

    def apart(whole: int, part: int) -> float:
        return (whole - 2 * part) / (whole - 2) if whole > 2 else 0.0

    return beta * apart(nodes, len(pairs)) + (1 - beta) * apart(deep, shared)


def spliced(tape: Tapes, start: int, stop: int, piece: list[Any]) -> Tapes | None:
    """The tape with rows `start ... stop - 1` replaced; `None` if that does not fit."""
    tokens = [*tape[:start], *piece, *tape[stop : size(tape)]]
    if len(tokens) > len(tape):
        return None
    return np.array(tokens + [END] * (len(tape) - len(tokens)), np.int32)


def homologous(
    rng: np.random.Generator, grammar: Grammar, tape: Tapes, other: Tapes
) -> tuple[Tapes, Tapes]:
    """Swaps the subtrees at one random common place, below the root where there is one.

    Both come back as they were if one child would outgrow its tape.
    """
    pairs = common(grammar, tape, other)
    i, j = pairs[rng.integers(min(1, len(pairs) - 1), len(pairs))]
    stop, other_stop = ends(grammar, tape)[i], ends(grammar, other)[j]
    one = spliced(tape, i, stop, list(other[j:other_stop]))
    two = spliced(other, j, other_stop, list(tape[i:stop]))
    return (tape, other) if one is None or two is None else (one, two)


def replace(rng: np.random.Generator, grammar: Grammar, tape: Tapes) -> Tapes:
    """Exchanges one symbol for another of its arity; the same tape where there is no other."""
    row = rng.integers(size(tape))
    alike = np.flatnonzero(grammar.arity == grammar.arity[tape[row]])
    alike = alike[alike != tape[row]]
    new = tape.copy()
    if len(alike):
        new[row] = rng.choice(alike)
    return new


def insert(rng: np.random.Generator, grammar: Grammar, tape: Tapes) -> Tapes:
    """Puts an operator above a random subtree, with leaves as its other operands.

    The tape comes back as it was where that does not fit.
    """
    row = int(rng.integers(size(tape)))
    stop = ends(grammar, tape)[row]
    operator = int(rng.choice(np.flatnonzero(grammar.arity > 0)))
    operands = [[leaf(rng, grammar)] for _ in range(grammar.arity[operator])]
    operands[rng.integers(len(operands))] = list(tape[row:stop])
    piece = [operator, *(token for operand in operands for token in operand)]
    new = spliced(tape, row, stop, piece)
    return tape.copy() if new is None else new


def shrink(rng: np.random.Generator, grammar: Grammar, tape: Tapes) -> Tapes:
    """Cuts a random branch down to a leaf; the root goes only if it is alone."""
    branches = np.flatnonzero(grammar.arity[tape[: size(tape)]] > 0)
    branches = branches[branches > 0] if len(branches) > 1 else branches
    if not len(branches):
        return replace(rng, grammar, tape)
    row = int(rng.choice(branches))
    new = spliced(tape, row, ends(grammar, tape)[row], [leaf(rng, grammar)])
    return tape.copy() if new is None else new


def leaf(rng: np.random.Generator, grammar: Grammar) -> int:
    """A random leaf."""
    return int(rng.choice(np.flatnonzero(grammar.arity == 0)))
