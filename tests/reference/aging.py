"""Aging evolution as the paper's notebook has it: a queue, in plain Python.

It is told every random draw, so it can be compared with the compiled search candidate by candidate.
Draws name slots of a ring buffer whose slot `births % P` holds the oldest; a queue counts from its
oldest member.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any


def aging_evolution(
    founders: Sequence[Any],
    draws: Sequence[Sequence[Sequence[int]]],
    mutate: Callable[[int, int, Any], Any],
    evaluate: Callable[[int, list[Any]], list[float]],
    batch: int,
) -> tuple[list[tuple[Any, float]], list[tuple[Any, float]], list[int]]:
    """Everybody who ever lived, in order of birth, those alive at the end, oldest first, and parents.

    A parent is named by its birth, counted from 1; founders have parent 0.

    Args:
      founders: the first `P` genotypes.
      draws: for every step and child of it, the slots of its tournament.
      mutate: `(step, child, parent) -> genotype`.
      evaluate: `(step, genotypes) -> fitness of each`.
      batch: children per step.
    """
    population: deque[tuple[Any, float]] = deque()
    history: list[tuple[Any, float]] = []
    parents: list[int] = []
    size = len(founders)
    for step, tournaments in enumerate(draws):
        births = step * batch
        if births < size:
            born = list(founders[births : births + batch])
            parents += [0] * batch
        else:
            born = []
            for child, slots in enumerate(tournaments):
                best = parent = None
                for slot in slots:
                    place = (slot - births) % size
                    rival = population[place]
                    if best is None or rival[1] > best[1]:
                        best, parent = rival, births - size + place + 1
                parents.append(parent)
                born.append(mutate(step, child, best[0]))
        newcomers = list(zip(born, evaluate(step, born), strict=True))
        for newcomer in newcomers:
            if len(population) == size:
                population.popleft()
            population.append(newcomer)
        history.extend(newcomers)
    return history, list(population), parents
