"""What black-box recipes share: their problem, and the random-search curve beside them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.cells.tabular import Tabular, tabular
from jaxnas.cells.trained import trained
from jaxnas.core import Leg, Searcher, close
from jaxnas.data.catalog import load
from jaxnas.data.tables import nas_bench_201
from jaxnas.evolve.random_search import best_of
from jaxnas.recipes.system import System, cell_labels
from jaxnas.runs.rows import Curve
from jaxnas.train.fit import Recipe


@dataclass(frozen=True)
class BlackBoxConfig:
    """Settings of every black-box search over NAS-Bench-201 cells.

    Attributes:
      problem: `table` (look cells up) or `train` (train them).
      data: with `table`, `cifar10`, `cifar100` or `ImageNet16-120`; with `train`, any data set.
      split: what the search sees of the table.
      epochs: length of training: 200 or 12 in the table, any when training.
      report: split whose accuracy is reported.
      evaluations: how many cells are measured, per seed.
      batch: cells per step.
      channels: channels of the first stage, when training.
      layers: cells per stage, when training.
      train_batch: examples per training step.
      learning_rate: of training.
      augment: crops and flips, when training on images.
      execution: how candidates are trained, see `train.plan.choose`.
    """

    problem: str = "table"
    data: str = "cifar10"
    split: str = "valid"
    epochs: int = 200
    report: str = "test"
    evaluations: int = 500
    batch: int = 1
    channels: int = 8
    layers: int = 1
    train_batch: int = 128
    learning_rate: float = 0.1
    augment: bool = True
    execution: str = "auto"


def system(config: BlackBoxConfig, searcher: Callable[[Any], Searcher]) -> System:
    """Closes a searcher over the problem that a configuration names.

    Raises:
      ValueError: for settings that name nothing, or no evaluation at all.
    """
    if config.evaluations < 1 or config.evaluations % config.batch:
        raise ValueError(
            f"`evaluations` must be a positive multiple of `batch`, but got "
            f"{config.evaluations} with a batch of {config.batch}."
        )
    steps = config.evaluations // config.batch
    if config.problem == "table":
        return _on_table(config, searcher, steps)
    if config.problem == "train":
        return _by_training(config, searcher, steps)
    raise ValueError(f"`problem` must be 'table' or 'train', but got {config.problem!r}.")


def _on_table(config: BlackBoxConfig, searcher: Callable[[Any], Searcher], steps: int) -> System:
    problem = tabular(
        nas_bench_201(),
        dataset=config.data,
        split=config.split,
        epochs=config.epochs,
        report=config.report,
    )
    return System(
        [Leg(close(searcher(problem), problem), steps)],
        every=max(1, steps // 5),
        mode="scan",
        seeds="vmap",
        judge=problem,
        describe=lambda extra: {config.report: float(extra)},
        baseline=None,
        curve=lambda _: random_curve(problem, config.evaluations),
        labels=cell_labels(problem, "queries"),
    )


def _by_training(config: BlackBoxConfig, searcher: Callable[[Any], Searcher], steps: int) -> System:
    recipe = Recipe(
        epochs=config.epochs,
        batch=config.train_batch,
        learning_rate=config.learning_rate,
        augment=config.augment,
    )
    problem = trained(
        load(config.data),
        recipe,
        channels=config.channels,
        layers=config.layers,
        execution=config.execution,
    )
    return System(
        [Leg(close(searcher(problem), problem), steps)],
        every=1,
        mode="host",
        seeds="loop",
        judge=problem,
        describe=describe_training,
        baseline=None,
        curve=None,
        labels=cell_labels(problem, "epochs of training"),
    )


def describe_training(extra: Any) -> dict[str, float]:
    """Metrics of a trained cell: what is reported, and how its training went."""
    metrics = {"test": float(extra["test"]), "train_loss": float(extra["loss"][-1])}
    diverged = int(extra["diverged"])
    return metrics if diverged < 0 else metrics | {"diverged_at_step": diverged}


def random_curve(problem: Tabular, evaluations: int, repeats: int = 200) -> Curve:
    """Random search on the table: the best fitness after so many queries."""
    x = np.unique(np.geomspace(1, evaluations, 40).astype(int))
    draws = jnp.asarray(x)
    curves = best_of(problem.fitness, problem.fitness, draws, jax.random.key(0), repeats)
    low, middle, high = np.percentile(curves, [25, 50, 75], axis=0)
    points = {"x": x.tolist(), "mean": middle.tolist(), "low": low.tolist(), "high": high.tolist()}
    note = f"median and quartiles of {repeats} searches without replacement"
    return Curve("random search, equal budget", points, note)
