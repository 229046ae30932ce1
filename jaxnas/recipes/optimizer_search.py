"""Optimizer search.

Paper: Wang et al., NeurIPS 2022, arXiv:2209.13575. `jaxnas run optimizer_search --preset paper`
searches MNISTNET with 128 evaluations; the paper took 0.92 h on an RTX 2080 Ti.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxnas.core import Leg, Search, Searcher, close
from jaxnas.evolve.random_search import random_search
from jaxnas.evolve.regularized import regularized_evolution
from jaxnas.formulas import tasks
from jaxnas.formulas.filters import tried_mutation
from jaxnas.formulas.finals import Finals, Outcome, thinned_steps
from jaxnas.formulas.judge import FAILURES, Judge
from jaxnas.formulas.optax_rule import as_file
from jaxnas.formulas.optimizer_search import optimizer_search, traversal
from jaxnas.formulas.rewrite import canonical
from jaxnas.formulas.tape import Grammar, nested, parse, to_latex, to_text, translated
from jaxnas.formulas.tasks import Scale
from jaxnas.formulas.update_rules import BASELINES, space
from jaxnas.recipes.export_source import answers
from jaxnas.recipes.search_spaces import Notation
from jaxnas.recipes.system import System
from jaxnas.runs.store import Run


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
      task: what rules are judged by, a name in `formulas.tasks`.
      dataset: a name in `data.catalog`; empty for the paper's.
      examples: of the data set that are used; 0 for all.
      batch: examples a step; 0 for the paper's.
      blocks: of a pretrained encoder that are fine-tuned, the last ones; 0 for all of it.
      space: which operators and leaves: `conv-subset`, `conv`, `gnn`, `adversarial`; empty for the
        one that the paper searches on this task.
      searcher: `traversal` of the super-tree, `random` or `evolution`.
      samples: rules newly trained on a level of the traversal, or in a batch.
      levels: of the traversal, or batches.
      rounds: asks on a level before it goes on with fewer.
      nodes: most nodes of a rule.
      constrained: whether redundant branches are cut while growing.
      steps: steps of training in the search; 0 for the paper's.
      seeds_of_rule: runs whose mean is a rule's fitness; 0 for the paper's.
      final_steps: steps of the final evaluation; 0 for the paper's.
      transfer: whether found rules are also tried on other networks.
      baselines: hand-made rules evaluated beside, divided by commas; `all` or `none`.
      how: how rules are trained, see `formulas.training.trainer`.
    """

    task: str = "mnistnet"
    dataset: str = ""
    examples: int = 0
    batch: int = 0
    blocks: int = 0
    space: str = ""
    searcher: str = "traversal"
    samples: int = 32
    levels: int = 4
    rounds: int = 3
    nodes: int = 10
    constrained: bool = True
    steps: int = 0
    seeds_of_rule: int = 0
    final_steps: int = 0
    transfer: bool = True
    baselines: str = "all"
    how: str = "auto"


