"""LLMatic: networks varied by a language model, kept in two archives.

Paper: Nasir et al., GECCO 2024, arXiv:2306.01102: on NAS-Bench-201 94.26 / 71.62 / 45.87 % after
2,000 candidates. `jaxnas run llmatic --set base_url=http://127.0.0.1:8091/v1 --set model=NAME`
searches its cells by the table, `--preset code` writes networks for MNIST-1D;
`--set proposer=random` is the same search with random edits in the model's place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxnas.cells import nas_bench_201
from jaxnas.cells.tabular import Tabular, tabular
from jaxnas.core import Leg, Search, Searcher, close, over_seeds, run_scan
from jaxnas.data.catalog import load
from jaxnas.data.tables import nas_bench_201 as cell_table
from jaxnas.evolve.archive import Axis, cvt
from jaxnas.evolve.random_search import random_search
from jaxnas.evolve.regularized import regularized_evolution
from jaxnas.llm import Client
from jaxnas.programs import cell_replies
from jaxnas.programs.distinct import Distinct, distinct
from jaxnas.programs.grammars import flax_class
from jaxnas.programs.judge import REASONS
from jaxnas.programs.lessons import classification
from jaxnas.programs.llmatic import (
    LEGACY,
    PAPER,
    Candidates,
    Rules,
    State,
    llmatic,
    maps,
    prompt_axes,
)
from jaxnas.programs.llmatic_cells import CellJudge, cells, to_text, without_repeats
from jaxnas.programs.llmatic_code import MUTATIONS, PUBLISHED, networks
from jaxnas.programs.page import text
from jaxnas.programs.proposer import Proposer, random_edits
from jaxnas.recipes.blackbox import random_curve
from jaxnas.recipes.export_source import export as export
from jaxnas.recipes.llm import ModelConfig, asks_nobody, connect, is_constrained
from jaxnas.recipes.programs import judges, trace, writer
from jaxnas.recipes.search_spaces import NAS_BENCH_201, Notation
from jaxnas.recipes.settings import as_settings, refuse_idle
from jaxnas.recipes.system import System, cell_labels
from jaxnas.recipes.weights import KeptWeights
from jaxnas.runs.store import Run

CELL_TOKENS, CODE_TOKENS = cell_replies.MAX_TOKENS, 1024  # of a reply at most


@dataclass(frozen=True)
class Config(ModelConfig):
    """Settings, beyond those of `ModelConfig`.

    Attributes:
      problem: `table` (cells of NAS-Bench-201, looked up) or `code` (networks in Flax, trained).
      data: with `table`, `cifar10`, `cifar100` or `ImageNet16-120`; with `code`, a data set of
        signals or images.
      split: what the search sees of the table.
      report: split whose accuracy is reported.
      evaluations: candidates asked for, per seed; repetitions and what cannot be read among them.
      batch: candidates of a generation.
      ablation: `none`, or what is left: `networks` or `prompts` (the one archive), `mutation`,
        `crossover`, `random` (new candidates from the seed).
      cells: of each archive.
      mutation: chance that a generation mutates; else it crosses.
      init_networks: elites that end the first phase.
      init_prompts: instructions that do.
      published: whether the published code's rules hold where they differ from the paper's.
      inherit: whether a network of code begins with the trained weights of the one it was made from,
        layer by layer where type and shape agree; those of elites are kept in the run's folder, four
        bytes a weight.
      rivals: searches by random search and by aging evolution that are judged beside, on the table.
      max_tokens: the most tokens of a reply; 0 for 60 on the table and 1,024 of code.
      ratio_high: upper end of the axis of width over depth.
      flops_low: lower end of the axis of FLOPs of one example, of code.
      flops_high: upper end.
      steps: of training, of code.
      train_batch: examples of a step.
      optimizer: `sgd` or `adamw`.
      learning_rate: constant.
      momentum: of SGD.
      runs: trainings whose mean judges what is found, and the seed network beside it.
      level: of the sandbox's isolation: `process`, `landlock`, `bubblewrap`, or `auto`.
      workers: sources checked at a time.
      together: programs trained at the same time; 0 for one on a CPU, several on an accelerator.
      deadline: seconds that these may take for each run.
    """

    problem: str = "table"
    data: str = "cifar10"
    split: str = "valid"
    report: str = "test"
    evaluations: int = 500
    batch: int = 20
    ablation: str = PAPER.ablation
    cells: int = 100
    mutation: float = PAPER.mutation
    init_networks: int = PAPER.init_networks
    init_prompts: int = PAPER.init_prompts
    published: bool = PAPER.published
    inherit: bool = False
    rivals: int = 5
    max_tokens: int = 0
    ratio_high: float = 64.0
    flops_low: float = 0.0
    flops_high: float = 1e6
    steps: int = 1000
    train_batch: int = 128
    optimizer: str = "adamw"
    learning_rate: float = 0.003
    momentum: float = 0.9
    runs: int = 3
    level: str = "auto"
    workers: int = 2
    together: int = 0
    deadline: float = 600.0


OF_TABLE = ("split", "report", "rivals")  # settings that do nothing of code
OF_CODE = (  # and those that do nothing of the table, where no cell is trained
    *(
        "edits",
        "inherit",
        "ratio_high",
        "flops_low",
        "flops_high",
        "steps",
        "train_batch",
        "optimizer",
    ),
    *("learning_rate", "momentum", "runs", "level", "workers", "together", "deadline"),
)
RULES = sorted(set(Rules._fields) & set(Config.__dataclass_fields__))  # that are settings

PRESETS = {
    "tiny": Config(evaluations=12, batch=4, cells=9, init_networks=3, init_prompts=3, rivals=2),
    "default": Config(),
    "code": Config(problem="code", data="mnist1d", evaluations=200, batch=10, flops_high=1e5),
    # On the table. With `problem=code` 50 epochs on CIFAR-10: 45,000 images in batches of 32.
    "paper": Config(
        evaluations=2000, batch=100, ratio_high=200.0, flops_low=2e8, flops_high=5e9, steps=70_300,
        train_batch=32, optimizer="sgd", learning_rate=0.001, runs=1,
    ),
    "legacy": Config(
        evaluations=8000, batch=40, ratio_high=200.0, flops_low=2e8, flops_high=5e9, steps=70_300,
        train_batch=32, optimizer="sgd", learning_rate=0.001, runs=1,
        **{name: getattr(LEGACY, name) for name in RULES},
    ),
}  # fmt: skip


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be, or no language model where one is needed.
    """
    leasts = {
        "batch": 1,
        "cells": 1,
        "init_networks": 1,
        "init_prompts": 1,
        "rivals": 0,
        "max_tokens": 0,
    }
    for name, least in leasts.items():
        if (given := getattr(config, name)) < least:
            raise ValueError(f"`{name}` must be at least {least}, but got {given}.")
    if config.evaluations < 1 or config.evaluations % config.batch:
        raise ValueError(
            f"`evaluations` must be a positive multiple of `batch`, but got "
            f"{config.evaluations} with a batch of {config.batch}."
        )
    if config.problem not in ("table", "code"):
        raise ValueError(f"`problem` must be table or code, but got {config.problem!r}.")
    of_table = config.problem == "table"
    refuse_idle(
        config,
        OF_CODE if of_table else OF_TABLE,
        PRESETS.values(),
        whose="code" if of_table else "the table",
        why=f"`problem` is {config.problem}",
        remedy=f"set `problem` to {'code' if of_table else 'table'}",
    )
    return _on_table(config) if of_table else _of_code(config)


