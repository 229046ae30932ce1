"""Where sources are checked and programs trained: processes of a sandbox, and one with the device.

All of them start when they are first needed and end with this process.
"""

import atexit
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple

import numpy as np

from jaxnas.data.dataset import Dataset
from jaxnas.programs.judge import Check, Score, Train
from jaxnas.programs.sandbox import Limits, Pool, isolation
from jaxnas.programs.sandbox.program import Task
from jaxnas.programs.sandbox.trainer import Job
from jaxnas.programs.sandbox.worker import Outcome, Worker

KEY = np.zeros(2, np.uint32)  # batches are the same for all programs


class Training(NamedTuple):
    """How programs are trained.

    Attributes:
      batch: examples of a step.
      learning_rate: constant.
      optimizer: `adamw` or `sgd`.
      momentum: of SGD.
      weight_decay: see `sandbox.program.Task`.
      evaluate_every: steps between two looks at the validation split.
      together: programs trained at the same time, of use on an accelerator.
      deadline: seconds that these may take, compilation included.
    """

    batch: int = 128
    learning_rate: float = 0.01
    optimizer: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    evaluate_every: int = 100
    together: int = 1
    deadline: float = 600.0


class Bench(NamedTuple):
    """The two halves of a `Judge`.

    Attributes:
      check: sources to verdicts.
      train: `(seeds) -> train`, a program's score being the mean over runs from these seeds.
    """

    check: Check
    train: Callable[[Sequence[int]], Train]


def bench(
    dataset: Dataset,
    training: Training,
    *,
    level: str = "auto",
    workers: int = 2,
    limits: Limits = Limits(),  # noqa: B008
) -> Bench:
    """A sandbox and a trainer for one data set.

    Args:
      dataset: what is learned.
      training: how.
      level: of isolation, see `sandbox.Pool`.
      workers: sources checked at a time.
      limits: of one source.

    Raises:
      ValueError: if the level does not work here.
    """
    isolation.resolve(level)
    shape = dataset.train.x.shape[1:]
    task = Task(
        shape=tuple(shape),
        classes=len(dataset.classes),
        batch=training.batch,
        optimizer=training.optimizer,
        momentum=training.momentum,
        weight_decay=training.weight_decay,
    )

    @cache
    def pool() -> Pool:
        made = Pool(task, level=level, workers=workers, limits=limits)
        atexit.register(made.close)
        return made

    @cache
    def worker() -> Worker:
        made = Worker(dataset, together=training.together)
        atexit.register(made.close)
        return made

    def train(
        seeds: Sequence[int], programs: Sequence[Mapping[str, bytes]], steps: int
    ) -> list[Score]:
        rates = [training.learning_rate] * len(seeds)
        every = training.evaluate_every
        jobs = [Job(one, KEY, list(seeds), rates, steps, every) for one in programs]
        return [_score(outcome, steps) for outcome in worker().train(jobs, training.deadline)]

    return Bench(lambda sources: pool().check(sources), lambda seeds: partial(train, seeds))


def _score(outcome: Outcome, steps: int) -> Score:
    """The means over runs; a program of which one run diverged has no fitness."""
    trained = outcome.trained
    if trained is None:
        return Score(np.nan, np.nan, 0, outcome.failure)
    curve = tuple(trained.loss.mean(0).tolist())
    if (trained.diverged >= 0).any():
        return Score(np.nan, np.nan, int(trained.diverged.max()), "non-finite", curve)
    return Score(float(trained.valid.mean()), float(trained.test.mean()), steps, None, curve)
