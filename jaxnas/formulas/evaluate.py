"""The value of expressions: written out into the program, or read from a tape inside it.

`unrolled` needs the tape while tracing and computes just that expression: the fastest steps, some
30 ms of compilation each. `interpreted` takes any tape at run time: one program for all. Its
`switch` is a real branch as long as the tape has no batch axis (`jax.lax.map`); under `jax.vmap` it
computes every symbol and selects, which is what accelerators prefer.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxnas.formulas.tape import END, Grammar, Tape, size


def unrolled(grammar: Grammar, tape: Tape, inputs: Any) -> Any:
    """The value of one known expression.

    Args:
      grammar: what the tape is made of.
      tape: `[L]`, concrete.
      inputs: what the grammar's symbols read.
    """
    return values(grammar, tape, inputs)[0]


def values(grammar: Grammar, tape: Tape, inputs: Any) -> list[Any]:
    """The value of every subtree of one known expression, by the row of its root."""
    stack: list[Any] = []
    found: list[Any] = [None] * size(tape)
    for row in reversed(range(size(tape))):
        symbol = grammar.symbols[int(tape[row])]
        operands = [stack.pop() for _ in range(symbol.arity)]
        found[row] = symbol.apply(inputs, row, *operands)
        stack.append(found[row])
    return found


def interpreted(grammar: Grammar, tape: Int[Array, " L"], inputs: Any, like: Array) -> Array:
    """The value of whatever expression the tape holds.

    Args:
      grammar: what the tape is made of.
      tape: `[L]`, may be traced.
      inputs: what the grammar's symbols read.
      like: an array of the shape and type that every value takes.

    Returns:
      The value, broadcast to `like`.
    """
    most = max(int(grammar.arity.max()), 1)
    arity = jnp.asarray(grammar.arity)[jnp.maximum(tape, 0)]

    def branch(symbol: Any) -> Any:
        def apply(row: Array, operands: tuple[Array, ...]) -> Array:
            value = symbol.apply(inputs, row, *operands[: symbol.arity])
            return jnp.broadcast_to(jnp.asarray(value, like.dtype), like.shape)

        return apply

    branches = [branch(symbol) for symbol in grammar.symbols]
    length = (tape != END).sum()

    def body(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        stack, top = carry
        row = length - 1 - i
        operands = tuple(stack[jnp.maximum(top - 1 - k, 0)] for k in range(most))
        value = jax.lax.switch(tape[row], branches, row, operands)
        top = top - arity[row] + 1
        return stack.at[top - 1].set(value), top

    # Leaves come first, so all of them may wait at once.
    leaves = ((most - 1) * tape.shape[0] + 1) // most
    stack = jnp.zeros((leaves + 1, *like.shape), like.dtype)
    stack, _ = jax.lax.fori_loop(0, length, body, (stack, jnp.int32(0)))
    return stack[0]
