"""An archive of elites: the best candidate of every kind, for kinds that are cells of a space.

Mouret & Clune, "Illuminating Search Spaces by Mapping Elites", 2015, arXiv:1504.04909; cells around
centroids (CVT): Vassiliades, Chatzilygeroudis & Mouret, IEEE TEVC 2018, arXiv:1610.05729. Elites
are kept by the repertoire of QDax (Chalumeau et al., JMLR 2024), which is imported here alone and
when it is needed; this file speaks its dialect (fitness `[K, 1]`, descriptors before fitness) so
that no other has to. Three things differ from it: of equally good candidates the first one stays;
one whose fitness or descriptor is not finite is never kept and spoils no other; descriptors lie in
the unit cube, clipped at the ends of their axes.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree


class Axis(NamedTuple):
    """One dimension of the descriptors.

    Attributes:
      label: what is measured.
      low: value at the lower end; what lies below counts as this.
      high: value at the upper end.
    """

    label: str
    low: float
    high: float


class Archive(NamedTuple):
    """`K` cells, each with the best candidate of its kind.

    Attributes:
      genotypes: leaves `[K, ...]`; zeros where a cell is empty.
      fitness: `[K]` of the elites; `-inf` where a cell is empty.
      descriptors: `[K, D]` of the elites, in the unit cube.
      centroids: `[K, D]` of the cells: kept with the elites, since they depend on a k-means.
    """

    genotypes: PyTree
    fitness: Float[Array, " K"]
    descriptors: Float[Array, "K D"]
    centroids: Float[Array, "K D"]


def empty(genotype: PyTree, centroids: Float[Array, "K D"]) -> Archive:
    """An archive without elites.

    Args:
      genotype: one, for shapes and types.
      centroids: `[K, D]` of its cells.
    """
    cells = centroids.shape[0]
    return Archive(
        jax.tree.map(
            lambda leaf: jnp.zeros((cells, *jnp.shape(leaf)), jnp.result_type(leaf)), genotype
        ),
        jnp.full(cells, -jnp.inf, jnp.float32),
        jnp.zeros(centroids.shape, jnp.float32),
        jnp.asarray(centroids, jnp.float32),
    )


def add(
    archive: Archive, genotypes: PyTree, fitness: Float[Array, " N"], where: Float[Array, "N D"]
) -> tuple[Archive, Bool[Array, " N"]]:
    """Puts candidates into their cells, where they are better than what is there.

    The result is that of adding them one after another.

    Args:
      archive: so far.
      genotypes: leaves `[N, ...]`.
      fitness: `[N]` higher is better; `-inf` or NaN for what must not be kept.
      where: `[N, D]` in the unit cube, see `placed`.

    Returns:
      The archive, and which candidates were elites when they came; a later one of the same batch
      may have taken their place.
    """
    where, fitness = jnp.asarray(where, jnp.float32), jnp.asarray(fitness, jnp.float32)
    sound = jnp.isfinite(fitness) & jnp.isfinite(where).all(-1)
    fitness, where = jnp.where(sound, fitness, -jnp.inf), jnp.where(sound[:, None], where, 0.0)
    own, order, cells = cell(archive, where), jnp.arange(len(fitness)), len(archive.fitness)
    best = jax.ops.segment_max(fitness, own, num_segments=cells)[own]
    rank = jnp.where(fitness == best, order, len(order))
    first = order == jax.ops.segment_min(rank, own, num_segments=cells)[own]
    # QDax scatters all that tie, in any order and leaf by leaf: it gets one candidate for a cell.
    writer = jnp.where(first, fitness, -jnp.inf)
    after = _repertoire(archive).add(genotypes, where, writer)
    earlier = (own[:, None] == own) & (order[:, None] > order)
    rival = jnp.where(earlier, fitness, -jnp.inf).max(-1)
    entered = fitness > jnp.maximum(rival, archive.fitness[own])
    new = Archive(after.genotypes, after.fitnesses[:, 0], after.descriptors, archive.centroids)
    return new, entered


def cell(archive: Archive, where: Float[Array, "N D"]) -> Int[Array, " N"]:
    """`[N]` the nearest centroid of each descriptor."""
    return _containers().get_cells_indices(where, archive.centroids)


def filled(archive: Archive) -> Bool[Array, " K"]:
    """`[K]` which cells have an elite."""
    return archive.fitness > -jnp.inf


def drawn(key: Key[Array, ""], archive: Archive, n: int) -> PyTree:
    """Genotypes of `n` elites, uniformly and with replacement; of zeros where there are none."""
    chance = jnp.where(filled(archive), 0.0, -jnp.inf)
    index = jax.random.categorical(key, chance, shape=(n,))
    return jax.tree.map(lambda leaf: leaf[index], archive.genotypes)


def placed(descriptors: Float[Array, "N D"], axes: Sequence[Axis]) -> Float[Array, "N D"]:
    """Descriptors in the unit cube, clipped at the ends of their axes.

    Args:
      descriptors: `[N, D]` in the units of the axes; what is not finite becomes NaN.
      axes: bounds of each column.

    Raises:
      ValueError: for an axis whose ends are not in order.
    """
    for axis in axes:
        if not axis.low < axis.high:
            raise ValueError(
                f"`axes` must have `low` < `high`, but {axis.label!r} goes from {axis.low} to "
                f"{axis.high}."
            )
    low, high = (np.array([getattr(axis, end) for axis in axes]) for end in ("low", "high"))
    raw = jnp.asarray(descriptors, jnp.float32)
    share = jnp.clip((raw - jnp.float32(low)) / jnp.float32(high - low), 0.0, 1.0)
    return jnp.where(jnp.isfinite(raw), share, jnp.nan)


def cvt(
    key: Key[Array, ""], *, cells: int, dimensions: int = 2, samples: int = 25_000
) -> Float[Array, "K D"]:
    """Centroids of cells of about one size: k-means of uniform points in the unit cube.

    Takes seconds, on the host; the same key is answered from memory within a process.

    Args:
      key: random key.
      cells: how many, `K`.
      dimensions: of the descriptors, `D`.
      samples: points that are clustered.
    """
    data = tuple(np.asarray(jax.random.key_data(key)).tolist())
    return jnp.asarray(_cvt(data, cells, dimensions, samples))


@lru_cache
def _cvt(data: tuple[int, ...], cells: int, dimensions: int, samples: int) -> np.ndarray:
    compute = _containers().compute_cvt_centroids
    key = jax.random.wrap_key_data(jnp.array(data, jnp.uint32))
    return np.asarray(compute(dimensions, samples, cells, 0.0, 1.0, key), np.float32)


def grid(*shape: int) -> Float[Array, "K D"]:
    """Centroids of a regular grid in the unit cube, as many along each axis as `shape` says."""
    lines = [(np.arange(n) + 0.5) / n for n in shape]
    meshes = np.meshgrid(*lines, indexing="ij")
    return jnp.asarray(np.stack([mesh.ravel() for mesh in meshes], -1), jnp.float32)


def _repertoire(archive: Archive) -> Any:
    return _containers().MapElitesRepertoire(
        genotypes=archive.genotypes,
        fitnesses=archive.fitness[:, None],
        descriptors=archive.descriptors,
        centroids=archive.centroids,
        extra_scores={},
        keys_extra_scores=(),
    )


def _containers() -> Any:
    try:
        from qdax.core.containers import mapelites_repertoire
    except ModuleNotFoundError:
        raise ValueError(
            "Archives need QDax: pip install --no-deps qdax==0.5.0 (or jaxnas[qd], with all that "
            "it requires)."
        ) from None
    return mapelites_repertoire
