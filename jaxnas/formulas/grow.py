"""Random expressions: completed from a partial one, mutated. All of it compiles.

An expression grows as in the super-tree of Wang et al. (see `optimizer_search`): one hole after
another, picked at random, is filled with an operator, which opens new holes, or with a leaf. An
operator is drawn with probability proportional to the cost of what results, 0.01 for each hole
ever opened, so that operators are preferred while an expression is young.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxnas.formulas.tape import END, HOLE, Grammar, Tape

Tapes = Int[Array, " L"]


def blank(grammar: Grammar) -> Tapes:
    """The root of the super-tree: one hole."""
    return jnp.full(grammar.nodes, END, jnp.int32).at[0].set(HOLE)


def weights(
    grammar: Grammar, partial: Tapes, *, nodes: int | None = None, constrained: bool = False
) -> Float[Array, "L K"]:
    """How likely each symbol is to fill each hole: the cost of the child, 0 where it may not be.

    Args:
      grammar: what is grown.
      partial: `[L]` a tape with holes.
      nodes: most nodes of the whole expression; `None` for the length of the tape.
      constrained: whether the grammar's rules about neighbours hold.
    """
    total = (partial != END).sum()
    arity = jnp.asarray(grammar.arity)
    opened = (total - 1 + arity).astype(jnp.float32)  # holes opened so far, at 0.01 each
    limit = grammar.nodes if nodes is None else nodes
    may = (partial == HOLE)[:, None] & (total + arity <= limit)[None]
    if constrained:
        may &= jnp.asarray(grammar.allowed)[above(grammar, partial)]
    return may * jnp.maximum(opened, 1.0)


def fill(grammar: Grammar, partial: Tapes | Tape, row: Any, token: Any) -> Tapes:
    """Puts a symbol where a hole is, with holes for its operands behind it."""
    arity, partial = jnp.asarray(grammar.arity)[token], jnp.asarray(partial)
    i = jnp.arange(partial.shape[0])
    shifted = partial[jnp.clip(i - arity, 0)]
    behind = jnp.where(i <= row + arity, HOLE, shifted)
    return jnp.where(i < row, partial, jnp.where(i == row, token, behind))


def complete(
    key: Key[Array, ""],
    grammar: Grammar,
    partial: Tapes,
    *,
    nodes: int | None = None,
    constrained: bool = False,
) -> Tapes:
    """Fills every hole at random; see `weights` for the arguments."""

    def step(tape: Tapes, key: Key[Array, ""]) -> tuple[Tapes, None]:
        odds = weights(grammar, tape, nodes=nodes, constrained=constrained)
        # Every hole is as likely as another; the symbol is drawn in proportion to its cost.
        odds = odds / jnp.maximum(odds.sum(1, keepdims=True), 1)
        drawn = jax.random.categorical(key, jnp.log(odds).reshape(-1))
        row, token = jnp.divmod(drawn, odds.shape[1])
        return jnp.where((tape == HOLE).any(), fill(grammar, tape, row, token), tape), None

    keys = jax.random.split(key, grammar.nodes)
    return jax.lax.scan(step, jnp.asarray(partial, jnp.int32), keys)[0]


@partial(jax.jit, static_argnums=(1, 2), static_argnames="constrained")
def sample(
    key: Key[Array, ""], grammar: Grammar, n: int, *, constrained: bool = False
) -> Int[Array, "n L"]:
    """Draws whole expressions."""
    grow = jax.vmap(lambda key: complete(key, grammar, blank(grammar), constrained=constrained))
    return grow(jax.random.split(key, n))


def ends(grammar: Grammar, tape: Tapes) -> Int[Array, " L"]:
    """Where the subtree at each row ends, exclusive; `L` or more on rows that hold nothing."""
    arity = jnp.where(tape < 0, 0, jnp.asarray(grammar.arity)[jnp.maximum(tape, 0)])
    closed = jnp.cumsum(1 - arity)
    before = closed - (1 - arity)
    i = jnp.arange(tape.shape[0])
    done = (closed[None] - before[:, None] == 1) & (i[None] >= i[:, None])
    return jnp.where(tape == END, tape.shape[0], jnp.argmax(done, axis=1) + 1)


def parents(grammar: Grammar, tape: Tapes) -> Int[Array, " L"]:
    """The row directly above each row; -1 at the root and where nothing is."""
    end, i = ends(grammar, tape), jnp.arange(tape.shape[0])
    over = (i[:, None] < i[None]) & (end[:, None] > i[None]) & (tape >= 0)[:, None]  # ancestor, row
    parent = tape.shape[0] - 1 - jnp.argmax(over[::-1], axis=0)  # the last one that is
    return jnp.where(over.any(0) & (tape != END), parent, -1)


def above(grammar: Grammar, tape: Tapes) -> Int[Array, " L"]:
    """The symbol directly above each row; -1 at the root and where nothing is."""
    row = parents(grammar, tape)
    return jnp.where(row < 0, -1, tape[row])


def splice(tape: Tapes, start: Array, stop: Array, piece: Tapes, length: Array) -> Tapes:
    """The tape with rows `start ... stop - 1` replaced by the first `length` rows of `piece`."""
    i = jnp.arange(tape.shape[0])
    tail = i - start - length + stop
    last = jnp.where(tail < tape.shape[0], tape[jnp.clip(tail, 0, tape.shape[0] - 1)], END)
    inside = piece[jnp.clip(i - start, 0, piece.shape[0] - 1)]
    return jnp.where(i < start, tape, jnp.where(i < start + length, inside, last))


@partial(jax.jit, static_argnums=1, static_argnames="constrained")
def mutate(
    key: Key[Array, ""], grammar: Grammar, tape: Tapes, *, constrained: bool = False
) -> Tapes:
    """Regrows a random subtree, or, half of the time, exchanges one symbol for another of its arity.

    The result is a valid expression and may by chance be the same one. Constrained, it keeps the
    rules about neighbours if `tape` does.
    """
    key_how, key_row, key_new = jax.random.split(key, 3)
    row = _pick(key_row, tape != END)
    hole = jnp.full_like(tape, HOLE)
    pruned = splice(tape, row, ends(grammar, tape)[row], hole, jnp.int32(1))
    regrown = complete(key_new, grammar, pruned, constrained=constrained)
    arity, allowed = jnp.asarray(grammar.arity), jnp.asarray(grammar.allowed)
    alike = arity == arity[tape[row]]
    if constrained:
        beneath = parents(grammar, tape) == row
        alike &= allowed[above(grammar, tape)[row]]
        alike &= (allowed[:-1, tape] | ~beneath).all(1)
    exchanged = tape.at[row].set(_pick(key_new, alike))
    return jnp.where(jax.random.bernoulli(key_how) & alike.any(), exchanged, regrown)


def _pick(key: Key[Array, ""], among: Bool[Array, " M"]) -> Array:
    return jax.random.categorical(key, jnp.where(among, 0.0, -jnp.inf))
