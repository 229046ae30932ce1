"""Update rules as pairs of pure functions, over one candidate or over many different ones at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxnas.formulas.evaluate import interpreted, unrolled
from jaxnas.formulas.tape import Grammar
from jaxnas.formulas.update_rules import Inputs, buffers, remember


class Rule(NamedTuple):
    """How to go downhill.

    Attributes:
      start: `(w) -> memory`.
      step: `(memory, w, raw, g, t, T, keys) -> (direction, memory)`; weights and directions are
        `[..., D]`, `keys` are `[...]`, see `update_rules.Inputs`.
    """

    start: Callable[[Array], Any]
    step: Callable[..., tuple[Array, Any]]


def one_rule(grammar: Grammar, tape: Int[np.ndarray, " L"]) -> Rule:
    """The rule of a known tape, written out: it keeps only the buffers that it reads."""
    names = buffers(grammar, tape)

    def step(
        memory: Any, w: Array, raw: Array, g: Array, t: Array, T: float, keys: Key[Array, "..."]
    ) -> tuple[Array, Any]:
        kept, read = remember(memory, g, raw, t)
        value = unrolled(grammar, tape, Inputs(w, raw, g, read, t, T, keys))
        return jnp.broadcast_to(value, w.shape), kept

    return Rule(lambda w: {name: jnp.zeros_like(w) for name in names}, step)


def many_rules(grammar: Grammar, tapes: Int[np.ndarray, "N L"]) -> Rule:
    """Different rules side by side, each on its own row of weights `[N, ..., D]`."""
    rules = [one_rule(grammar, tape) for tape in tapes]

    def start(w: Array) -> Any:
        return [rule.start(w[n]) for n, rule in enumerate(rules)]

    def step(
        memory: Any, w: Array, raw: Array, g: Array, t: Array, T: float, keys: Key[Array, "..."]
    ) -> tuple[Array, Any]:
        done = [
            rule.step(memory[n], w[n], raw[n], g[n], t, T, keys) for n, rule in enumerate(rules)
        ]
        return jnp.stack([direction for direction, _ in done]), [kept for _, kept in done]

    return Rule(start, step)


def any_rule(grammar: Grammar, tape: Int[Array, " L"]) -> Rule:
    """The rule of a tape that is data: one program serves every tape, and keeps every buffer."""
    names = buffers(grammar)

    def step(
        memory: Any, w: Array, raw: Array, g: Array, t: Array, T: float, keys: Key[Array, "..."]
    ) -> tuple[Float[Array, "... D"], Any]:
        kept, read = remember(memory, g, raw, t)
        return interpreted(grammar, tape, Inputs(w, raw, g, read, t, T, keys), w), kept

    return Rule(lambda w: {name: jnp.zeros_like(w) for name in names}, step)
