"""EvoPrompting: a language model writes programs that are smaller and better round by round.

Paper: Chen et al., NeurIPS 2023, arXiv:2302.14838, with a PaLM of 62 B parameters; its results are
figures. `jaxnas run evoprompting --set base_url=http://127.0.0.1:8091/v1 --set model=NAME` asks an
endpoint, `--set proposer=random` puts random edits in its place. Written are networks for MNIST-1D
or, with `--set data=clrs_bfs` or another algorithm of CLRS-30, triplet functions.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxnas.core import Leg, Search
from jaxnas.llm.local import load_model, serve
from jaxnas.programs.distinct import distinct
from jaxnas.programs.evoprompting import (
    Settings,
    State,
    Tuner,
    best,
    evoprompting,
    front,
    rows,
    score,
    steps,
    untuned,
)
from jaxnas.programs.judge import REASONS
from jaxnas.programs.page import pages, text
from jaxnas.programs.proposer import Proposer, random_edits
from jaxnas.programs.soft_prompt import SoftPrompt, soft_prompt
from jaxnas.recipes.export_source import export as export
from jaxnas.recipes.llm import ModelConfig, asks_nobody, connect, is_constrained
from jaxnas.recipes.program_subjects import (
    PREFIX,
    Subject,
    networks,
    protocol,
    triplet_functions,
)
from jaxnas.recipes.programs import judges, trace, writer
from jaxnas.recipes.search_spaces import Notation
from jaxnas.recipes.settings import as_settings, refuse_idle
from jaxnas.recipes.system import System
from jaxnas.runs.store import Run

OF_NETWORKS = ("weight_decay", "edits")  # settings that triplet functions do not have
BASELINES = {"none": "best", "few_shot": "seeds", "random_parents": "random"}


@dataclass(frozen=True)
class Config(ModelConfig):
    """Settings, beyond those of `ModelConfig`.

    Attributes:
      data: a data set of signals in ten classes, or `clrs_` and an algorithm of CLRS-30.
      rounds: after which parents are chosen.
      prompts: of a round; a prompt is a step.
      samples: programs of a prompt.
      examples: parents in a prompt.
      survivors: that become parents.
      threshold: error of validation, 0 to 1, from which on a program does not survive, nor is the answer.
      temperatures: of which each prompt draws one.
      baseline: `none`, or what replaces evolution: `few_shot` (the seeds in every prompt) or
        `random_parents`.
      tune: `none`, or `soft_prompt` of the local model between rounds.
      style: `chat` (each example is an answer given before) or `completion` (one text to go on with).
      steps: of training; 0 for the paper's: 8,000, of CLRS-30 2,000.
      train_batch: examples of a step; 0 for the paper's: 128, of CLRS-30 32.
      learning_rate: of AdamW, for CLRS-30 Adam; 0 for the paper's: 0.01, of CLRS-30 0.001.
      weight_decay: of AdamW; Adam of CLRS-30 has none.
      clrs_nodes: of the graphs of CLRS-30 to train on, one number for each size; candidates are
        judged on the largest.
      clrs_test_nodes: of the graphs of the test set, on which what is found is scored, and the seeds
        beside it, but nothing in the search; fewer than the paper's 64 cost less.
      clrs_hidden: features of a node there.
      clrs_examples: of each size.
      runs: trainings whose mean judges what is found, and the seeds beside it.
      level: of the sandbox's isolation: `process`, `landlock`, `bubblewrap`, or `auto`.
      workers: sources checked at a time.
      together: programs trained at the same time; 0 for one on a CPU, several on an accelerator.
      deadline: seconds that these may take for each run; 0 for 600, of CLRS-30 7,200.
    """

    data: str = "mnist1d"
    rounds: int = 5
    prompts: int = 5
    samples: int = 4
    examples: int = 2
    survivors: int = 5
    threshold: float = 0.5
    temperatures: tuple[float, ...] = (0.2, 0.6, 0.8, 1.0)
    baseline: str = "none"
    tune: str = "none"
    style: str = "chat"
    steps: int = 1000
    train_batch: int = 0
    learning_rate: float = 0.0
    weight_decay: float = 1e-4
    clrs_nodes: tuple[int, ...] = (4, 7)
    clrs_test_nodes: int = 64
    clrs_hidden: int = 32
    clrs_examples: int = 1000
    runs: int = 3
    level: str = "auto"
    workers: int = 2
    together: int = 0
    deadline: float = 0.0


PRESETS = {
    "tiny": Config(
        rounds=2, prompts=1, samples=4, survivors=2, threshold=1.0, steps=20, runs=1,
        clrs_nodes=(4,), clrs_test_nodes=8, clrs_hidden=8, clrs_examples=64,
    ),
    "default": Config(),
    "paper": Config(
        rounds=10, prompts=10, samples=16, survivors=10, steps=0,
        clrs_nodes=(4, 7, 11, 13, 16), clrs_hidden=128,
    ),
}  # fmt: skip


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be, or no language model where one is needed.
    """
    config = settled(config)
    subject = _subject(config)
    lesson, settings = subject.lesson, _settings(config, subject)
    tuner, attach = _tuner(config, subject)
    seeds = [source for sources in subject.seeds.values() for source in sources]
    searcher = evoprompting(tuner, seeds, settings)
    judge, final = judges(lesson, config, seeds=seeds)
    search = _told(tuner, settings.threshold, distinct(searcher, judge, rows(len(seeds), settings)))
    label = f"{subject.measure} of validation in {config.steps} steps on {lesson.name}, %"
    return System(
        [Leg(search, steps(len(seeds), settings))],
        every=1,
        mode="host",
        seeds="loop",
        judge=final,
        describe=_describe,
        baseline=lambda key, runs: {kind: pages(some) for kind, some in subject.seeds.items()},
        curve=None,
        space=Notation(text, lambda page: {}),
        labels={
            "fitness_label": f"best {label}, mean of {config.runs}",
            "search_label": f"best {label}",
            "cost_label": "steps of training",
            "noun": "program",
        },
        failures=REASONS,
        trace=partial(trace, lesson, config.steps),
        notes=partial(_notes, len(seeds)),
        attach=attach,
    )


