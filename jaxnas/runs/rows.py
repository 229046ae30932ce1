"""The rows of a run's ledger, their tables, and JSON in which every float survives."""

import json
import math
from typing import Any, NamedTuple

TABLES = """
CREATE TABLE steps (step INTEGER, seed INTEGER, metrics TEXT,
  PRIMARY KEY (step, seed)) WITHOUT ROWID;
CREATE TABLE snapshots (step INTEGER, seed INTEGER, name TEXT, value TEXT,
  PRIMARY KEY (step, seed, name)) WITHOUT ROWID;
CREATE TABLE candidates (step INTEGER, seed INTEGER, slot INTEGER, genotype TEXT, fitness REAL,
  cost REAL, failure TEXT, parents TEXT, source TEXT,
  PRIMARY KEY (step, seed, slot)) WITHOUT ROWID;
CREATE TABLE results (kind TEXT, seed INTEGER, genotype TEXT, metrics TEXT, graph TEXT,
  PRIMARY KEY (kind, seed)) WITHOUT ROWID;
CREATE TABLE curves (name TEXT PRIMARY KEY, points TEXT, note TEXT);
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT);
"""


class Step(NamedTuple):
    """What one seed reported after one step.

    Attributes:
      step: counted from 1.
      seed: position on the seed axis `S`.
      metrics: scalars by name; `None` stands for a value that was not finite.
    """

    step: int
    seed: int
    metrics: dict[str, Any]


class Snapshot(NamedTuple):
    """An array worth keeping over time, such as the mixing weights `[edges, ops]` of a supernet.

    Attributes:
      step: counted from 1.
      seed: position on the seed axis `S`.
      name: what it shows.
      value: nested lists.
    """

    step: int
    seed: int
    name: str
    value: list[Any]


class Candidate(NamedTuple):
    """One measured candidate.

    Attributes:
      step: counted from 1.
      seed: position on the seed axis `S`.
      slot: position on the candidate axis `N` of that step.
      genotype: its text.
      fitness: higher is better; `None` for one that could not be built or diverged.
      cost: what the measurement was charged.
      failure: why there is no fitness.
      parents: serial numbers of what it was made from, divided by spaces, see `Asked.parents`.
      source: program text, where candidates are programs.
    """

    step: int
    seed: int
    slot: int
    genotype: str
    fitness: float | None
    cost: float | None
    failure: str | None = None
    parents: str | None = None
    source: str | None = None


class Result(NamedTuple):
    """A cell judged at the end.

    Attributes:
      kind: `found` (one for each search seed) or `random` (baseline of the same judge).
      seed: which search seed, or which random cell.
      genotype: its text.
      metrics: scalars by name.
      graph: `{"nodes": [name, ...], "edges": [[source, target, label], ...]}` with node positions
        as source and target, or several such graphs by name (`{"normal": {...}, ...}`).
    """

    kind: str
    seed: int
    genotype: str
    metrics: dict[str, Any]
    graph: dict[str, Any] | None = None


class Curve(NamedTuple):
    """A reference line for the search curve, e.g. random search at an equal budget.

    Attributes:
      name: its label.
      points: `{"x": [...], "mean": [...], "low": [...], "high": [...]}`, `x` in units of cost.
      note: how it was made.
    """

    name: str
    points: dict[str, list[float]]
    note: str = ""


def to_json(value: Any) -> str:
    """Writes strict JSON: numbers that are not finite become `null`, arrays become lists.

    Raises:
      TypeError: if something is neither a plain value nor an array.
    """
    try:
        return json.dumps(value, allow_nan=False, default=_plain, ensure_ascii=False)
    except ValueError:
        return json.dumps(finite(value), allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"A run stores numbers, text, lists and dicts, but got {type(value)}.")


def finite(value: Any) -> Any:
    """The same plain value, with `None` for every number that is not finite."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
