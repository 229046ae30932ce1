"""Hands on the best program that a run found: its source, below what it scored and where.

A recipe over programs has this function as its `export`, for `jaxnas export RUN --out FILE.py`.
"""

import math
from pathlib import Path
from typing import Any

from jaxnas.runs.rows import Result
from jaxnas.runs.store import Run


def export(run: Run, out: Path, seed: int | None = None) -> list[Path]:
    """Writes the program that a finished run found as a Python file.

    The text is a model's and is only copied, never run.

    Args:
      run: the run.
      out: the file; `program.py` in it, if it does not end in `.py`.
      seed: which of the run's seeds; `None` for the best by the final evaluation.

    Returns:
      The file.

    Raises:
      ValueError: if the run is not finished or found no program, or `seed` is none of its seeds.
    """
    chosen = answers(run, seed)
    best = max(chosen, key=lambda row: _known(row).get("fitness", -math.inf))
    if "\n" not in best.genotype.strip():
        raise ValueError(f"{run.folder} found no program, but {best.genotype!r}.")
    file = out if out.suffix == ".py" else out / "program.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(header(run, best) + best.genotype.strip("\n") + "\n", encoding="utf-8")
    return [file]


def answers(run: Run, seed: int | None = None) -> list[Result]:
    """What the seeds of a run found, or one of them.

    Raises:
      ValueError: if the run is not finished or found nothing, or `seed` is none of its seeds.
    """
    found = [row for row in run.results() if row.kind == "found"]
    if not run.ended() or not (found or run.barren()):
        raise ValueError(f"{run.folder} is not finished; continue it first: jaxnas resume.")
    if not found:
        raise ValueError(f"{run.folder} found nothing: no candidate of it could be measured.")
    chosen = [row for row in found if seed is None or row.seed == seed]
    if not chosen:
        known = ", ".join(str(row.seed) for row in found)
        raise ValueError(f"`seed` must be one that found something, {known}, but got {seed}.")
    return chosen


def header(run: Run, best: Result) -> str:
    """What is to be known of a program, as comments above it."""
    config, meta = run.config, run.meta()
    scores = ", ".join(f"{name} {value:g}" for name, value in _known(best).items())
    lines = [
        f"Written by a language model; found by jaxnas {config.get('jaxnas')} in the run "
        f"{run.folder.resolve().name} ({config.get('recipe')}, preset {config.get('preset')}, key "
        f"{config.get('key')}, seed {best.seed}).",
        f"Scores: {scores}.",
        f"Fitness is {meta.get('fitness_label')}.",
        f"Command: {config.get('command')}",
    ]
    # A line break in any of them would end the comment.
    return "".join(f"# {' '.join(line.split())}\n" for line in lines) + "\n"


def _known(row: Result) -> dict[str, Any]:
    return {name: value for name, value in row.metrics.items() if value is not None}
