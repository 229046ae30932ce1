"""What programs are to learn: networks to classify, triplet functions an algorithm of CLRS-30.

Example:
    >>> from jaxnas.data import load
    >>> lesson = classification(load("mnist1d"))
    >>> lesson.task.shape, lesson.name
    ((40,), 'mnist1d')
"""

from functools import partial
from typing import Any, NamedTuple

import jax

from jaxnas.data.dataset import Dataset
from jaxnas.programs import clrs_training
from jaxnas.programs.sandbox import Limits
from jaxnas.programs.sandbox.program import Task, direction
from jaxnas.programs.sandbox.trainer import Fit, fit_networks

LONG = Limits(seconds=180.0)  # the gradient through a run is traced once for each size of graphs


class Lesson(NamedTuple):
    """What there is to learn, for sandbox and trainer.

    Attributes:
      name: in labels.
      task: what sources are traced for, see `sandbox.Pool`.
      fit: trains their programs, in another process.
      evaluate_every: steps between two looks at the validation split, at most.
      limits: of checking one source.
    """

    name: str
    task: Any
    fit: Fit
    evaluate_every: int = 100
    limits: Limits = Limits()


def classification(
    dataset: Dataset,
    *,
    batch: int = 128,
    optimizer: str = "adamw",
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
) -> Lesson:
    """Networks that classify the examples of a data set.

    Args:
      dataset: which.
      batch: examples of a step.
      optimizer: `adamw` or `sgd`.
      momentum: of SGD.
      weight_decay: see `sandbox.program.Task`.

    Raises:
      ValueError: for an unknown optimizer, or a batch that is empty or larger than the training set.
    """
    if not 1 <= batch <= len(dataset.train.y):
        raise ValueError(
            f"`batch` (in recipes `train_batch`) must be from 1 to the {len(dataset.train.y)} examples "
            f"of {dataset.name}, but got {batch}."
        )
    task = Task(
        shape=tuple(dataset.train.x.shape[1:]),
        classes=len(dataset.classes),
        batch=batch,
        optimizer=optimizer,
        momentum=momentum,
        weight_decay=weight_decay,
    )
    direction(task)  # refuses what is no optimizer before anything is written
    return Lesson(dataset.name, task, partial(fit_networks, dataset))


def clrs(
    algorithm: str,
    *,
    nodes: tuple[int, ...] = (4, 7, 11, 13, 16),
    examples: int = 1000,
    batch: int = 32,
    hidden: int = 128,
) -> Lesson:
    """Triplet functions, in a network that learns to run an algorithm.

    Args:
      algorithm: one of `data.clrs_probes.ALGORITHMS`.
      nodes: of the graphs to train on, one number for each size; judged on the largest.
      examples: of each size to train on.
      batch: of them in a step.
      hidden: features of a node.

    Raises:
      DataError: if dm-clrs, whose samplers draw the examples, is absent.
      ValueError: for an algorithm that there is not, or a number below 1.
    """
    if not nodes or min(nodes) < 2:
        raise ValueError(f"`nodes` must be numbers from 2, but got {nodes}.")
    for name, number, least in (
        ("batch", batch, 1),
        ("hidden", hidden, 1),
        ("examples", examples, batch),
    ):
        if number < least:
            raise ValueError(f"`{name}` must be at least {least}, but got {number}.")
    drawn = clrs_training.draw(algorithm, jax.random.key(0), lengths=nodes, examples=examples)
    material = jax.device_get(drawn)  # the process that trains puts it on its own device
    task = clrs_training.setting(algorithm, material, batch=batch, hidden=hidden)
    fit = partial(clrs_training.fit_triplets, task, material)
    return Lesson(f"CLRS-30 {algorithm}", task, fit, evaluate_every=50, limits=LONG)
