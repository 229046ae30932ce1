"""What gradient recipes share: data, supernet, schedule, and the judge of what they derive."""

from collections import ChainMap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial as bind
from math import comb
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxnas.cells.tabular import Tabular, tabular
from jaxnas.cells.trained import Trained
from jaxnas.core import Leg, Search
from jaxnas.data.catalog import load
from jaxnas.data.dataset import Dataset, Split, on_everything
from jaxnas.data.tables import nas_bench_201
from jaxnas.oneshot.bilevel import (
    Relaxation,
    Schedule,
    bilevel,
    signs_of,
    steps_per_epoch,
    stretch,
)
from jaxnas.oneshot.curvature import curvature, watched
from jaxnas.oneshot.darts_space import supernet as darts_supernet
from jaxnas.oneshot.discretise import judge_mixes, strengths
from jaxnas.oneshot.nas_bench_201 import supernet as nas_bench_201_supernet
from jaxnas.oneshot.robust import Rule, robust_legs
from jaxnas.oneshot.supernet import Choices, Supernet
from jaxnas.recipes.blackbox import describe_training, random_curve
from jaxnas.recipes.search_spaces import SearchSpace, find
from jaxnas.recipes.system import System, cell_labels
from jaxnas.runs.rows import Curve, Result
from jaxnas.train.batches import Data, halves, on_device
from jaxnas.train.recipe import Recipe

ROBUST = {"stop": Rule(), "l2": Rule(factor=3.0)}
COST = {"train": "epochs of training random cells", "table": "random cells queried"}


@dataclass(frozen=True)
class GradientConfig:
    """Settings of every gradient search over cells.

    Attributes:
      space: `nas_bench_201`, `darts`, `s5` (without `none`), `s1` to `s4`.
      data: what is searched on; its training set is halved, for weights and architecture.
      examples: how much of the training set is used, 0 for all.
      whole: whether the held-out validation split is searched on too, as the papers do; then the
        judge must be the `table`.
      channels: channels of the first stage of the supernet.
      layers: cells per stage of the supernet; in the DARTS spaces, cells in all.
      epochs: passes over the training half.
      batch: examples per step.
      learning_rate: of the weights, at the first step.
      final_learning_rate: of the weights, at the last step.
      weight_decay: of the weights.
      nesterov: whether the momentum of the weights is Nesterov's.
      order: gradient of the architecture: `first`; `second` (finite differences) or `exact`
        (Hessian-vector product), one step of the weights ahead; `fixed` holds it at its start.
      alpha_learning_rate: Adam's, on the architecture.
      alpha_weight_decay: L2 penalty on the architecture.
      warm_epochs: epochs before the architecture moves.
      curvature: examples on which the dominant eigenvalue of the architecture's Hessian is measured
        after every epoch; 0 for not at all.
      robust: what is done when that eigenvalue grows too much (R-DARTS): `none`, `stop` early, or
        go on under three times the `l2` of the weights.
      strengths: edges on which, at the end, every operation is tried alone; 0 for none.
      strength_epochs: of tuning before it is judged; 0 judges at once.
      every: steps between two checkpoints; 0 for an epoch (on CPU with images: one step).
      judge: `train` what is found from scratch, or look it up in the `table`.
      judge_data: data set of the judge, empty for that of the search.
      judge_epochs: epochs of training from scratch.
      judge_channels: channels of the network that is trained.
      judge_layers: cells per stage, or in all, of the network that is trained.
      judge_batch: examples per step of training from scratch.
      judge_learning_rate: of training from scratch.
      random_cells: how many random cells are judged beside what is found. A step of the supernet
        computes five operations on every edge, so the search costs as much as training
        `5 epochs / judge_epochs` cells (the first half of an epoch trains the weights, the
        second the architecture).
    """

    space: str = "nas_bench_201"
    data: str = "mnist1d"
    examples: int = 0
    whole: bool = False
    channels: int = 8
    layers: int = 1
    epochs: int = 10
    batch: int = 64
    learning_rate: float = 0.025
    final_learning_rate: float = 0.001
    weight_decay: float = 3e-4
    nesterov: bool = False
    order: str = "first"
    alpha_learning_rate: float = 1e-2
    alpha_weight_decay: float = 1e-3
    warm_epochs: int = 0
    curvature: int = 0
    robust: str = "none"
    strengths: int = 0
    strength_epochs: int = 0
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
Settings = Mapping[str, Any]
NONE: Settings = {}