def _on_table(config: Config) -> System:
    table = cell_table()
    with as_settings(dataset="data"):
        problem = tabular(table, dataset=config.data, split=config.split, report=config.report)
    by_model = partial(
        cell_replies.from_client,
        max_tokens=config.max_tokens or CELL_TOKENS,
        grammar=cell_replies.grammar() if is_constrained(config) else None,
    )
    propose, attach = _proposer(config, by_model, cell_replies.random_edits)
    candidates, judge = cells(table, config.data), CellJudge(problem)
    centroids = cvt(jax.random.key(0), cells=config.cells)
    rules = _rules(config)
    searcher = llmatic(candidates, propose, centroids=centroids, batch=config.batch, rules=rules)
    search = close(without_repeats(searcher), judge)
    labels = cell_labels(NAS_BENCH_201, problem, "queries")
    return System(
        [Leg(_mapped(search, lambda state: state.searcher.searcher), _steps(config))],
        every=1,
        mode="host",
        seeds="loop",
        judge=judge,
        describe=lambda extra: {config.report: float(extra)},
        baseline=lambda key, seeds: _beside(key, problem, config),
        curve=lambda _: random_curve(problem, config.evaluations),
        space=NAS_BENCH_201._replace(to_text=to_text),
        labels=labels | {"archives": _archives(candidates, centroids, problem.label)},
        failures=REASONS,
        attach=attach,
    )


