"""What a recipe builds: a search, and everything that is said about what it finds."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxnas.cells.tabular import Tabular
from jaxnas.cells.trained import Trained
from jaxnas.core import Asked, Leg, Problem
from jaxnas.recipes.search_spaces import Notation, SearchSpace, connected
from jaxnas.runs.rows import Curve, Result
from jaxnas.runs.store import Run


class System(NamedTuple):
    """A search ready to run.

    Attributes:
      legs: for one seed; the last one gives the answer.
      every: steps between two records and checkpoints.
      mode: how chunks are run, see `core.relay`.
      seeds: how seeds are carried, see `core.over_seeds`.
      judge: the problem that every answer is measured by, at full budget.
      describe: `(extra of one measured cell) -> metrics` beyond its fitness.
      baseline: `(key, seeds) -> {kind: genotypes [M, ...]}` judged beside the answers; the kind
        `random` is what a search must beat.
      curve: `(random results) -> Curve`, random search at an equal budget, or `None`.
      space: how genotypes are written down.
      labels: facts for the run's ledger: what fitness and cost are, names of operations, edges.
      failures: reasons that the searched problem counts, see `Measured.failure`.
      trace: `(extra of one judged genotype) -> points` of the curve of its training, or `None`.
      notes: `(state, leaves [S, ...]) -> ` facts for the ledger that are known in the end.
      attach: `(run) -> None`, told of the run, open for writing, before the search starts or goes
        on, so that what happens outside the search (calls of a model) finds its folder.
      saved: `(state, leaves [S, ...]) -> None`, told of each state when its checkpoint has begun, so
        that files which no state needs any more can go.
    """

    legs: Sequence[Leg]
    every: int
    mode: str
    seeds: str
    judge: Problem
    describe: Callable[[Any], dict[str, float]]
    baseline: Callable[[Key[Array, ""], int], dict[str, PyTree]] | None
    curve: Callable[[list[Result]], Curve] | None
    space: SearchSpace | Notation
    labels: dict[str, Any]
    failures: tuple[str, ...] = ()
    trace: Callable[[Any], dict[str, list[float]]] | None = None
    notes: Callable[[PyTree], dict[str, Any]] | None = None
    attach: Callable[[Run], None] | None = None
    saved: Callable[[PyTree], None] | None = None


class Judged(NamedTuple):
    """What a judge said of genotypes of one kind.

    Attributes:
      rows: one for each.
      curves: of their training, named `training/KIND/SEED`, where the system traces it.
    """

    rows: list[Result]
    curves: list[Curve]


def judged(
    system: System,
    key: Key[Array, ""],
    kind: str,
    genotypes: PyTree,
    which: Sequence[int] | None = None,
) -> Judged:
    """Measures genotypes by the system's judge, as rows of the ledger.

    A cell is `connected` (1) or lets nothing reach its output (0), and is then judged at chance.

    Args:
      system: whose judge.
      key: of what is random about it.
      kind: of the rows.
      genotypes: `[M, ...]`.
      which: of them are meant; `None` for all.
    """
    numbers = range(len(genotypes)) if which is None else which
    if not numbers:
        return Judged([], [])
    if len(numbers) < len(genotypes):
        genotypes = genotypes[np.array(numbers)]
    asked = Asked(genotypes, jax.numpy.full(len(genotypes), -1))
    measured = jax.device_get(system.judge.evaluate(key, asked))
    rows, curves, space = [], [], system.space
    for at, (n, genotype) in enumerate(zip(numbers, np.asarray(genotypes), strict=True)):
        extra = jax.tree.map(lambda leaf, at=at: leaf[at], measured.extra)
        metrics: dict[str, float] = {"fitness": float(measured.fitness[at])}
        metrics |= system.describe(extra)
        graph = space.graph(genotype)
        if isinstance(space, SearchSpace):
            metrics["connected"] = int(connected(graph))
        rows.append(Result(kind, n, space.to_text(genotype), metrics, graph))
        if system.trace:
            curves.append(Curve(f"training/{kind}/{n}", system.trace(extra), rows[-1].genotype))
    return Judged(rows, curves)


def cell_labels(space: SearchSpace, judge: Tabular | Trained, cost: str) -> dict[str, Any]:
    """Labels of every system over cells."""
    return {
        "fitness_label": judge.label,
        "reported_label": judge.reported_label,
        "cost_label": cost,
        "operations": list(space.operations),
        "edges": list(space.edges),
    }
