"""Activation functions.

Paper: Ramachandran, Zoph & Le, 2017, arXiv:1710.05941, whose search on CIFAR-10 with ResNet-20
found Swish. `jaxnas run activations` searches by evolution for a small perceptron on MNIST-1D.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxnas.core import Leg, Searcher, close
from jaxnas.data.catalog import load
from jaxnas.data.dataset import Dataset, Split, on_everything
from jaxnas.evolve.random_search import random_search
from jaxnas.evolve.regularized import regularized_evolution
from jaxnas.formulas.activations import (
    BASELINES,
    FAILURES,
    ActivationJudge,
    Told,
    activations,
    stretches,
)
from jaxnas.formulas.evaluate import unrolled
from jaxnas.formulas.rewrite import canonical
from jaxnas.formulas.tape import Grammar, nested, parse, to_latex, to_text
from jaxnas.recipes.search_spaces import Notation
from jaxnas.recipes.system import System
from jaxnas.train.batches import on_device, take


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
      dataset: a name in `data.catalog`; images are flattened.
      searcher: `evolution` or `random`.
      evaluations: functions that are trained.
      batch: of them in a step, in one program.
      population: functions alive at once, in evolution.
      tournament: how many are drawn to find a parent.
      nodes: most symbols of a function.
      widths: of the hidden layers.
      steps: of training in the search.
      train_batch: examples a step.
      learning_rate: of Adam.
      seeds_of_function: runs whose mean is a function's fitness.
      final_steps: of training in the end, on all training examples. What is best after few steps
        need not be after many, so these are as many as in the search.
      final_seeds: runs of each in the end.
    """

    dataset: str = "mnist1d"
    searcher: str = "evolution"
    evaluations: int = 256
    batch: int = 32
    population: int = 64
    tournament: int = 16
    nodes: int = 12
    widths: tuple[int, ...] = (64, 64)
    steps: int = 1000
    train_batch: int = 64
    learning_rate: float = 3e-3
    seeds_of_function: int = 2
    final_steps: int = 1000
    final_seeds: int = 10


PRESETS = {
    "tiny": Config(
        evaluations=8, batch=4, population=4, tournament=2, widths=(8,), steps=20,
        seeds_of_function=1, final_steps=60, final_seeds=2,
    ),
    "default": Config(),
    # The paper trains each function for 10,000 steps; its networks are larger than these.
    "paper": Config(
        evaluations=4096, batch=64, population=256, widths=(256, 256), steps=10_000, final_steps=20_000
    ),
}  # fmt: skip


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be.
    """
    counts = (config.steps, config.seeds_of_function, config.final_steps, config.final_seeds)
    if config.evaluations < 1 or config.evaluations % max(config.batch, 1) or min(counts) < 1:
        raise ValueError(
            f"`evaluations` must be a positive multiple of `batch`, and numbers of steps and seeds "
            f"positive, but got {config.evaluations} with a batch of {config.batch}, and {counts}."
        )
    data, grammar = load(config.dataset), activations(config.nodes)
    problem = _judge(config, grammar, data, data.valid, config.steps, config.seeds_of_function)
    whole, seeds = on_everything(data), config.final_seeds
    judge = _judge(config, grammar, whole, data.test, config.final_steps, seeds)
    handmade = np.stack([parse(grammar, text) for text in BASELINES.values()])
    search = close(_searcher(config, problem), problem)
    where = f"accuracy on {data.name}, %, of a perceptron of {'-'.join(map(str, config.widths))}"
    return System(
        [Leg(search, config.evaluations // config.batch)],
        every=1,
        mode="host",
        seeds="loop",
        judge=judge,
        describe=_describe,
        baseline=lambda key, seeds: {"hand-made": handmade},
        curve=None,
        space=Notation(partial(to_text, grammar), partial(_graph, grammar)),
        labels={
            "fitness_label": f"test {where}, mean over {seeds} seeds",
            "search_label": f"validation {where}",
            "cost_label": "functions trained",
            "noun": "function",
        },
        failures=FAILURES,
        trace=partial(_trace, stretches(config.final_steps)),
    )


def _judge(
    config: Config, grammar: Grammar, data: Dataset, judged: Split, steps: int, seeds: int
) -> ActivationJudge:
    return ActivationJudge(
        grammar,
        _flat(data, data.train),
        _flat(data, judged),
        widths=config.widths,
        classes=len(data.classes),
        steps=steps,
        batch=config.train_batch,
        learning_rate=config.learning_rate,
        seeds=seeds,
        group=config.batch,
    )


def _flat(data: Dataset, split: Split) -> tuple[Array, Array]:
    x, y = take(on_device(data, split), jnp.arange(len(split.y)))
    return x.reshape(len(y), -1), y


def _searcher(config: Config, problem: ActivationJudge) -> Searcher:
    if config.searcher == "random":
        return random_search(problem.sample, batch=config.batch)
    if config.searcher == "evolution":
        return regularized_evolution(
            problem.sample,
            problem.mutate,
            population=config.population,
            tournament=config.tournament,
            batch=config.batch,
        )
    raise ValueError(f"`searcher` must be evolution or random, but got {config.searcher!r}.")


def _graph(grammar: Grammar, tape: Any) -> dict[str, Any]:
    """Its tree, and what it looks like."""
    short = canonical(grammar, np.asarray(tape))
    x = jnp.linspace(-3, 3, 121)
    shape = {"x": x.tolist(), "y": jnp.broadcast_to(unrolled(grammar, tape, x), x.shape).tolist()}
    return {"tree": nested(grammar, short), "latex": to_latex(grammar, short), "shape": shape}


def _describe(extra: Told) -> dict[str, float]:
    scores = np.asarray(extra.scores, float)
    return {"std": float(scores.std(ddof=1)) if len(scores) > 1 else 0.0}


def _trace(ends: list[int], extra: Told) -> dict[str, list[float]]:
    losses = np.asarray(extra.curve, float)
    curves = {"mean": losses.mean(0), "low": losses.min(0), "high": losses.max(0)}
    return {"x": [float(end) for end in ends]} | {name: c.tolist() for name, c in curves.items()}
