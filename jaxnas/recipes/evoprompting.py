"""EvoPrompting: a language model writes networks for MNIST-1D, smaller and better round by round.

Paper: Chen et al., NeurIPS 2023, arXiv:2302.14838, with a PaLM of 62 B parameters; its results are
figures. `jaxnas run evoprompting --set base_url=http://127.0.0.1:8091/v1 --set model=NAME` asks an
endpoint, `--set proposer=random` puts random edits in its place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxnas.core import Leg, Search
from jaxnas.data.catalog import load
from jaxnas.data.dataset import Dataset
from jaxnas.llm.local import load_model, serve
from jaxnas.programs.bench import Training
from jaxnas.programs.distinct import distinct
from jaxnas.programs.evoprompting import (
    INSTRUCTION,
    STUB,
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
from jaxnas.programs.seeds import MNIST1D
from jaxnas.programs.soft_prompt import SoftPrompt, soft_prompt
from jaxnas.recipes.export_source import export as export
from jaxnas.recipes.llm import ModelConfig, asks_nobody, connect, is_constrained
from jaxnas.recipes.programs import judges, trace, writer
from jaxnas.recipes.search_spaces import Notation
from jaxnas.recipes.system import System
from jaxnas.runs.store import Run

BASELINES = {"none": "best", "few_shot": "seeds", "random_parents": "random"}


@dataclass(frozen=True)
class Config(ModelConfig):
    """Settings, beyond those of `ModelConfig`.

    Attributes:
      data: a data set of signals in ten classes.
      rounds: after which parents are chosen.
      prompts: of a round; a prompt is a step.
      samples: programs of a prompt.
      examples: parents in a prompt.
      survivors: that become parents.
      threshold: error of validation, 0 to 1, from which on a program does not survive.
      temperatures: of which each prompt draws one.
      baseline: `none`, or what replaces evolution: `few_shot` (the seeds in every prompt) or
        `random_parents`.
      tune: `none`, or `soft_prompt` of the local model between rounds.
      style: `chat` (an instruction before the examples) or `completion` (the examples alone).
      steps: of training.
      train_batch: examples of a step.
      learning_rate: of AdamW.
      weight_decay: of AdamW.
      runs: trainings whose mean judges what is found, and the seeds beside it.
      level: of the sandbox's isolation: `process`, `landlock`, `bubblewrap`, or `auto`.
      workers: sources checked at a time.
      together: programs trained at the same time; 0 for one on a CPU, several on an accelerator.
      deadline: seconds that the training of these may take.
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
    train_batch: int = 128
    learning_rate: float = 0.01
    weight_decay: float = 1e-4
    runs: int = 3
    level: str = "auto"
    workers: int = 2
    together: int = 0
    deadline: float = 600.0


PRESETS = {
    "tiny": Config(rounds=2, prompts=1, samples=4, survivors=2, threshold=1.0, steps=20, runs=1),
    "default": Config(),
    "paper": Config(rounds=10, prompts=10, samples=16, survivors=10, steps=8000),
}  # fmt: skip


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be, or no language model where one is needed.
    """
    dataset, settings = _data(config), _settings(config)
    tuner, attach = _tuner(config, dataset)
    seeds = list(MNIST1D.values())
    searcher = evoprompting(tuner, seeds, settings)
    judge, final = judges(
        dataset,
        _training(config),
        steps=config.steps,
        runs=config.runs,
        seeds=seeds,
        level=config.level,
        workers=config.workers,
    )
    search = _told(distinct(searcher, judge, rows(len(seeds), settings)))
    label = f"accuracy of validation in {config.steps} steps on {dataset.name}, %"
    return System(
        [Leg(search, steps(len(seeds), settings))],
        every=1,
        mode="host",
        seeds="loop",
        judge=final,
        describe=_describe,
        baseline=lambda key, runs: {"hand-made": pages(seeds)},
        curve=None,
        space=Notation(text, lambda page: {}),
        labels={
            "fitness_label": f"best {label}, mean of {config.runs}",
            "search_label": f"best {label}",
            "cost_label": "steps of training",
            "noun": "program",
        },
        failures=REASONS,
        trace=partial(trace, config.steps),
        notes=partial(_notes, len(seeds)),
        attach=attach,
    )


def _data(config: Config) -> Dataset:
    dataset = load(config.data)
    if dataset.train.x.ndim != 2 or len(dataset.classes) != 10:
        raise ValueError(
            f"`data` must hold signals [N, L] in 10 classes, as the seeds expect, but "
            f"{config.data} has {list(dataset.train.x.shape)} in {len(dataset.classes)}."
        )
    return dataset


def _settings(config: Config) -> Settings:
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
        instruction=INSTRUCTION if config.style == "chat" else "",
    )


def _tuner(config: Config, dataset: Dataset) -> tuple[Tuner, Callable[[Run], None] | None]:
    """Who writes and learns, and what is told of the run."""
    if config.tune not in ("none", "soft_prompt"):
        raise ValueError(f"`tune` must be none or soft_prompt, but got {config.tune!r}.")
    if config.edits and config.tune != "none":
        raise ValueError(f"`tune` {config.tune} learns whole classes; leave out `edits`.")
    if config.proposer == "random" and config.tune != "none":
        raise ValueError(f"`tune` {config.tune} needs `proposer` llm; random edits learn nothing.")
    if asks_nobody(config):
        return untuned(random_edits()), None
    shape, classes = dataset.train.x.shape[1:], len(dataset.classes)
    write = writer(
        shape,
        classes,
        edits=config.edits,
        constrained=is_constrained(config),
        max_tokens=config.max_tokens,
        begun=STUB,
    )
    if config.tune == "soft_prompt":
        return _soft(config, write)
    line = connect(config)
    return untuned(write(line.client)), line.attach


def _soft(config: Config, write: Callable[..., Proposer]) -> tuple[Tuner, Callable[[Run], None]]:
    """The local model with a soft prompt, which is tuned between rounds."""
    if config.base_url or config.model not in ("", "local"):
        raise ValueError("`tune` soft_prompt needs the local model; leave out `base_url`.")
    model = load_model(config.gguf or None)
    line = connect(config, serve(model))
    instruction = ({"role": "user", "content": INSTRUCTION},)
    tuning = soft_prompt(model, messages=instruction)

    @lru_cache(1)
    def tuned(vectors: bytes, width: int) -> Proposer:
        before = np.frombuffer(vectors, np.float32).reshape(-1, width)
        client = serve(model, batch=config.concurrency, soft_prompt=jax.numpy.asarray(before))
        return write(line.around(client))

    def proposer(state: SoftPrompt) -> Proposer:
        return tuned(np.asarray(state.vectors).tobytes(), state.vectors.shape[1])

    return Tuner(tuning.init, tuning.tune, proposer), line.attach


def _training(config: Config) -> Training:
    return Training(
        batch=config.train_batch,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        together=config.together,
        deadline=config.deadline,
    )


def _told(search: Search) -> Search:
    """The same search, whose answer is the best score, with its course in `info`."""

    def step(key: Key[Array, ""], state: Any) -> tuple[Any, dict[str, Any]]:
        state, info = search.step(key, state)
        book = state.closed.searcher
        scores = score(book)
        top = scores.argmax()
        course = {"score": scores[top], "size": book.size[top], "error": 100 * book.error[top]}
        return state, info | course

    return Search(search.init, step, lambda state: best(state.closed.searcher))


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
