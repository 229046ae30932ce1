"""A closed search in which a program counts once: what computes the same again is a duplicate."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree, UInt8

from jaxnas.core import Asked, Incumbent, Measured, Search, Searcher, close
from jaxnas.programs.judge import Judge


class Distinct(NamedTuple):
    """A closed search and the programs it has asked for.

    Attributes:
      closed: the search.
      met: `[A, 32]` SHA-256 of each by serial number, from 1; zeros for what is no program.
      count: how many there are.
    """

    closed: Incumbent
    met: UInt8[Array, "A 32"]
    count: Int[Array, ""]


def distinct(searcher: Searcher, judge: Judge, most: int) -> Search:
    """Closes a searcher over a judge that measures no program twice.

    What a search has met is in its state, so that seeds do not know of each other and a run that
    goes on trains what it would have trained, no more.

    Args:
      searcher: who proposes.
      judge: told what has been met.
      most: programs that can be asked for, `A`; empty pages are none.

    Returns:
      The search. A duplicate has the fitness `-inf`, the failure `duplicate` and no cost.
    """

    def init(key: Key[Array, ""]) -> Distinct:
        met = jnp.zeros((most, 32), jnp.uint8)
        return Distinct(close(searcher, judge).init(key), met, jnp.int32(0))

    def step(key: Key[Array, ""], state: Distinct) -> tuple[Distinct, dict[str, Any]]:
        met = np.array(state.met)
        once = _Once(judge, met[: int(state.count)])
        closed, info = close(searcher, once).step(key, state.closed)
        met[: len(once.met)] = once.met
        return Distinct(closed, jnp.asarray(met), jnp.int32(len(once.met))), info

    return Search(init, step, lambda state: state.closed.genotype)


class _Once:
    """The problem of one step.

    Attributes:
      met: what has been asked for, `[count, 32]`.
    """

    def __init__(self, judge: Judge, met: np.ndarray) -> None:
        self.judge, self.met = judge, met

    def sample(self, key: Key[Array, ""], n: int) -> PyTree:
        return self.judge.sample(key, n)

    def evaluate(self, key: Key[Array, ""], asked: Asked) -> Measured:
        measured = self.judge.evaluate(key, asked, self.met)
        there = np.asarray(asked.genotypes).any(1)
        self.met = np.concatenate([self.met, np.asarray(measured.extra["identity"])[there]])
        return measured
