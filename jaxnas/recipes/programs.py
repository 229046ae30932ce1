"""What recipes whose candidates are programs share: their judges, and the curve of a training."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnas.programs.bench import Training, bench
from jaxnas.programs.judge import Judge
from jaxnas.programs.lessons import Lesson


def judges(
    lesson: Lesson,
    training: Training,
    *,
    steps: int,
    runs: int,
    seeds: Sequence[str],
    level: str,
    workers: int,
) -> tuple[Judge, Judge]:
    """Who judges in the search, by one run, and who judges its answers, by others.

    Args:
      lesson: what is learned.
      training: how; when it is looked at and by which runs is decided here.
      steps: of a training.
      runs: whose mean judges the answers.
      seeds: sources whose random edits are samples.
      level: of the sandbox's isolation.
      workers: sources checked at a time.
    """

    def judge(runs: int, seed: int) -> Judge:
        how = training._replace(evaluate_every=every(lesson, steps), runs=runs, seed=seed)
        halves = bench(lesson, how, level=level, workers=workers)
        return Judge(*halves, steps=steps, seeds=seeds)

    return judge(1, 0), judge(runs, 1)


def every(lesson: Lesson, steps: int) -> int:
    """Steps between two looks at the validation split: a twentieth of a training, or fewer."""
    return max(1, min(lesson.evaluate_every, steps // 20))


def trace(lesson: Lesson, steps: int, extra: Any) -> dict[str, list[float]]:
    """The loss of a training of so many steps, from the `extra` of `programs.judge`."""
    loss = np.asarray(extra["curve"], float).tolist()
    ends = [float(min(steps, (n + 1) * every(lesson, steps))) for n in range(len(loss))]
    return {"x": ends, "mean": loss, "low": loss, "high": loss}
