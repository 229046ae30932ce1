"""Evolved recurrent nodes.

Paper: Rawal & Miikkulainen, 2018, arXiv:1803.04439: on Penn Treebank with networks of 20 million
parameters 10.8 perplexity better than LSTM. `jaxnas run lstm_nodes --preset paper` is that search
(100 nodes, 30 generations, 10,000 words; 10 epochs, from which a Meta-LSTM that has seen 1,000
curves foretells 40) and needs an accelerator; the default is a language of 1,000 words that a small
machine can hold. `--set known_epochs=2` foretells there, too.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from jaxnas.core import Leg, Searcher, close
from jaxnas.evolve.random_search import random_search
from jaxnas.formulas.foretelling import foretelling, reckoning
from jaxnas.formulas.lstm_nodes import canonical, lstm_nodes
from jaxnas.formulas.node_judge import FAILURES, NodeJudge, Told
from jaxnas.formulas.recurrent import baseline, node, nodes
from jaxnas.formulas.sequence_nets import Size, parameters
from jaxnas.formulas.sequence_tasks import SequenceTask, find
from jaxnas.formulas.tape import Grammar, nested, to_latex, to_text
from jaxnas.recipes.search_spaces import Notation
from jaxnas.recipes.system import System

KNOWN = ("LSTM", "GRU")  # judged beside what is found


@dataclass(frozen=True)
class Config:
    """Settings.

    Attributes:
      task: `ptb` (words), `jsb` (chorales) or `toy` (a made-up language).
      words: size of the vocabulary; rarer words become `<unk>`.
      tokens: words of training text, and a tenth of them of each other; 0 for all.
      streams: sequences side by side, the batch.
      segment: steps through which gradients flow.
      searcher: `evolution`, or `random`.
      population: nodes of a generation.
      generations: of the search.
      species: most of them.
      founders: nodes that generation zero holds beside random ones, or `none`.
      nodes: most symbols of a tree.
      hidden: nodes in a layer while searching.
      layers: of a network.
      epochs: of training while searching.
      known_epochs: epochs after which a Meta-LSTM foretells the others; 0 trains all nodes to the
        end.
      whole_curves: how many it sees before it foretells anything.
      checked: nodes of a generation that are trained to the end all the same.
      learning_rate: of Adam.
      seeds_of_node: runs whose mean is a node's fitness.
      group: nodes trained in one program.
      final_hidden: nodes in a layer of the LSTM that all are judged beside; what was found and the
        GRU get as many as make their parameters equal to its.
      final_epochs: of training in the end.
      final_seeds: runs of each in the end.
    """

    task: str = "ptb"
    words: int = 1000
    tokens: int = 50_000
    streams: int = 20
    segment: int = 20
    searcher: str = "evolution"
    population: int = 24
    generations: int = 6
    species: int = 6
    founders: tuple[str, ...] = ("LSTM", "GRU")
    nodes: int = 32
    hidden: int = 32
    layers: int = 1
    epochs: int = 4
    known_epochs: int = 0
    whole_curves: int = 48
    checked: int = 2
    learning_rate: float = 5e-3
    seeds_of_node: int = 1
    group: int = 16
    final_hidden: int = 48
    final_epochs: int = 10
    final_seeds: int = 3


PRESETS = {
    "tiny": Config(
        task="toy", words=12, tokens=600, streams=4, segment=10, population=4, generations=2,
        species=2, hidden=6, epochs=1, final_hidden=8, final_epochs=2, final_seeds=2,
    ),
    "default": Config(),
    "paper": Config(
        words=10_000, tokens=0, segment=35, population=100, generations=30, species=10, hidden=100,
        layers=2, epochs=40, known_epochs=10, whole_curves=1000, checked=5, final_hidden=540,
        final_epochs=40,
    ),
}  # fmt: skip


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be.
    """
    if min(config.generations, config.population, config.epochs, config.final_epochs) < 1:
        raise ValueError(
            "`generations`, `population`, `epochs` and `final_epochs` must be positive."
        )
    task = find(
        config.task,
        streams=config.streams,
        segment=config.segment,
        words=config.words,
        tokens=config.tokens,
    )
    grammar = nodes(config.nodes)
    size = Size(config.hidden, config.layers, config.epochs, config.learning_rate)
    problem = NodeJudge(task, grammar, size, seeds=config.seeds_of_node, group=config.group)
    size = size._replace(hidden=config.final_hidden, epochs=config.final_epochs)
    lstm = node(grammar, baseline(grammar, "LSTM"))
    budget = parameters(task, lstm, size.hidden, size.layers)
    seeds = config.final_seeds
    judge = NodeJudge(task, grammar, size, seeds=seeds, budget=budget, test=True)
    search = close(_foretelling(config, _searcher(config, problem, grammar)), problem)
    return System(
        [Leg(search, config.generations)],
        every=1,
        mode="host",
        seeds="loop",
        judge=judge,
        describe=partial(_describe, task),
        baseline=lambda key, seeds: _handmade(grammar),
        curve=None,
        space=Notation(partial(to_text, grammar), partial(_graph, grammar)),
        labels={
            "fitness_label": f"minus validation loss on {task.name}, {task.label}, mean over {seeds} "
            f"seeds, {budget:,} parameters",
            "search_label": f"minus validation loss on {task.name}, {task.label}{_told(config)}",
            "cost_label": "epochs of training",
            "noun": "node",
        },
        failures=FAILURES,
        trace=partial(_trace, len(task.train.inputs)),
        notes=partial(_notes, config),
    )


