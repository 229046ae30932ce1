"""Who a candidate descends from, by the serial numbers that the ledger holds as parents.

The candidates of a seed are numbered from 1 by step and slot; a slot that was left empty has none.
"""

from bisect import bisect_left
from collections import deque
from typing import NamedTuple

from jaxnas.runs import ledger
from jaxnas.runs.rows import Candidate
from jaxnas.runs.store import Run


class Kin(NamedTuple):
    """A candidate in its family.

    Attributes:
      serial: its number within its seed, counted from 1.
      candidate: the candidate itself.
      parents: serial numbers of what it was made from, in the order of the searcher.
    """

    serial: int
    candidate: Candidate
    parents: tuple[int, ...]


def lineage(run: Run, of: Candidate, *, most: int = 100) -> list[Kin]:
    """A candidate and its ancestors: first from parent to first parent, then all others.

    Args:
      run: whose ledger holds them.
      of: whose ancestors.
      most: how many are looked up.

    Returns:
      The family, `of` first; who is not in the ledger is left out.
    """
    query = "SELECT step, slot FROM candidates WHERE seed = ? ORDER BY step, slot"
    places = ledger.read(run.folder / "run.sqlite", query, of.seed)
    family: dict[int, Kin] = {}
    todo = deque([bisect_left(places, (of.step, of.slot)) + 1])
    while todo and len(family) < most:
        serial = todo.popleft()
        if serial not in family and 0 < serial <= len(places):
            found = _find(run, of.seed, *places[serial - 1])
            parents = tuple(map(int, (found.parents or "").split()))
            family[serial] = Kin(serial, found, parents)
            todo.extendleft(parents[:1])
            todo.extend(parents[1:])
    return list(family.values())


def births(run: Run, seed: int) -> list[tuple[int, float]]:
    """Serial number and fitness of everyone that one seed could measure."""
    query = "SELECT fitness FROM candidates WHERE seed = ? ORDER BY step, slot"
    everyone = enumerate(ledger.read(run.folder / "run.sqlite", query, seed), 1)
    return [(serial, fitness) for serial, (fitness,) in everyone if fitness is not None]


def _find(run: Run, seed: int, step: int, slot: int) -> Candidate:
    query = "SELECT * FROM candidates WHERE step = ? AND seed = ? AND slot = ?"
    (row,) = ledger.read(run.folder / "run.sqlite", query, step, seed, slot)
    return Candidate(*row)
