"""MAP-Elites: variations of elites, each kept where it is the best of its kind.

Mouret & Clune, "Illuminating Search Spaces by Mapping Elites", 2015, arXiv:1504.04909; with cells
around centroids (`archive.cvt`) CVT-MAP-Elites, and with `iso_line` the directional variation of
Vassiliades & Mouret, "Discovering the Elite Hypervolume by Leveraging Interspecies Correlation",
GECCO 2018, arXiv:1804.03906.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxnas.core import Asked, Measured, Searcher
from jaxnas.evolve.archive import Archive, Axis, add, drawn, empty, filled, placed


class State(NamedTuple):
    """State of the plain search.

    Attributes:
      archive: the elites.
      asked: candidates asked for so far.
    """

    archive: Archive
    asked: Int[Array, ""]


Vary = Callable[[Key[Array, ""], PyTree, PyTree], PyTree]


def map_elites(
    sample: Callable[[Key[Array, ""], int], PyTree],
    vary: Vary,
    describe: Callable[[Asked, Measured], Float[Array, "N D"]],
    *,
    axes: Sequence[Axis],
    centroids: Float[Array, "K D"],
    batch: int = 64,
    founders: int = 64,
) -> Searcher:
    """Asks for random founders first, then for variations of elites drawn uniformly.

    Args:
      sample: `(key, n) -> genotypes`.
      vary: `(key, elite, another) -> genotype`; a mutation leaves the other one alone.
      describe: `(asked, measured) -> [N, D]` descriptors in the units of the axes.
      axes: what is described, within which bounds.
      centroids: `[K, D]` of the cells, in the unit cube, see `archive.cvt`.
      batch: candidates a step, `N`.
      founders: candidates that are drawn from the space, in whole batches.

    Returns:
      A `Searcher`; all shapes are fixed, so it runs inside `run_scan` and under `vmap`.

    Raises:
      ValueError: if a number is not positive or centroids and axes do not fit.

    Example:
      >>> import jax
      >>> from jaxnas.core import close, run_scan
      >>> from jaxnas.evolve.bit_string import BitString
      >>> from jaxnas.evolve.archive import Axis, grid
      >>> from jaxnas.evolve.map_elites import map_elites
      >>> problem = BitString(8, noise=0.0)
      >>> search = close(
      ...     map_elites(
      ...         problem.sample,
      ...         lambda key, elite, _: problem.mutate(key, elite),
      ...         lambda asked, measured: 1.0 * asked.genotypes[:, :2],  # by beginning
      ...         axes=(Axis("first bit", 0, 1), Axis("second bit", 0, 1)),
      ...         centroids=grid(2, 2),
      ...         batch=8,
      ...         founders=8,
      ...     ),
      ...     problem,
      ... )
      >>> state, _ = run_scan(search, jax.random.key(0), 40)
      >>> state.searcher.archive.fitness.tolist()
      [0.75, 0.875, 0.875, 1.0]
    """
    if batch < 1 or founders < 1:
        raise ValueError(f"`batch` and `founders` must be positive, not {batch} and {founders}.")
    if centroids.ndim != 2 or centroids.shape[1] != len(axes):
        raise ValueError(
            f"`centroids` must be [K, {len(axes)}], a column for each of `axes`, but got "
            f"{list(centroids.shape)}."
        )

    def init(key: Key[Array, ""]) -> State:
        one = jax.tree.map(lambda leaf: leaf[0], sample(key, 1))
        return State(empty(one, centroids), jnp.int32(0))

    def ask(key: Key[Array, ""], state: State) -> tuple[Asked, State]:
        key_draw, key_other, key_sample, key_vary = jax.random.split(key, 4)
        elites, others = (drawn(k, state.archive, batch) for k in (key_draw, key_other))
        children = jax.vmap(vary)(jax.random.split(key_vary, batch), elites, others)
        young = (state.asked < founders) | ~filled(state.archive).any()
        asked = jax.tree.map(
            lambda a, b: jnp.where(young, a, b), sample(key_sample, batch), children
        )
        return Asked(asked, jnp.full(batch, -1, jnp.int32)), state

    def tell(state: State, asked: Asked, measured: Measured) -> State:
        where = placed(describe(asked, measured), axes)
        archive, _ = add(state.archive, asked.genotypes, measured.fitness, where)
        return State(archive, state.asked + batch)

    return Searcher(init, ask, tell)


def iso_line(*, iso: float = 0.01, line: float = 0.1, low: float = 0.0, high: float = 1.0) -> Vary:
    """Noise in all directions and along the line to another elite, for vectors of numbers.

    Args:
      iso: standard deviation of the noise on each number.
      line: of the step along the line, as a share of its length.
      low: least value of a number.
      high: greatest.
    """

    def vary(key: Key[Array, ""], elite: PyTree, other: PyTree) -> PyTree:
        key_iso, key_line = jax.random.split(key)
        along = line * jax.random.normal(key_line)

        def moved(key: Key[Array, ""], x: Array, y: Array) -> Array:
            return jnp.clip(x + iso * jax.random.normal(key, x.shape) + along * (y - x), low, high)

        leaves, structure = jax.tree.flatten(elite)
        keys = structure.unflatten(list(jax.random.split(key_iso, len(leaves))))
        return jax.tree.map(moved, keys, elite, other)

    return vary