def _of_code(config: Config) -> System:
    if not config.flops_low < config.flops_high:
        raise ValueError(
            f"`flops_low` must be below `flops_high`, but they are {config.flops_low:g} and "
            f"{config.flops_high:g}."
        )
    if not config.ratio_high > 0:
        raise ValueError(f"`ratio_high` must be positive, but got {config.ratio_high:g}.")
    dataset = load(config.data)
    shape, classes = dataset.train.x.shape[1:], len(dataset.classes)
    axes = (
        Axis("width over depth", 0, config.ratio_high),
        Axis("FLOPs", config.flops_low, config.flops_high),
    )
    mutations = MUTATIONS[:PUBLISHED] if config.published else MUTATIONS
    candidates = networks(shape, classes, axes=axes, mutations=mutations)
    by_model = writer(
        "Model",
        flax_class(shape, classes),
        edits=shape if config.edits else None,
        constrained=is_constrained(config),
        max_tokens=config.max_tokens or CODE_TOKENS,
    )
    propose, attach = _proposer(config, by_model, random_edits)
    centroids = cvt(jax.random.key(0), cells=config.cells)
    searcher = llmatic(
        candidates, propose, centroids=centroids, batch=config.batch, rules=_rules(config)
    )
    weights = KeptWeights() if config.inherit else None
    with as_settings(batch="train_batch"):
        lesson = classification(
            dataset,
            batch=config.train_batch,
            optimizer=config.optimizer,
            momentum=config.momentum,
        )
    judge, final = judges(lesson, config, seeds=[text(candidates.seed)], memory=weights)
    search = distinct(searcher, judge, config.evaluations)
    label = f"accuracy of validation in {config.steps} steps on {dataset.name}, %"
    return System(
        [Leg(_mapped(search, lambda state: state.closed.searcher), _steps(config))],
        every=1,
        mode="host",
        seeds="loop",
        judge=final,
        describe=_describe,
        baseline=lambda key, seeds: {"hand-made": candidates.seed[None]},
        curve=None,
        space=Notation(text, lambda page: {}),
        labels={
            "fitness_label": f"best {label}, mean of {config.runs}",
            "search_label": f"best {label}",
            "cost_label": "steps of training",
            "noun": "program",
            "archives": _archives(candidates, centroids, f"best {label}"),
        },
        failures=REASONS,
        trace=partial(trace, lesson, config.steps),
        attach=_each(attach, None if weights is None else weights.attach),
        saved=None if weights is None else lambda state: weights.keep(_elites(state)),
    )


def _each(*told: Callable[[Run], None] | None) -> Callable[[Run], None]:
    """Tells all of them of a run."""

    def attach(run: Run) -> None:
        for one in filter(None, told):
            one(run)

    return attach


def _elites(state: Distinct) -> set[str]:
    """Identities of all networks that may become parents, of every seed."""
    networks = state.closed.searcher.networks
    serials, met = np.asarray(networks.genotypes.serial), np.asarray(state.met)
    places = np.argwhere(np.asarray(networks.fitness) > -np.inf).tolist()
    return {met[seed, serials[seed, cell] - 1].tobytes().hex() for seed, cell in places}


def _describe(extra: Any) -> dict[str, float]:
    names = ("test", "params", "flops", "depth", "width")
    return {name: float(extra[name]) for name in names}


def _steps(config: Config) -> int:
    return config.evaluations // config.batch


def _rules(config: Config) -> Rules:
    return Rules(**{name: getattr(config, name) for name in RULES})


def _proposer(
    config: Config, by_model: Callable[[Client], Proposer], by_chance: Callable[[], Proposer]
) -> tuple[Proposer, Callable[[Run], None] | None]:
    """Who writes, and what is told of the run."""
    if asks_nobody(config):
        return by_chance(), None
    line = connect(config)
    return by_model(line.client), line.attach


def _mapped(search: Search, inner: Callable[[Any], State]) -> Search:
    """The same search, with what its archives hold in the `info` of every step."""

    def step(key: Key[Array, ""], state: Any) -> tuple[Any, dict[str, Any]]:
        state, info = search.step(key, state)
        return state, info | maps(inner(state))

    return search._replace(step=step)


def _archives(candidates: Candidates, centroids: Array, fitness: str) -> dict[str, Any]:
    """What the maps of the archives show."""

    def shown(axes: tuple[Axis, ...], label: str) -> dict[str, Any]:
        ends = [[axis.label, axis.low, axis.high] for axis in axes]
        return {"centroids": centroids.tolist(), "axes": ends, "fitness": label}

    prompts = shown(prompt_axes(len(candidates.mutations)), "successes of the instruction")
    return {"networks": shown(candidates.axes, fitness), "prompts": prompts}


def _beside(key: Key[Array, ""], problem: Tabular, config: Config) -> dict[str, PyTree]:
    """What random search and aging evolution find with as many queries as we ask for candidates."""
    population = min(50, config.evaluations)
    searchers = {
        "random search": random_search(problem.sample),
        "aging evolution": regularized_evolution(
            problem.sample,
            nas_bench_201.mutate,
            population=population,
            tournament=min(10, population),
        ),
    }
    keys = jax.random.split(key, config.rivals)
    found = partial(_found, problem, keys, config.evaluations)
    return {name: found(searcher) for name, searcher in searchers.items()}


def _found(problem: Tabular, keys: Key[Array, " S"], queries: int, searcher: Searcher) -> PyTree:
    search = over_seeds(close(searcher, problem))
    state, _ = jax.jit(lambda keys: run_scan(search, keys, queries))(keys)
    return jnp.asarray(search.best(state))
