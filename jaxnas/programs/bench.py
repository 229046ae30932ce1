"""Where sources are checked and programs trained: processes of a sandbox, and one with the device."""

from typing import NamedTuple

from jaxnas.data.dataset import Dataset
from jaxnas.programs.judge import Check, Train
from jaxnas.programs.sandbox import Limits


class Training(NamedTuple):
    """How programs are trained.

    Attributes:
      batch: examples of a step.
      learning_rate: constant.
      optimizer: `adamw` or `sgd`.
      momentum: of SGD.
      weight_decay: see `sandbox.program.Task`.
      evaluate_every: steps between two looks at the validation split.
      runs: trainings, whose mean accuracies count.
      deadline: seconds for all runs of a program, compilation included.
    """

    batch: int = 128
    learning_rate: float = 0.01
    optimizer: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    evaluate_every: int = 100
    runs: int = 1
    deadline: float = 600.0


class Bench(NamedTuple):
    """The two halves of a `Judge`.

    Attributes:
      check: sources to verdicts.
      train: programs to scores.
    """

    check: Check
    train: Train


def bench(
    dataset: Dataset, training: Training, *, level: str = "auto", workers: int = 2, limits: Limits
) -> Bench:
    """Not yet."""
    raise NotImplementedError
