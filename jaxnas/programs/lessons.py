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

from jaxnas.data.clrs import least_nodes
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
      task: what sources are traced for in a search, see `sandbox.Pool`.
      final: what for where a result is judged: the same, and a test set.
      fit: trains the programs of either, in another process.
      evaluate_every: steps between two looks at the validation split, at most.
      limits: of checking one source.
    """

    name: str
    task: Any
    final: Any
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
            f"`batch` must be from 1 to the {len(dataset.train.y)} examples "
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
    return Lesson(dataset.name, task, task, partial(fit_networks, dataset))


def clrs(
    algorithm: str,
    *,
    nodes: tuple[int, ...] = (4, 7, 11, 13, 16),
    test_nodes: int | None = None,
    examples: int = 1000,
    batch: int = 32,
    hidden: int = 128,
) -> Lesson:
    """Triplet functions, in a network that learns to run an algorithm.

    Args:
      algorithm: one of `data.clrs_probes.ALGORITHMS`.
      nodes: of the graphs to train on, one number for each size; validated on the largest.
      test_nodes: of the graphs of the test set, the benchmark's has 64; `None` for no test set.
      examples: of each size to train on.
      batch: of them in a step.
      hidden: features of a node.

    Raises:
      DataError: if dm-clrs, whose samplers draw the examples, is absent.
      ValueError: for an algorithm that there is not, or a number out of range.
    """
    if not nodes or min(nodes) < 2:
        raise ValueError(f"`nodes` must be numbers from 2, but got {nodes}.")
    _at_least("batch", batch, 1)
    _at_least("hidden", hidden, 1)
    _at_least("examples", examples, batch, ", the examples of a step (`batch`)")
    if test_nodes is not None:
        _at_least("test_nodes", test_nodes, least_nodes(algorithm), f" for {algorithm}")
    drawn = clrs_training.draw(
        algorithm, jax.random.key(0), lengths=nodes, examples=examples, test=test_nodes
    )
    material = jax.device_get(drawn)  # the process that trains puts it on its own device
    final = clrs_training.setting(algorithm, material, batch=batch, hidden=hidden)
    return Lesson(
        f"CLRS-30 {algorithm}",
        final._replace(test=None),
        final,
        partial(clrs_training.fit_triplets, final, material),
        evaluate_every=50,
        limits=LONG,
    )


def _at_least(name: str, number: int, least: int, why: str = "") -> None:
    if number < least:
        raise ValueError(f"`{name}` must be at least {least}{why}, but got {number}.")
