"""Where sources are checked and programs trained: processes of a sandbox, and one with the device.

All of them start when they are first needed and end with this process.
"""

import atexit
from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.export import default_export_platform

from jaxnas.programs.judge import Check, Score, Starts, Train
from jaxnas.programs.lessons import Lesson
from jaxnas.programs.sandbox import Limits, Pool, isolation
from jaxnas.programs.sandbox.trainer import Job
from jaxnas.programs.sandbox.worker import Outcome, Worker

SEVERAL = 4  # programs at the same time on an accelerator; compiling them takes as many cores
KEY = np.zeros(2, np.uint32)  # batches are the same for all programs
_WORKERS: dict[tuple[int, int], tuple[Lesson, Worker]] = {}


class Training(NamedTuple):
    """How programs are trained.

    Attributes:
      learning_rate: constant.
      evaluate_every: steps between two looks at the validation split.
      runs: trainings, whose mean accuracies count.
      seed: of the first run; the next ones follow.
      together: programs trained at the same time; 0 for one on a CPU and several on an accelerator,
        which one small program does not fill.
      deadline: seconds that these may take for each of the runs, compilation included.
      tested: whether a test set is scored too, as for answers, not in a search.
    """

    learning_rate: float = 0.01
    evaluate_every: int = 100
    runs: int = 1
    seed: int = 0
    together: int = 0
    deadline: float = 600.0
    tested: bool = True


class Bench(NamedTuple):
    """The two halves of a `Judge`.

    Attributes:
      check: sources to verdicts.
      train: programs to scores, means over runs.
    """

    check: Check
    train: Train


def bench(lesson: Lesson, training: Training, *, level: str = "auto", workers: int = 2) -> Bench:
    """A sandbox and a trainer, which all benches of one lesson share as far as they can.

    Args:
      lesson: what is learned.
      training: how.
      level: of isolation, see `sandbox.Pool`.
      workers: sources checked at a time.

    Raises:
      ValueError: if the level does not work here, or a number is out of range.
    """
    isolation.resolve(level)
    given = {"workers": workers} | training._asdict()
    for name in ("workers", "runs"):
        if given[name] < 1:
            raise ValueError(f"`{name}` must be at least 1, but got {given[name]}.")
    for name in ("learning_rate", "deadline"):
        if not given[name] > 0:
            raise ValueError(f"`{name}` must be positive, but got {given[name]}.")
    together = _together(training)
    # That of the worker, which takes over our settings.
    task = lesson.final if training.tested else lesson.task
    task = task._replace(platforms=(default_export_platform(),))
    seeds = range(training.seed, training.seed + training.runs)
    rates = [training.learning_rate] * training.runs

    def train(
        programs: Sequence[Mapping[str, bytes]], steps: int, starts: Starts | None = None
    ) -> list[Score]:
        every, starts = training.evaluate_every, starts or [None] * len(programs)
        jobs = [
            Job(one, KEY, list(seeds), rates, steps, every, start, training.tested)
            for one, start in zip(programs, starts, strict=True)
        ]
        outcomes = _worker(lesson, together).train(jobs, training.deadline * training.runs)
        return [_score(outcome, steps) for outcome in outcomes]

    pool = partial(_pool, task, level, workers, lesson.limits)
    return Bench(lambda sources: pool().check(sources), train)


def _together(training: Training) -> int:
    if training.together < 0:
        raise ValueError(
            f"`together` must be at least 1, or 0 to go by the device, but got {training.together}."
        )
    return training.together or (1 if jax.default_backend() == "cpu" else SEVERAL)


@cache
def _pool(task: Any, level: str, workers: int, limits: Limits) -> Pool:
    made = Pool(task, level=level, workers=workers, limits=limits)
    atexit.register(made.close)
    return made


def _worker(lesson: Lesson, together: int) -> Worker:
    if (id(lesson), together) not in _WORKERS:
        made = Worker(lesson.fit, together=together)
        atexit.register(made.close)
        _WORKERS[id(lesson), together] = lesson, made  # held, so that its id stays its own
    return _WORKERS[id(lesson), together][1]


def _score(outcome: Outcome, steps: int) -> Score:
    """The means over runs; a program of which one run diverged has no fitness."""
    trained = outcome.trained
    if trained is None:
        return Score(np.nan, np.nan, 0, outcome.failure, message=outcome.message)
    curve = tuple(trained.loss.mean(0).tolist())
    if (trained.diverged >= 0).any():
        message = f"The loss is not finite at step {trained.diverged.max()}."
        return Score(np.nan, np.nan, int(trained.diverged.max()), "non-finite", curve, message)
    valid, test = float(trained.valid.mean()), float(trained.test.mean())
    weights = trained.weights[0] if trained.weights.size else None
    return Score(valid, test, steps, None, curve, weights=weights)
