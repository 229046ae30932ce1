"""Who a candidate descends from, by the serial numbers that the ledger holds as parents.

A search asks for equally many candidates at every step, so the candidate of a step and slot has
the serial number `(step - 1) N + slot + 1`.
"""

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
    width = _width(run)
    family: dict[int, Kin] = {}
    todo = deque([(of.step - 1) * width + of.slot + 1])
    while todo and len(family) < most:
        serial = todo.popleft()
        found = None if serial in family else _find(run, of.seed, serial, width)
        if found:
            parents = tuple(map(int, (found.parents or "").split()))
            family[serial] = Kin(serial, found, parents)
            todo.extendleft(parents[:1])
            todo.extend(parents[1:])
    return list(family.values())


def births(run: Run, seed: int) -> list[tuple[int, float]]:
    """Serial number and fitness of everyone that one seed could measure."""
    query = "SELECT (step - 1) * ? + slot + 1, fitness FROM candidates WHERE seed = ?"
    order = "AND fitness IS NOT NULL ORDER BY step, slot"
    return ledger.read(run.folder / "run.sqlite", f"{query} {order}", _width(run), seed)


def _width(run: Run) -> int:
    query = "SELECT COALESCE(MAX(slot), 0) + 1 FROM candidates"
    ((width,),) = ledger.read(run.folder / "run.sqlite", query)
    return width


def _find(run: Run, seed: int, serial: int, width: int) -> Candidate | None:
    step, slot = divmod(serial - 1, width)
    query = "SELECT * FROM candidates WHERE step = ? AND seed = ? AND slot = ?"
    rows = ledger.read(run.folder / "run.sqlite", query, step + 1, seed, slot)
    return Candidate(*rows[0]) if rows else None
