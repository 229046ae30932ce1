"""Spaces that can be searched: their judge, and how their cells are written down."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxnas.cells import cell_text, darts_space, nas_bench_201
from jaxnas.cells.trained import Trained, random_cells, trained, trained_pairs

CARRY_NOTHING = ("none", "noise")


class Notation(NamedTuple):
    """How genotypes that are no cells are written down.

    Attributes:
      to_text: genotype to text.
      graph: genotype to a picture's data: nodes and labelled edges, or `tree` `[name, ...]`, with
        its `latex` and, of a function of one variable, its `shape`: points `x` and `y`.
    """

    to_text: Callable[[Any], str]
    graph: Callable[[Any], dict[str, Any]]


class SearchSpace(NamedTuple):
    """What recipes need to know of a space.

    Attributes:
      trained: `(dataset, recipe, channels=, layers=) -> Trained`.
      random: `(key, n) -> genotypes` to judge beside what is found.
      to_text: genotype to text.
      graph: genotype to nodes and labelled edges, for pictures.
      operations: names of the choices on an edge; numbered where they differ from edge to edge.
      edges: names of the edges.
    """

    trained: Callable[..., Trained]
    random: Callable[[Key[Array, ""], int], PyTree]
    to_text: Callable[[Any], str]
    graph: Callable[[Any], dict[str, Any]]
    operations: tuple[str, ...]
    edges: tuple[str, ...]


def find(name: str) -> SearchSpace:
    """The space of that name: `nas_bench_201`, `darts`, `s5` or `s1` to `s4`.

    Raises:
      ValueError: if there is none.
    """
    if name == "nas_bench_201":
        return NAS_BENCH_201
    if name not in darts_space.SPACES:
        known = ", ".join(["nas_bench_201", *darts_space.SPACES])
        raise ValueError(f"`space` must be one of {known}, but got {name!r}.")
    choices = [ops for cell in darts_space.edge_ops(name) for ops in cell]
    alike = len(set(choices)) == 1
    return SearchSpace(
        partial(trained_pairs, space=name),
        partial(darts_space.sample, space=name),
        darts_space.to_text,
        lambda genotype: pair_graph(darts_space.decode(genotype)),
        choices[0] if alike else tuple(f"choice {k}" for k in range(len(choices[0]))),
        tuple(f"{kind} {j} to {i}" for kind in ("normal", "reduce") for j, i in darts_space.EDGES),
    )


def cell_graph(genotype: np.ndarray) -> dict[str, Any]:
    """A NAS-Bench-201 cell as nodes and labelled edges."""
    nodes = ["input", *(str(n) for n in range(1, nas_bench_201.NODES - 1)), "output"]
    ops = [nas_bench_201.OPS[op] for op in genotype]
    edges = [[*edge, op] for edge, op in zip(nas_bench_201.EDGES, ops, strict=True)]
    return {"nodes": nodes, "edges": edges}


def pair_graph(genotype: cell_text.Genotype) -> dict[str, Any]:
    """A normal and a reduction cell, each with edges to its output."""
    return {
        "normal": _half(genotype.normal, genotype.normal_concat),
        "reduce": _half(genotype.reduce, genotype.reduce_concat),
    }


def _half(entries: cell_text.Entries, concat: tuple[int, ...]) -> dict[str, Any]:
    count = len(entries) // 2
    nodes = ["c_{k-2}", "c_{k-1}", *map(str, range(count)), "c_{k}"]
    edges: list[list[Any]] = [[s, n // 2 + 2, op] for n, (op, s) in enumerate(entries)]
    return {"nodes": nodes, "edges": edges + [[i, count + 2, ""] for i in concat]}


def connected(graph: dict[str, Any]) -> bool:
    """Whether something of an input reaches the output, in every cell of a picture's graph."""
    cells = [graph] if "edges" in graph else list(graph.values())
    return all(map(_leads_through, cells))


def _leads_through(cell: dict[str, Any]) -> bool:
    reached = set(range(len(cell["nodes"]))) - {target for _, target, _ in cell["edges"]}
    for source, target, op in sorted(cell["edges"], key=lambda edge: edge[1]):
        if source in reached and op not in CARRY_NOTHING:
            reached.add(target)
    return len(cell["nodes"]) - 1 in reached


NAS_BENCH_201 = SearchSpace(
    trained,
    random_cells,
    nas_bench_201.to_text,
    cell_graph,
    nas_bench_201.OPS,
    tuple(f"{j} to {i}" for j, i in nas_bench_201.EDGES),
)
