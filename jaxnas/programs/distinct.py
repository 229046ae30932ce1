"""A closed search in which a program counts once: what computes the same again is a duplicate."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree, UInt8

from jaxnas.core import Asked, Incumbent, Measured, Problem, Search, Searcher, close
from jaxnas.programs.sandbox.verdict import FAILURES


class Distinct(NamedTuple):
    """A closed search and the programs it has met.

    Attributes:
      closed: the search.
      met: `[A, 32]` SHA-256 of each, in order.
      count: how many there are.
    """

    closed: Incumbent
    met: UInt8[Array, "A 32"]
    count: Int[Array, ""]


def distinct(searcher: Searcher, problem: Problem, most: int) -> Search:
    """Closes a searcher over a problem, giving no fitness to duplicates.

    What a search has met is in its state, so that seeds do not know of each other and a run that
    goes on knows what it knew. A problem that remembers what it measured need not measure again.

    Args:
      searcher: who proposes.
      problem: gives `extra["identity"]` `[N, 32]`, zeros for what has none.
      most: programs that can be met, `A`.

    Returns:
      The search. A duplicate has the fitness `-inf`, the failure `duplicate`, no cost, and what it
      would have had in `extra["known"]`.
    """

    def init(key: Key[Array, ""]) -> Distinct:
        met = jnp.zeros((most, 32), jnp.uint8)
        return Distinct(close(searcher, problem).init(key), met, jnp.int32(0))

    def step(key: Key[Array, ""], state: Distinct) -> tuple[Distinct, dict[str, Any]]:
        met = np.array(state.met)
        once = _Once(problem, met[: int(state.count)])
        closed, info = close(searcher, once).step(key, state.closed)
        met[: len(once.met)] = once.met
        return Distinct(closed, jnp.asarray(met), jnp.int32(len(once.met))), info

    return Search(init, step, lambda state: state.closed.genotype)


class _Once:
    """The problem of one step.

    Attributes:
      met: what has been met, `[count, 32]`.
    """

    def __init__(self, problem: Problem, met: np.ndarray) -> None:
        self.problem, self.met = problem, met

    def sample(self, key: Key[Array, ""], n: int) -> PyTree:
        return self.problem.sample(key, n)

    def evaluate(self, key: Key[Array, ""], asked: Asked) -> Measured:
        measured = self.problem.evaluate(key, asked)
        known = {row.tobytes() for row in self.met}
        again, new = [], []
        for row in np.asarray(measured.extra["identity"]):
            again.append(row.any() and row.tobytes() in known)
            if row.any() and not again[-1]:
                known.add(row.tobytes())
                new.append(row)
        self.met = np.concatenate([self.met, np.array(new, np.uint8).reshape(-1, 32)])
        return _marked(measured, np.array(again))


def _marked(measured: Measured, again: np.ndarray) -> Measured:
    failure = jnp.zeros(len(again), jnp.int32) if measured.failure is None else measured.failure
    return Measured(
        fitness=jnp.where(again, -jnp.inf, measured.fitness),
        cost=jnp.where(again, 0.0, measured.cost),
        extra=measured.extra | {"known": measured.fitness},
        failure=jnp.where(again, 1 + FAILURES.index("duplicate"), failure),
    )
