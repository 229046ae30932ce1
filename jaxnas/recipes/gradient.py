"""What gradient recipes share: data, supernet, schedule, and the judge of what they derive."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from jaxnas.cells.nas_bench_201 import EDGES, OPS
from jaxnas.cells.tabular import Tabular, tabular
from jaxnas.cells.trained import Trained, random_cells, trained
from jaxnas.data.catalog import load
from jaxnas.data.dataset import Dataset, Split
from jaxnas.data.tables import nas_bench_201
from jaxnas.oneshot.bilevel import Relaxation, Schedule, bilevel, steps_per_epoch
from jaxnas.oneshot.supernet import supernet
from jaxnas.recipes.blackbox import describe_training, random_curve
from jaxnas.recipes.system import System, cell_labels
from jaxnas.runs.rows import Curve, Result
from jaxnas.train.batches import halves, on_device
from jaxnas.train.fit import Recipe

COST = {"train": "epochs of training random cells", "table": "random cells queried"}
SPACE = {"edges": len(EDGES), "ops": len(OPS)}


@dataclass(frozen=True)
class GradientConfig:
    """Settings of every gradient search over NAS-Bench-201 cells.

    Attributes:
      data: what is searched on; its training set is halved, for weights and architecture.
      examples: how much of the training set is used, 0 for all.
      channels: channels of the first stage of the supernet.
      layers: cells per stage of the supernet.
      epochs: passes over the training half.
      batch: examples per step.
      learning_rate: of the weights, at the first step.
      final_learning_rate: of the weights, at the last step.
      weight_decay: of the weights.
      alpha_learning_rate: Adam's, on the architecture.
      warm_epochs: epochs before the architecture moves.
      every: steps between two checkpoints; 0 for an epoch (on CPU with images: one step).
      judge: `train` what is found from scratch, or look it up in the `table`.
      judge_data: data set of the judge, empty for that of the search.
      judge_epochs: epochs of training from scratch.
      judge_channels: channels of the network that is trained.
      judge_layers: cells per stage of the network that is trained.
      judge_batch: examples per step of training from scratch.
      judge_learning_rate: of training from scratch.
      random_cells: how many random cells are judged beside what is found. A step of the supernet
        computes five operations on every edge, so the search costs as much as training
        `5 epochs / judge_epochs` cells (the first half of an epoch trains the weights, the
        second the architecture).
    """

    data: str = "mnist1d"
    examples: int = 0
    channels: int = 8
    layers: int = 1
    epochs: int = 10
    batch: int = 64
    learning_rate: float = 0.025
    final_learning_rate: float = 0.001
    weight_decay: float = 3e-4
    alpha_learning_rate: float = 1e-2
    warm_epochs: int = 0
    every: int = 0
    judge: str = "train"
    judge_data: str = ""
    judge_epochs: int = 10
    judge_channels: int = 8
    judge_layers: int = 1
    judge_batch: int = 128
    judge_learning_rate: float = 0.1
    random_cells: int = 5


C = TypeVar("C", bound=GradientConfig)


def presets(config: type[C]) -> dict[str, C]:
    """`tiny`, `default` and `paper` settings of a gradient recipe.

    The paper's are those of the benchmark: CIFAR-10, 16 channels, 5 cells per stage, 100 epochs,
    judged by the table.
    """
    tiny = config(channels=4, epochs=2, judge_channels=4, judge_epochs=1, random_cells=1)
    paper = config(
        data="cifar10",
        channels=16,
        layers=5,
        epochs=100,
        alpha_learning_rate=3e-4,
        judge="table",
        random_cells=0,
    )
    return {"tiny": tiny, "default": config(), "paper": paper}


def system(config: GradientConfig, relaxation: Relaxation, order: str = "first") -> System:
    """The search of a relaxation on the data set that a configuration names.

    Raises:
      ValueError: for settings that cannot be.
    """
    dataset = load(config.data)
    used = dataset.train
    if config.examples:
        used = Split(used.x[: config.examples], used.y[: config.examples])
    train, valid = halves(on_device(dataset, used))
    net = supernet(classes=len(dataset.classes), channels=config.channels, layers=config.layers)
    schedule = Schedule(
        epochs=config.epochs,
        batch=config.batch,
        learning_rate=config.learning_rate,
        final_learning_rate=config.final_learning_rate,
        weight_decay=config.weight_decay,
        order=order,
        warm_epochs=config.warm_epochs,
    )
    per_epoch = steps_per_epoch(train, schedule)
    filled = jax.default_backend() == "cpu" and train.x.ndim == 4
    judge = _judge(config, dataset)
    return System(
        bilevel(net, train, valid, relaxation, schedule),
        per_epoch * config.epochs,
        every=config.every or (1 if filled else per_epoch),
        mode="scan",
        seeds="map" if filled else "vmap",
        judge=judge,
        describe=describe_training if isinstance(judge, Trained) else _reported,
        baseline=_baseline(config),
        curve=_curve(config, judge),
        labels=cell_labels(judge, COST[config.judge]),
    )


def _judge(config: GradientConfig, dataset: Dataset) -> Trained | Tabular:
    name = config.judge_data or config.data
    if config.judge == "table":
        return tabular(nas_bench_201(), dataset=name)
    if config.judge != "train":
        raise ValueError(f"`judge` must be 'train' or 'table', but got {config.judge!r}.")
    recipe = Recipe(
        epochs=config.judge_epochs,
        batch=config.judge_batch,
        learning_rate=config.judge_learning_rate,
    )
    return trained(
        dataset if name == config.data else load(name),
        recipe,
        channels=config.judge_channels,
        layers=config.judge_layers,
    )


def _curve(
    config: GradientConfig, judge: Trained | Tabular
) -> Callable[[list[Result]], Curve] | None:
    if isinstance(judge, Tabular):
        return lambda _: random_curve(judge, 1000)
    return (lambda random: _subset_curve(config, random)) if config.random_cells else None


def _subset_curve(config: GradientConfig, random: list[Result]) -> Curve:
    """Best of `n` of the random cells, over all ways to choose them."""
    fitness = [result.metrics["fitness"] for result in random]
    finite = [value for value in fitness if np.isfinite(value)] or [0.0]
    counts = range(1, len(finite) + 1)
    best = [[max(chosen) for chosen in combinations(finite, n)] for n in counts]
    low, middle, high = zip(*(np.percentile(values, [25, 50, 75]) for values in best), strict=True)
    points = {
        "x": [float(n * config.judge_epochs) for n in counts],
        "mean": [float(value) for value in middle],
        "low": [float(value) for value in low],
        "high": [float(value) for value in high],
    }
    note = f"best of n of the {len(random)} random cells, median and quartiles over all choices"
    return Curve("random search", points, note)


def _reported(extra: Array) -> dict[str, float]:
    return {"test": float(extra)}


def _baseline(config: GradientConfig) -> Callable[[Key[Array, ""], int], Array] | None:
    if not config.random_cells:
        return None

    def draw(key: Key[Array, ""], seeds: int) -> Int[Array, "M 6"]:
        del seeds
        return random_cells(key, config.random_cells)

    return draw