def presets(
    config: type[C], *, tiny: Settings = NONE, default: Settings = NONE, paper: Settings = NONE
) -> dict[str, C]:
    """`tiny`, `default` and `paper` settings of a gradient recipe, changed as the method needs.

    The paper's: CIFAR-10, the halves of all 50,000 training images, 16 channels, 5 cells per stage,
    100 epochs, judged by the table. The weights are trained as DARTS and DrNAS do it (decay 3e-4,
    no Nesterov); the benchmark's own authors used decay 5e-4 and Nesterov for the rows they report:
    `--set weight_decay=5e-4 --set nesterov=true`.
    """
    smallest: dict[str, Any] = {
        "channels": 4,
        "epochs": 2,
        "judge_channels": 4,
        "judge_epochs": 1,
        "random_cells": 1,
    }
    benchmark: dict[str, Any] = {
        "data": "cifar10",
        "channels": 16,
        "layers": 5,
        "epochs": 100,
        "judge": "table",
        "whole": True,
        "alpha_learning_rate": 3e-4,
        "random_cells": 0,
    }
    settings = {
        "tiny": ChainMap({**tiny}, {**default}, smallest),
        "default": {**default},
        "paper": ChainMap({**paper}, benchmark),
    }
    return {name: config(**chosen) for name, chosen in settings.items()}


def alphas(config: GradientConfig) -> dict[str, float]:
    """Settings of the architecture's optimiser, as the methods take them."""
    return {
        "learning_rate": config.alpha_learning_rate,
        "weight_decay": config.alpha_weight_decay,
    }


