"""Random search: the baseline every search is printed beside.

Bergstra & Bengio, "Random Search for Hyper-Parameter Optimization", JMLR 2012; as a baseline for
architecture search: Li & Talwalkar, arXiv:1902.07638.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key, PyTree

from jaxnas.core import Asked, Measured, Searcher


def random_search(
    sample: Callable[[Key[Array, ""], int], PyTree], *, batch: int = 1, budget: int = -1
) -> Searcher:
    """Draws every candidate afresh, with replacement.

    Args:
      sample: `(key, n) -> genotypes`.
      batch: candidates per step, `N`.
      budget: what each may cost, in the problem's units; `-1` for all it takes.

    Returns:
      A `Searcher` whose state is the number of candidates drawn.

    Raises:
      ValueError: if `batch` is not positive.
    """
    if batch < 1:
        raise ValueError(f"`batch` must be at least 1, but got {batch}.")

    def init(key: Key[Array, ""]) -> Int[Array, ""]:
        del key
        return jnp.int32(0)

    def ask(key: Key[Array, ""], state: Int[Array, ""]) -> tuple[Asked, Int[Array, ""]]:
        return Asked(sample(key, batch), jnp.full(batch, budget, jnp.int32)), state

    def tell(state: Int[Array, ""], asked: Asked, measured: Measured) -> Int[Array, ""]:
        del asked, measured
        return state + batch

    return Searcher(init, ask, tell)


def best_of(
    fitness: Array, reported: Array, draws: Int[Array, " D"], key: Key[Array, ""], repeats: int
) -> Array:
    """The random-search curve of a table: pick by `fitness`, report `reported`.

    Each repeat shuffles the whole table once, so its draws are without replacement and its curve
    is one search seen at several budgets.

    Args:
      fitness: `[T]` what the search may see, e.g. validation accuracy.
      reported: `[T]` what is reported of the pick, e.g. test accuracy.
      draws: `[D]` numbers of queries at which the curve is read, each at most `T`.
      key: random key.
      repeats: how many independent searches.

    Returns:
      `[repeats, D]` the reported value of the best candidate after so many queries.
    """

    def one(key: Key[Array, ""]) -> Array:
        order = jnp.argsort(jax.random.bits(key, fitness.shape))
        seen = fitness[order]
        best = jax.lax.cummax(seen)
        leads = jnp.concatenate([jnp.ones(1, bool), best[1:] > best[:-1]])
        holder = jax.lax.cummax(jnp.where(leads, jnp.arange(order.shape[0]), 0))
        return reported[order][holder[draws - 1]]

    return jax.lax.map(one, jax.random.split(key, repeats), batch_size=64)
