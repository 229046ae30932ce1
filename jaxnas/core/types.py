"""What is searched (`Problem`), who proposes (`Searcher`), what runs (`Search`).

Axis letters used throughout: `N` candidates in a batch, `P` parents of each, `S` seeds.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree


class Asked(NamedTuple):
    """Candidates to measure and how much to spend on each.

    Attributes:
      genotypes: pytree whose leaves start with the candidate axis `N`.
      budget: `[N]` total units each candidate may have cost once measured, in the problem's own
        unit of cost; `-1` means all it takes.
      parents: `[N, P]` what each was made from: serial numbers, counted from 1 over everything
        that this search has asked for, in order; 0 for none. `None` where nobody keeps count.
    """

    genotypes: PyTree
    budget: Int[Array, " N"]
    parents: Int[Array, "N P"] | None = None


class Measured(NamedTuple):
    """What a problem says about a batch of candidates.

    Attributes:
      fitness: `[N]` higher is better; `-inf` for a candidate that could not be built or diverged.
      cost: `[N]` units the problem charges for the measurement (queries, epochs, tokens).
      extra: problem-specific arrays, e.g. descriptors, test accuracy or trained weights.
      failure: `[N]` why there is no fitness, as a position in the problem's list of reasons; 0 for
        none. `None` where the only reason is a number that is not finite.
    """

    fitness: Float[Array, " N"]
    cost: Float[Array, " N"]
    extra: PyTree = None
    failure: Int[Array, " N"] | None = None


class Exhausted(ValueError):  # noqa: N818 - it is an end, not an error
    """What a search spends is used up: it ends early, and what it has found by then counts.

    A searcher or a problem raises it in the midst of a step, which is lost. The message names what
    would let the search go on.
    """


@runtime_checkable
class Problem(Protocol):
    """A space of candidates with a way to measure a batch of them."""

    def sample(self, key: Key[Array, ""], n: int) -> PyTree:
        """Draws `n` genotypes at random from the space."""
        ...

    def evaluate(self, key: Key[Array, ""], asked: Asked) -> Measured:
        """Measures a batch; a bad candidate scores `-inf`, only a broken setup raises."""
        ...


def _as_measured(state: Any, asked: Asked, measured: Measured) -> Measured:
    del state, asked
    return measured


class Searcher(NamedTuple):
    """Black-box search as pure functions; it never sees how fitness is measured.

    Attributes:
      init: `(key) -> state`.
      ask: `(key, state) -> (Asked, state)`.
      tell: `(state, Asked, Measured) -> state`.
      appraise: `(state, Asked, Measured) -> Measured`, what counts of a measurement, for searchers
        that cut it short by `budget` and foretell the rest. It may change `fitness` alone.
    """

    init: Callable[[Key[Array, ""]], Any]
    ask: Callable[[Key[Array, ""], Any], tuple[Asked, Any]]
    tell: Callable[[Any, Asked, Measured], Any]
    appraise: Callable[[Any, Asked, Measured], Measured] = _as_measured


class Search(NamedTuple):
    """Anything that can be stepped and asked for its current answer.

    Attributes:
      init: `(key) -> state`.
      step: `(key, state) -> (state, info)`; `info` is a dict of arrays of fixed shapes.
      best: `(state) -> genotype`, without a candidate axis.
    """

    init: Callable[[Key[Array, ""]], Any]
    step: Callable[[Key[Array, ""], Any], tuple[Any, dict[str, Any]]]
    best: Callable[[Any], PyTree]


class Incumbent(NamedTuple):
    """State of a closed search: the searcher's own state and the best candidate so far.

    Attributes:
      searcher: state of the `Searcher`.
      genotype: the best genotype measured so far, without a candidate axis.
      fitness: its fitness, `-inf` before the first finite measurement.
      cost: all units charged so far.
    """

    searcher: Any
    genotype: PyTree
    fitness: Float[Array, ""]
    cost: Float[Array, ""]


def close(searcher: Searcher, problem: Problem) -> Search:
    """Closes the ask-measure-tell circle over one problem and keeps the incumbent.

    A NaN fitness counts as `-inf`, so that a diverged candidate never wins a comparison. Of
    equally good candidates the first one stays.

    Args:
      searcher: who proposes.
      problem: who measures.

    Returns:
      A `Search` whose `info` holds `fitness` (best so far), `cost` (total so far), `asked` and
      `measured` (this step's candidates and what was said of them, without `extra`).

    Example:
      >>> import jax
      >>> from jaxnas.core import close, run_scan
      >>> from jaxnas.evolve.random_search import random_search
      >>> from jaxnas.evolve.bit_string import BitString
      >>> problem = BitString(8, noise=0.0)
      >>> search = close(random_search(problem.sample, batch=4), problem)
      >>> state, info = run_scan(search, jax.random.key(0), 5)
      >>> info["fitness"].shape, float(state.cost)
      ((5,), 20.0)
    """

    def init(key: Key[Array, ""]) -> Incumbent:
        key_state, key_sample = jax.random.split(key)
        first = jax.tree.map(lambda x: x[0], problem.sample(key_sample, 1))
        return Incumbent(searcher.init(key_state), first, jnp.float32(-jnp.inf), jnp.float32(0))

    def step(key: Key[Array, ""], state: Incumbent) -> tuple[Incumbent, dict[str, Any]]:
        key_ask, key_measure = jax.random.split(key)
        asked, inner = searcher.ask(key_ask, state.searcher)
        measured = searcher.appraise(inner, asked, problem.evaluate(key_measure, asked))
        fitness = jnp.where(jnp.isnan(measured.fitness), -jnp.inf, measured.fitness)
        measured = measured._replace(fitness=fitness)
        i = jnp.argmax(fitness)
        better = fitness[i] > state.fitness
        new = Incumbent(
            searcher=searcher.tell(inner, asked, measured),
            genotype=jax.tree.map(
                lambda a, b: jnp.where(better, a[i], b), asked.genotypes, state.genotype
            ),
            fitness=jnp.where(better, fitness[i], state.fitness),
            cost=state.cost + measured.cost.sum(),
        )
        measured = measured._replace(extra=None)
        info = {"fitness": new.fitness, "cost": new.cost, "asked": asked, "measured": measured}
        return new, info

    return Search(init, step, lambda state: state.genotype)