def _foretelling(config: Config, searcher: Searcher) -> Searcher:
    if not config.known_epochs:
        return searcher
    return foretelling(
        searcher,
        known=config.known_epochs,
        length=config.epochs,
        seeds=config.seeds_of_node,
        after=config.whole_curves,
        checked=config.checked,
        room=max(2048, config.whole_curves),
    )


def _told(config: Config) -> str:
    if not config.known_epochs:
        return ""
    short, whole = (config.seeds_of_node * n for n in (config.known_epochs, config.epochs))
    return f"; foretold where the cost is {short}, measured where it is {whole}"


def _notes(config: Config, state: Any) -> dict[str, Any]:
    if not config.known_epochs:
        return {}
    seeds = state.cost.shape[0]
    each = [jax.tree.map(lambda x, s=s: x[s], state.searcher) for s in range(seeds)]
    return {"meta_lstm": [reckoning(one, config.known_epochs) for one in each]}


def _searcher(config: Config, problem: NodeJudge, grammar: Grammar) -> Searcher:
    if config.searcher == "random":
        return random_search(problem.sample, batch=config.population)
    if config.searcher == "evolution":
        names = [name for name in config.founders if name != "none"]
        return lstm_nodes(
            grammar,
            founders=[baseline(grammar, name) for name in names],
            population=config.population,
            generations=config.generations,
            species=config.species,
        )
    raise ValueError(f"`searcher` must be evolution or random, but got {config.searcher!r}.")


def _handmade(grammar: Grammar) -> dict[str, PyTree]:
    return {name: baseline(grammar, name)[None] for name in KNOWN}


def _graph(grammar: Grammar, tape: Any) -> dict[str, Any]:
    tree = nested(grammar, canonical(grammar, np.asarray(tape)))
    return {"tree": tree, "latex": to_latex(grammar, np.asarray(tape))}


def _describe(task: SequenceTask, extra: Told) -> dict[str, float]:
    test = np.asarray(extra.test, float)
    facts = {"test": test.mean(), "test_std": test.std(ddof=1) if len(test) > 1 else 0.0}
    if task.kind == "words":
        facts["test_perplexity"] = np.exp(test).mean()
    facts |= {"parameters": extra.parameters, "hidden": extra.hidden}
    return {name: float(value) for name, value in facts.items()}


def _trace(segments: int, extra: Told) -> dict[str, list[float]]:
    losses = np.asarray(extra.train, float)
    steps = np.arange(1.0, losses.shape[1] + 1) * segments
    curves = {"mean": losses.mean(0), "low": losses.min(0), "high": losses.max(0)}
    return {"x": steps.tolist()} | {name: curve.tolist() for name, curve in curves.items()}