PRESETS = {
    "tiny": Config(
        samples=4, levels=2, rounds=1, steps=5, seeds_of_rule=2, final_steps=10, transfer=False,
        baselines="SGD,Adam",
    ),
    "default": Config(samples=16, final_steps=300, transfer=False),
    "paper": Config(),
}  # fmt: skip


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be.
    """
    kind = tasks.find(config.task)
    scale, end = _scales(config)
    proxy, task = kind.search(scale)
    grammar = space(config.space or task.space, config.nodes)
    judge = Judge(task, grammar, constrained=config.constrained, how=config.how, proxy=proxy)
    everything = space("everything", max(config.nodes, 10))
    finals = Finals(everything, kind.finals(end, config.transfer), how=config.how)
    search = close(_searcher(config, judge, grammar), judge)
    handmade = _handmade(config.baselines, {**kind.baselines, **BASELINES}, everything)
    main = next(iter(finals.trials.values())).task
    return System(
        [Leg(_in(everything, grammar, search), _steps(config))],
        every=1,
        mode="host",
        seeds="loop",
        judge=finals,
        describe=partial(_describe, list(finals.trials)),
        baseline=lambda key, seeds: handmade,
        curve=None,
        space=Notation(partial(to_text, everything), partial(_graph, everything)),
        labels={
            "fitness_label": f"{main.label} on {task.name}, mean over {main.seeds} seeds",
            "search_label": f"{task.label} on {task.name}, mean over {task.seeds} seeds",
            "cost_label": "rules trained",
            "noun": "rule",
        },
        failures=FAILURES,
        trace=partial(_trace, main.steps),
        notes=lambda state: _notes(config, kind, end, grammar, state),
    )


def _scales(config: Config) -> tuple[Scale, Scale]:
    """Of the search, and of the final evaluation."""
    size = config.examples, config.dataset, config.batch, config.blocks
    scale = Scale(config.steps, config.seeds_of_rule, *size)
    return scale, scale._replace(steps=config.final_steps)


def _steps(config: Config) -> int:
    return config.levels * (config.rounds if config.searcher == "traversal" else 1)


def _searcher(config: Config, judge: Judge, grammar: Grammar) -> Searcher:
    if config.searcher == "traversal":
        return optimizer_search(
            grammar,
            judge.screen,
            samples=config.samples,
            levels=config.levels,
            rounds=config.rounds,
            constrained=config.constrained,
        )
    if config.searcher == "random":
        return random_search(judge.sample, batch=config.samples)
    if config.searcher == "evolution":
        return regularized_evolution(
            judge.sample,
            tried_mutation(grammar, constrained=config.constrained),
            population=config.samples,
            tournament=max(1, config.samples // 4),
            batch=config.samples,
        )
    raise ValueError(
        f"`searcher` must be traversal, random or evolution, but got {config.searcher!r}."
    )


def _in(everything: Grammar, grammar: Grammar, search: Search) -> Search:
    """The same search, whose answer and candidates are written in the grammar of all symbols."""

    def moved(tapes: Array) -> Array:
        return translated(grammar, everything, tapes)

    def step(key: Key[Array, ""], state: Any) -> tuple[Any, dict[str, Any]]:
        state, info = search.step(key, state)
        asked = info["asked"]._replace(genotypes=moved(info["asked"].genotypes))
        return state, info | {"asked": asked}

    return Search(search.init, step, lambda state: moved(search.best(state)))


def _handmade(names: str, known: dict[str, str], everything: Grammar) -> dict[str, PyTree]:
    if names == "none":
        return {}
    chosen = list(known) if names == "all" else names.split(",")
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(
            f"`baselines` must be of {', '.join(known)}, or all, or none, but got {unknown[0]!r}."
        )
    return {"hand-made": np.stack([parse(everything, known[name]) for name in chosen])}


def _graph(everything: Grammar, tape: Any) -> dict[str, Any]:
    tree = nested(everything, canonical(everything, np.asarray(tape)))
    return {"tree": tree, "latex": to_latex(everything, tape)}


def _describe(trials: list[str], extra: Outcome) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name in trials:
        if name != trials[0]:  # that one is the fitness
            metrics[name] = float(extra.mean[name])
        metrics[f"{name}_std"] = float(extra.std[name])
        metrics[f"{name}_rate"] = float(extra.rate[name])
    return metrics | {"diverged": float(sum(extra.frozen.values()))}


def _trace(steps: int, extra: Outcome) -> dict[str, list[float]]:
    mean, low, high = (np.asarray(row, float).tolist() for row in extra.curve)
    return {
        "x": [float(step) for step in thinned_steps(steps)],
        "mean": mean,
        "low": low,
        "high": high,
    }


def _notes(
    config: Config, kind: tasks.Kind, end: Scale, grammar: Grammar, state: Any
) -> dict[str, Any]:
    notes: dict[str, Any] = {}
    if kind.beside and config.baselines != "none":
        notes["beside"] = kind.beside(end)
    if config.searcher != "traversal":
        return notes
    seeds = jax.tree.leaves(state)[0].shape[0]
    each = [jax.tree.map(lambda x, s=s: x[s], state.searcher) for s in range(seeds)]
    return notes | {
        "traversal": [traversal(grammar, one) for one in each],
        "roll_outs": [
            dict(zip(("drawn", "failed a test", "known"), map(int, one.drawn), strict=True))
            for one in each
        ],
    }


def export(run: Run, out: Path, seed: int | None = None) -> list[Path]:
    """Writes the rule that a finished run found as a Python file with an optax optimizer.

    Args:
      run: the run.
      out: the file; `optimizer.py` in it, if it is a folder or has no ending.
      seed: which of the run's seeds; `None` for the best by the final evaluation.

    Returns:
      The file.

    Raises:
      ValueError: if the run is not finished or found nothing, or `seed` is none of its seeds.
    """
    best = max(answers(run, seed), key=lambda row: row.metrics["fitness"])
    config = Config(**run.config["config"])
    kind = tasks.find(config.task)
    main = next(iter(kind.finals(_scales(config)[1], False).values())).task
    grammar = space("everything", max(config.nodes, 10))
    rate = next(v for k, v in best.metrics.items() if k.endswith("_rate"))
    tape = canonical(grammar, parse(grammar, best.genotype))
    file = out if out.suffix == ".py" else out / "optimizer.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = as_file(grammar, tape, rate, steps=main.steps, weight_decay=main.decay)
    file.write_text(text, encoding="utf-8")
    return [file]
