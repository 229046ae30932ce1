"""What a recipe builds: a search, and everything that is said about what it finds."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from jaxnas.cells import nas_bench_201
from jaxnas.cells.tabular import Tabular
from jaxnas.cells.trained import Trained
from jaxnas.core import Asked, Leg, Problem
from jaxnas.runs.rows import Curve, Result


class System(NamedTuple):
    """A search ready to run.

    Attributes:
      legs: for one seed; the last one gives the answer.
      every: steps between two records and checkpoints.
      mode: how chunks are run, see `core.relay`.
      seeds: how seeds are carried, see `core.over_seeds`.
      judge: the problem that every answer is measured by, at full budget.
      describe: `(extra of one measured cell) -> metrics` beyond its fitness.
      baseline: `(key, seeds) -> genotypes [M, 6]` measured beside the answers.
      curve: `(random results) -> Curve`, random search at an equal budget, or `None`.
      labels: facts for the run's ledger: what fitness and cost are, names of operations, edges.
    """

    legs: Sequence[Leg]
    every: int
    mode: str
    seeds: str
    judge: Problem
    describe: Callable[[Any], dict[str, float]]
    baseline: Callable[[Key[Array, ""], int], Int[Array, "M 6"]] | None
    curve: Callable[[list[Result]], Curve] | None
    labels: dict[str, Any]


def judged(
    system: System, key: Key[Array, ""], kind: str, genotypes: Int[Array, "M 6"]
) -> list[Result]:
    """Measures cells by the system's judge, as rows of the ledger."""
    asked = Asked(genotypes, jax.numpy.full(len(genotypes), -1))
    measured = jax.device_get(system.judge.evaluate(key, asked))
    rows = []
    for n, genotype in enumerate(np.asarray(genotypes)):
        extra = jax.tree.map(lambda leaf, n=n: leaf[n], measured.extra)
        metrics = {"fitness": float(measured.fitness[n]), **system.describe(extra)}
        text = nas_bench_201.to_text(genotype)
        rows.append(Result(kind, n, text, metrics, graph(genotype)))
    return rows


def graph(genotype: np.ndarray) -> dict[str, Any]:
    """A cell as nodes and labelled edges, for pictures."""
    nodes = ["input", *(str(n) for n in range(1, nas_bench_201.NODES - 1)), "output"]
    ops = [nas_bench_201.OPS[op] for op in genotype]
    edges = [[*edge, op] for edge, op in zip(nas_bench_201.EDGES, ops, strict=True)]
    return {"nodes": nodes, "edges": edges}


def cell_labels(judge: Tabular | Trained, cost: str) -> dict[str, Any]:
    """Labels of every system over NAS-Bench-201 cells."""
    edges = [f"{j} to {i}" for j, i in nas_bench_201.EDGES]
    return {
        "fitness_label": judge.label,
        "reported_label": judge.reported_label,
        "cost_label": cost,
        "operations": list(nas_bench_201.OPS),
        "edges": edges,
    }