class Bench(NamedTuple):
    """What a method is given to search on.

    Attributes:
      net: `(partial) -> Supernet`.
      choices: what the supernets leave open.
      train: the half that trains the weights.
      valid: the half that trains the architecture.
      schedule: how the weights are trained.
      config: the settings of the search.
    """

    net: Callable[[int], Supernet]
    choices: Choices
    train: Data
    valid: Data
    schedule: Schedule
    config: GradientConfig

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch."""
        return steps_per_epoch(self.train, self.schedule)

    def measure(self, net: Supernet, relaxation: Relaxation) -> Callable[..., Array]:
        """How sharp the validation loss of a method is, on the examples the settings name."""
        return curvature(net, self.valid, relaxation, examples=self.config.curvature)

    def watch(self, legs: list[Leg], net: Supernet, relaxation: Relaxation) -> list[Leg]:
        """The legs with the curvature measured after every epoch, as far as the settings ask."""
        if self.config.curvature:
            legs = watched(legs, self.per_epoch, self.measure(net, relaxation))
        return legs

    def examine(self, net: Supernet, relaxation: Relaxation) -> list[Leg]:
        """A leg that tries operations alone, if the settings ask for it."""
        config, judge = self.config, judge_mixes(net, self.valid, self.schedule.batch)
        rate = {"learning_rate": 0.0025, "final_learning_rate": 0.0025}  # as DARTS-PT tunes
        tuning = replace(self.schedule, order="fixed", epochs=config.strength_epochs or 1, **rate)
        search = bilevel(net, self.train, self.valid, relaxation, tuning)
        steps = self.per_epoch * config.strength_epochs
        shape = self.choices.shape
        tried = strengths(search, steps, relaxation.strength, judge, shape, config.strengths)
        return [Leg(tried, 1)] if config.strengths else []


def one_method(bench: Bench, relaxation: Relaxation, partial: int = 1) -> list[Leg]:
    """The legs of a method that stays the same from the first epoch to the last."""
    net, config = bench.net(partial), bench.config

    def search(order: str) -> Search:
        schedule = replace(bench.schedule, order=order)
        return bilevel(net, bench.train, bench.valid, relaxation, schedule)

    if config.robust == "none":
        legs = stretch(
            search,
            bench.per_epoch,
            warm=config.warm_epochs,
            epochs=config.epochs,
            order=config.order,
        )
        return [*bench.watch(legs, net, relaxation), *bench.examine(net, relaxation)]
    unfit = config.warm_epochs or config.strengths or not config.curvature
    if config.robust not in ROBUST or unfit:
        raise ValueError(
            f"`robust` must be one of none, {', '.join(ROBUST)}, with `curvature` examples to "
            f"measure on and without `warm_epochs` and `strengths`, but got {config.robust!r}, "
            f"{config.curvature}, {config.warm_epochs} and {config.strengths}."
        )
    measure = bench.measure(net, relaxation)
    rule = ROBUST[config.robust]
    signs = signs_of(bench.choices, relaxation)
    return robust_legs(search(config.order), bench.per_epoch, bench.schedule, measure, signs, rule)


def system(config: GradientConfig, legs: Callable[[Bench], list[Leg]]) -> System:
    """The search of a method on the data set that a configuration names.

    Raises:
      ValueError: for settings that cannot be.
    """
    space, dataset = find(config.space), load(config.data)
    _check(config, dataset)
    used = on_everything(dataset).train if config.whole else dataset.train
    if config.examples:
        used = Split(used.x[: config.examples], used.y[: config.examples])
    train, valid = halves(on_device(dataset, used))
    schedule = Schedule(
        epochs=config.epochs,
        batch=config.batch,
        learning_rate=config.learning_rate,
        final_learning_rate=config.final_learning_rate,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
        order=config.order,
    )
    sizes = {"channels": config.channels, "layers": config.layers}
    make = bind(supernet_of(config.space), classes=len(dataset.classes), **sizes)
    net = cache(lambda partial: make(partial=partial))
    bench = Bench(net, net(1).choices, train, valid, schedule, config)
    filled = jax.default_backend() == "cpu" and train.x.ndim == 4
    judge = _judge(config, space, dataset)
    return System(
        legs(bench),
        every=config.every or (1 if filled else bench.per_epoch),
        mode="scan",
        seeds="map" if filled else "vmap",
        judge=judge,
        describe=describe_training if isinstance(judge, Trained) else _reported,
        baseline=_baseline(config, space),
        curve=_curve(config, judge),
        space=space,
        labels=cell_labels(space, judge, COST[config.judge]),
    )


def _check(config: GradientConfig, dataset: Dataset) -> None:
    size = len(dataset.train.y) + config.whole * len(dataset.valid.y)
    if not 0 <= config.examples <= size:
        raise ValueError(
            f"`examples` must be between 0 and the {size} of {config.data}, but got "
            f"{config.examples}."
        )
    if config.whole and config.judge != "table":
        raise ValueError(
            "`whole` must be false where `judge` is 'train': the judge validates on what was held "
            "out of the search."
        )
    fewest = min(config.layers, config.judge_layers)
    if config.space != "nas_bench_201" and fewest < 3:
        raise ValueError(
            f"`layers` and `judge_layers` must be at least 3 in {config.space}, or there is no "
            f"normal cell between the two reductions, but got {config.layers} and "
            f"{config.judge_layers}."
        )


def refuse(config: GradientConfig, method: str, *names: str) -> None:
    """Raises for settings that a method has no use for.

    Raises:
      ValueError: if one of them is set.
    """
    for name in names:
        if getattr(config, name) not in (0, "none"):
            raise ValueError(
                f"`{name}` must be left out for {method}, which has no use for it, but got "
                f"{getattr(config, name)!r}."
            )


def supernet_of(space: str) -> Callable[..., Supernet]:
    """`(classes=, channels=, layers=, partial=) -> Supernet` of a space."""
    if space == "nas_bench_201":
        return nas_bench_201_supernet
    return bind(darts_supernet, space=space)


def _judge(config: GradientConfig, space: SearchSpace, dataset: Dataset) -> Trained | Tabular:
    name = config.judge_data or config.data
    if config.judge == "table" and config.space != "nas_bench_201":
        raise ValueError(
            f"`judge` must be 'train' in {config.space}, whose cells are in no table, but got "
            f"'table'."
        )
    if config.judge == "table":
        return tabular(nas_bench_201(), dataset=name)
    if config.judge != "train":
        raise ValueError(f"`judge` must be 'train' or 'table', but got {config.judge!r}.")
    recipe = Recipe(
        epochs=config.judge_epochs,
        batch=config.judge_batch,
        learning_rate=config.judge_learning_rate,
    )
    return space.trained(
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
    low, middle, high = zip(*(best_of_subsets(finite, n) for n in counts), strict=True)
    points = {
        "x": [float(n * config.judge_epochs) for n in counts],
        "mean": [float(value) for value in middle],
        "low": [float(value) for value in low],
        "high": [float(value) for value in high],
    }
    note = f"best of n of the {len(random)} random cells, median and quartiles over all choices"
    return Curve("random search", points, note)


def best_of_subsets(values: list[float], n: int) -> list[float]:
    """Quartiles of the largest of `n` of the values, over all ways to choose them, exactly.

    Of all choices a share of `C(k, n) / C(N, n)` lies within the `k` smallest.
    """
    ordered, ways = sorted(values), comb(len(values), n)
    within = [comb(k, n) for k in range(1, len(values) + 1)]
    return [ordered[next(k for k, w in enumerate(within) if 4 * w >= q * ways)] for q in (1, 2, 3)]


def _reported(extra: Array | np.floating) -> dict[str, float]:
    return {"test": float(extra)}


def _baseline(
    config: GradientConfig, space: SearchSpace
) -> Callable[[Key[Array, ""], int], dict[str, PyTree]] | None:
    if not config.random_cells:
        return None
    return lambda key, seeds: {"random": space.random(key, config.random_cells)}
