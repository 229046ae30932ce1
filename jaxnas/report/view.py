"""One run as a report needs it: the ledger as arrays over steps and seeds."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas.runs.rows import Result, Snapshot, Step
from jaxnas.runs.store import Run, open_run

# Okabe and Ito's palette for colour-blind readers, its yellow replaced: it fades on white.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#4d4d4d", "#8c6d31")
FAINT = "#b4bac2"


class Series(NamedTuple):
    """An array over time.

    Attributes:
      steps: `[T]`.
      values: `[T, S, ...]`, NaN where nothing was recorded.
    """

    steps: np.ndarray
    values: np.ndarray


class View(NamedTuple):
    """What is shown of one run.

    Attributes:
      name: tells runs on one page apart.
      run: the run itself.
      meta: facts about it.
      metrics: `[T, S]` by name.
      snapshots: `[T, S, ...]` by name.
      results: judged cells.
      colours: one colour for each operation.
    """

    name: str
    run: Run
    meta: dict[str, Any]
    metrics: dict[str, Series]
    snapshots: dict[str, Series]
    results: list[Result]
    colours: dict[str, str]


def answer(one: View) -> Result | None:
    """The best of what was found, once it is judged."""
    found = [result for result in one.results if result.kind == "found"]
    return max(found, key=_rank, default=None)


def noun(one: View) -> str:
    """What a candidate is called."""
    return str(one.meta.get("noun", "cell"))


def _rank(result: Result) -> float:
    fitness = result.metrics.get("fitness")
    return fitness if isinstance(fitness, int | float) else -np.inf


def view(folder: Path) -> View:
    """Reads one run folder.

    Raises:
      BrokenRunError: if it cannot be read.
    """
    run = open_run(folder)
    meta, results = run.meta(), run.results()
    operations = [str(name) for name in meta.get("operations", ())]
    operations += sorted({label for r in results for label in _labels(r.graph)} - {*operations})
    return View(
        run.folder.resolve().name,
        run,
        meta,
        _metrics(run.steps()),
        _snapshots(run.snapshots()),
        results,
        palette(operations),
    )


def graphs(graph: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """The graphs of a result by name, `""` where there is only one."""
    if not graph:
        return {}
    return {"": graph} if "edges" in graph or "tree" in graph else graph


def palette(operations: list[str]) -> dict[str, str]:
    """A colour for each operation, grey for the one that does nothing."""
    alive = [name for name in dict.fromkeys(operations) if not is_none(name)]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(alive)}
    return {name: colours.get(name, FAINT) for name in dict.fromkeys(operations)}


def is_none(operation: str) -> bool:
    """Whether an edge with this label carries nothing."""
    return operation.lower() in ("none", "zero", "zeroize")


def _labels(graph: dict[str, Any] | None) -> set[str]:
    edges = [edge for g in graphs(graph).values() for edge in g.get("edges", ())]
    return {str(label) for *_, label in edges if label}


def _metrics(rows: list[Step]) -> dict[str, Series]:
    """Every metric at the steps that told it."""
    seeds = max((row.seed for row in rows), default=0) + 1
    told: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        for name, value in row.metrics.items():
            if not isinstance(value, str | list | dict):
                at = told.setdefault(name, {}).setdefault(row.step, [np.nan] * seeds)
                at[row.seed] = np.nan if value is None else value
    return {
        name: Series(np.array(sorted(found)), np.array([found[step] for step in sorted(found)]))
        for name, found in told.items()
    }


def _snapshots(rows: list[Snapshot]) -> dict[str, Series]:
    by_name: dict[str, list[Snapshot]] = {}
    for row in rows:
        by_name.setdefault(row.name, []).append(row)
    return {name: _series(rows) for name, rows in by_name.items()}


def _series(rows: list[Snapshot]) -> Series:
    steps = np.array(sorted({row.step for row in rows}), int)
    place, seeds = {step: i for i, step in enumerate(steps)}, max(row.seed for row in rows)
    shape = np.array(rows[0].value, float).shape
    values = np.full((len(steps), seeds + 1, *shape), np.nan)
    for row in rows:
        values[place[row.step], row.seed] = np.array(row.value, float)
    return Series(steps, values)
