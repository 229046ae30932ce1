"""The `info` of a chunk, stacked over steps and seeds, as rows of the ledger.

Letters: `T` steps in the chunk, `S` seeds, `N` candidates a step.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import PyTree

from jaxnas.core import Asked, Measured
from jaxnas.runs.rows import Candidate, Snapshot, Step


class Rows(NamedTuple):
    """One chunk, ready for `Run.record`.

    Attributes:
      steps: one for each step and seed, or for each seed alone.
      snapshots: one for each seed and array, of the last step.
      candidates: one for each step, seed and slot.
    """

    steps: list[Step]
    snapshots: list[Snapshot]
    candidates: list[Candidate]


def unstack(
    info: dict[str, Any],
    step: int,
    to_text: Callable[[PyTree], str],
    failures: Sequence[str] = (),
    *,
    averaged: bool = False,
) -> Rows:
    """Sorts a chunk into rows: `[T, S]` are metrics, anything larger is a snapshot.

    Args:
      info: host arrays `[T, S, ...]` by name; nested names are joined with `/`. `asked` and
        `measured` are the candidates `[T, S, N]`; one whose text is empty is none.
      step: the last step of the chunk.
      to_text: turns one genotype of host arrays into text.
      failures: the reasons that `measured.failure` counts.
      averaged: whether the metrics become one row, of the last step: means over the chunk, and of
        what is counted in whole numbers the last.

    Returns:
      The rows, with steps counted up to `step`.
    """
    named = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree.leaves_with_path(
            {name: info[name] for name in info if name not in ("asked", "measured")}
        )
    }
    metrics = {name: leaf for name, leaf in named.items() if leaf.ndim == 2}
    arrays = {name: leaf for name, leaf in named.items() if leaf.ndim > 2}
    t, s = jax.tree.leaves(info)[0].shape[:2]
    steps, seeds = range(step - t + 1, step + 1), range(s)
    told = steps[-1:] if averaged else steps
    columns = [_finite(_average(leaf) if averaged else leaf) for leaf in metrics.values()]
    values = zip(*columns, strict=True) if columns else itertools.repeat((), len(told) * s)
    places = itertools.product(told, seeds)
    records = (dict(zip(metrics, row, strict=True)) for row in values)
    return Rows(
        [Step(*place, record) for place, record in zip(places, records, strict=True)],
        [
            Snapshot(step, seed, name, leaf[-1, seed].tolist())
            for name, leaf in arrays.items()
            for seed in seeds
        ],
        _candidates(info["asked"], info["measured"], steps, to_text, failures)
        if "measured" in info
        else [],
    )


def _average(leaf: np.ndarray) -> np.ndarray:
    return leaf[-1] if np.issubdtype(leaf.dtype, np.integer) else leaf.mean(0, np.float64)


def _candidates(
    asked: Asked,
    measured: Measured,
    steps: range,
    to_text: Callable[[PyTree], str],
    failures: Sequence[str],
) -> list[Candidate]:
    shape = measured.fitness.shape
    leaves, structure = jax.tree.flatten(asked.genotypes)
    flat = [leaf.reshape(-1, *leaf.shape[3:]) for leaf in leaves]
    texts = (to_text(structure.unflatten(one)) for one in zip(*flat, strict=True))
    places = itertools.product(steps, range(shape[1]), range(shape[2]))
    scores = zip(_finite(measured.fitness), _finite(measured.cost), strict=True)
    codes = itertools.repeat(0) if measured.failure is None else measured.failure.reshape(-1)
    columns = zip(places, texts, scores, codes, _parents(asked.parents), strict=False)
    return [
        Candidate(*place, text, fitness, cost, _why(fitness, int(code), failures), parents)
        for place, text, (fitness, cost), code, parents in columns
        if text
    ]


def _why(fitness: float | None, code: int, failures: Sequence[str]) -> str | None:
    if fitness is not None:
        return None
    return failures[code] if 0 < code < len(failures) else "non-finite"


def _parents(serials: Any) -> Iterable[str | None]:
    """The parents of one candidate after another as text; `None` for those without any."""
    if serials is None:
        return itertools.repeat(None)
    rows = np.asarray(serials).reshape(-1, serials.shape[-1]).tolist()
    return (" ".join(str(serial) for serial in row if serial) or None for row in rows)


def _finite(leaf: Any) -> list[Any]:
    values = np.asarray(leaf).reshape(-1)
    finite = np.isfinite(values)
    if finite.all():
        return values.tolist()
    return [x if ok else None for x, ok in zip(values.tolist(), finite.tolist(), strict=True)]