def settled(config: Config) -> Config:
    """The configuration with the paper's numbers in the place of zeros."""
    paper = protocol(config.data)
    return replace(
        config,
        steps=config.steps or paper.steps,
        train_batch=config.train_batch or paper.batch,
        learning_rate=config.learning_rate or paper.learning_rate,
        deadline=config.deadline or paper.deadline,
    )


def _subject(config: Config) -> Subject:
    of_clrs = config.data.startswith(PREFIX)
    names = [field.name for field in fields(Config) if field.name.startswith(PREFIX)]
    refuse_idle(
        config,
        [*OF_NETWORKS, *["grammar"] * (config.grammar == "yes")] if of_clrs else names,
        PRESETS.values(),
        whose="networks" if of_clrs else "CLRS-30",
        why=f"`data` is {config.data!r}",
        remedy=f"set `data` to {'a set of signals' if of_clrs else f'{PREFIX}ALGORITHM'}",
    )
    data, batch = config.data, config.train_batch
    with as_settings(
        name="data", batch="train_batch", **{n.removeprefix(PREFIX): n for n in names}
    ):
        if not of_clrs:
            return networks(data, batch=batch, weight_decay=config.weight_decay)
        return triplet_functions(
            data,
            batch=batch,
            nodes=config.clrs_nodes,
            test_nodes=config.clrs_test_nodes,
            examples=config.clrs_examples,
            hidden=config.clrs_hidden,
        )


def _settings(config: Config, subject: Subject) -> Settings:
    if config.max_tokens < 1:
        raise ValueError(f"`max_tokens` must be at least 1, but got {config.max_tokens}.")
    for name, known in (
        ("baseline", list(BASELINES)),
        ("style", ["chat", "completion"]),
    ):
        if getattr(config, name) not in known:
            raise ValueError(
                f"`{name}` must be one of {', '.join(known)}, but got {getattr(config, name)!r}."
            )
    names = set(Settings._fields) & set(Config.__dataclass_fields__)
    return Settings(**{name: getattr(config, name) for name in names})._replace(
        selection=BASELINES[config.baseline],
        instruction=subject.instruction if config.style == "chat" else "",
        stub=subject.stub,
    )


