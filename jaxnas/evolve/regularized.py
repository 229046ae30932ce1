"""Aging ("regularized") evolution: tournament parents, one mutation, the oldest dies.

Real, Aggarwal, Huang & Le, "Regularized Evolution for Image Classifier Architecture Search", AAAI
2019, arXiv:1802.01548. As in the paper's code the tournament is drawn with replacement, no
candidate is ever killed for being bad, and the answer is the best of the whole history (kept by
`core.close`). `batch > 1` makes that many children from one population and lets as many of the
oldest die: the synchronous form of the paper's asynchronous workers.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxnas.core import Asked, Measured, Searcher


class State(NamedTuple):
    """A ring buffer of living candidates; the slot at `age % P` holds the oldest.

    Attributes:
      genotypes: leaves `[P, ...]`, the living candidates.
      fitness: `[P]` their fitness, `-inf` where a slot was never measured.
      age: how many candidates have been born so far.
    """

    genotypes: PyTree
    fitness: Float[Array, " P"]
    age: Int[Array, ""]


def regularized_evolution(
    sample: Callable[[Key[Array, ""], int], PyTree],
    mutate: Callable[[Key[Array, ""], PyTree], PyTree],
    *,
    population: int = 100,
    tournament: int = 25,
    batch: int = 1,
) -> Searcher:
    """Asks for the founders in order, then for mutated winners of tournaments.

    Args:
      sample: `(key, n) -> genotypes` for the first `population` candidates.
      mutate: `(key, genotype) -> genotype` for all later ones.
      population: how many candidates live at once, `P`.
      tournament: how many are drawn, with replacement, to find a parent.
      batch: children per step, `N`; divides `population`.

    Returns:
      A `Searcher`; all shapes are fixed, so it runs inside `run_scan` and under `vmap`.

    Raises:
      ValueError: if `tournament` exceeds `population` or `batch` does not divide it.
    """
    if not 1 <= tournament <= population:
        raise ValueError(
            f"`tournament` must be at least 1 and at most `population`, but got "
            f"{tournament} with a population of {population}."
        )
    if batch < 1 or population % batch:
        raise ValueError(
            f"`batch` must divide `population`, but got {batch} with a population of {population}."
        )

    def init(key: Key[Array, ""]) -> State:
        unmeasured = jnp.full(population, -jnp.inf, jnp.float32)
        return State(sample(key, population), unmeasured, jnp.int32(0))

    def slots(state: State) -> Int[Array, " N"]:
        return (state.age + jnp.arange(batch)) % population

    def ask(key: Key[Array, ""], state: State) -> tuple[Asked, State]:
        key_draw, key_mutate = jax.random.split(key)
        drawn = jax.random.randint(key_draw, (batch, tournament), 0, population)
        winner = jnp.argmax(state.fitness[drawn], axis=1)
        chosen = drawn[jnp.arange(batch), winner]
        parents = _take(state.genotypes, chosen)
        children = jax.vmap(mutate)(jax.random.split(key_mutate, batch), parents)
        founders = _take(state.genotypes, slots(state))
        young = state.age < population
        asked = jax.tree.map(lambda a, b: jnp.where(young, a, b), founders, children)
        serial = state.age - (state.age - 1 - chosen) % population  # of who lives in that slot
        born_of = jnp.where(young, 0, serial)[:, None]
        return Asked(asked, jnp.full(batch, -1, jnp.int32), born_of), state

    def tell(state: State, asked: Asked, measured: Measured) -> State:
        slot = slots(state)
        return State(
            jax.tree.map(lambda x, new: x.at[slot].set(new), state.genotypes, asked.genotypes),
            state.fitness.at[slot].set(measured.fitness),
            state.age + batch,
        )

    return Searcher(init, ask, tell)


def _take(genotypes: PyTree, index: Int[Array, " N"]) -> PyTree:
    return jax.tree.map(lambda x: x[index], genotypes)
