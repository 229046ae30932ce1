"""Species: like is compared with like, so that a new kind of candidate has time to become good.

Stanley & Miikkulainen, "Evolving Neural Networks through Augmenting Topologies", Evolutionary
Computation 2002. A species is known by a representative; a candidate joins the first one that is
nearer than a threshold. Offspring are shared out by the mean rank of a species' members, so one
that is crowded gains nothing by it. All of it runs on the host.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int


def assign(
    distance: Callable[[Any, Any], float],
    representatives: Int[np.ndarray, "S ..."],
    alive: Bool[np.ndarray, " S"],
    genotypes: Int[np.ndarray, "P ..."],
    *,
    threshold: float,
) -> tuple[Int[np.ndarray, " P"], Int[np.ndarray, "S ..."], Bool[np.ndarray, " S"]]:
    """The species of each candidate.

    One that is near to no representative founds a species, or, when all `S` places are taken,
    joins the nearest.

    Args:
      distance: `(genotype, genotype) -> distance`.
      representatives: of the species so far.
      alive: which places are taken.
      genotypes: the candidates, in the order in which they join.
      threshold: distance from which on a candidate is of another kind.

    Returns:
      Species of each, all representatives, and which are taken.
    """
    kinds, taken, found = representatives.copy(), alive.copy(), []
    for genotype in genotypes:
        apart = np.array(
            [
                distance(genotype, one) if on else np.inf
                for one, on in zip(kinds, taken, strict=True)
            ]
        )
        near = np.flatnonzero(apart < threshold)
        place = int(near[0]) if len(near) else int(np.argmin(apart))
        if not len(near) and not taken.all():
            place = int(np.argmin(taken))
            kinds[place], taken[place] = genotype, True
        found.append(place)
    return np.array(found, np.int32), kinds, taken


def shares(
    fitness: Float[np.ndarray, " P"], species: Int[np.ndarray, " P"], *, places: int, offspring: int
) -> Int[np.ndarray, " S"]:
    """How many children each species has: in proportion to the mean rank of its members.

    Args:
      fitness: of all members; ranks are used, so any scale does, and `-inf` counts nothing.
      species: of each.
      places: species there may be, `S`.
      offspring: children in all.

    Returns:
      Whole numbers that sum to `offspring`; what is left over by rounding goes to the largest
      remainders.
    """
    ranks = np.where(np.isfinite(fitness), fitness.argsort().argsort() + 1.0, 0.0)
    mean = np.array(
        [ranks[species == s].mean() if (species == s).any() else 0.0 for s in range(places)]
    )
    if not mean.any():
        mean = np.bincount(species, minlength=places).astype(float)
    exact = offspring * mean / mean.sum()
    whole = np.floor(exact).astype(np.int32)
    rest = np.argsort(whole - exact, kind="stable")[: offspring - whole.sum()]
    whole[rest] += 1
    return whole


def champions(
    fitness: Float[np.ndarray, " P"], species: Int[np.ndarray, " P"], *, places: int
) -> Int[np.ndarray, " S"]:
    """The best member of each species, -1 where none has a finite fitness."""
    best = np.full(places, -1, np.int32)
    for s in range(places):
        members = np.flatnonzero((species == s) & np.isfinite(fitness))
        if len(members):
            best[s] = members[np.argmax(fitness[members])]
    return best