def _tuner(config: Config, subject: Subject) -> tuple[Tuner, Callable[[Run], None] | None]:
    """Who writes and learns, and what is told of the run."""
    if config.tune not in ("none", "soft_prompt"):
        raise ValueError(f"`tune` must be none or soft_prompt, but got {config.tune!r}.")
    if config.edits and config.tune != "none":
        raise ValueError(f"`tune` {config.tune} learns whole classes; leave out `edits`.")
    if config.proposer == "random" and config.tune != "none":
        raise ValueError(f"`tune` {config.tune} needs `proposer` llm; random edits learn nothing.")
    if asks_nobody(config):
        return untuned(random_edits()), None
    write = writer(
        subject.name,
        subject.grammar,
        edits=subject.lesson.task.shape if config.edits else None,
        constrained=is_constrained(config),
        max_tokens=config.max_tokens,
        begun=subject.stub,
    )
    if config.tune == "soft_prompt":
        return _soft(config, subject, write)
    line = connect(config)
    return untuned(write(line.client)), line.attach


def _soft(
    config: Config, subject: Subject, write: Callable[..., Proposer]
) -> tuple[Tuner, Callable[[Run], None]]:
    """The local model with a soft prompt, which is tuned between rounds."""
    if config.base_url or config.model not in ("", "local"):
        raise ValueError("`tune` soft_prompt needs the local model; leave out `base_url`.")
    model = load_model(config.gguf or None)
    line = connect(config, serve(model))
    asked = [
        {"role": "system", "content": subject.instruction},
        {"role": "user", "content": f"Begin with `{subject.stub}`."},
    ]
    tuning = soft_prompt(model, messages=asked)

    @lru_cache(1)
    def tuned(vectors: bytes, width: int) -> Proposer:
        before = np.frombuffer(vectors, np.float32).reshape(-1, width)
        client = serve(model, batch=config.concurrency, soft_prompt=jax.numpy.asarray(before))
        return write(line.around(client))

    def proposer(state: SoftPrompt) -> Proposer:
        return tuned(np.asarray(state.vectors).tobytes(), state.vectors.shape[1])

    return Tuner(tuning.init, tuning.tune, proposer, _tuned), line.attach


def _tuned(state: SoftPrompt) -> dict[str, Any]:
    """Loss of the programs tuned on last, in nats a token: in the first epoch, and in the last."""
    return {"tuning_loss_first": state.losses[0], "tuning_loss_last": state.losses[-1]}


def _told(tuner: Tuner, threshold: float, search: Search) -> Search:
    """The same search, whose answer is the best that survived, with its course in `info`."""

    def step(key: Key[Array, ""], state: Any) -> tuple[Any, dict[str, Any]]:
        state, info = search.step(key, state)
        book = state.closed.searcher
        top = best(book, threshold)
        course = {"score": score(book)[top], "size": book.size[top], "error": 100 * book.error[top]}
        return state, info | course | tuner.course(book.tuned)

    def answer(state: Any) -> Array:
        book = state.closed.searcher
        return book.pages[best(book, threshold)]

    return Search(search.init, step, answer)


def _describe(extra: Any) -> dict[str, float]:
    size, error = float(extra["params"]), 100 - float(extra["valid"])
    return {
        "test": float(extra["test"]),
        "error": error,
        "size": size,
        "score": -size * error / 100,
        "flops": float(extra["flops"]),
        "depth": float(extra["depth"]),
        "width": float(extra["width"]),
    }


def _notes(seeds: int, state: PyTree) -> dict[str, Any]:
    """All that was measured, and the front of size and error, for each seed of the search."""
    books: State = state.closed.searcher
    each = [jax.tree.map(lambda x, s=s: x[s], books) for s in range(len(books.asked))]
    axes = ["trainable parameters", "error of validation, %"]
    return {"front": {"axes": axes, "handmade": seeds, "searches": [_front(one) for one in each]}}


def _front(book: State) -> dict[str, Any]:
    size, error = np.asarray(book.size), 100 * np.asarray(book.error)
    measured = np.flatnonzero(~np.isnan(error)).tolist()
    points = [[row + 1, float(size[row]), float(error[row])] for row in measured]
    return {"measured": points, "best": [row + 1 for row in front(book)]}
