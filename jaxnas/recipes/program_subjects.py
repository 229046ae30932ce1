"""What EvoPrompting can write: networks for signals, or triplet functions for CLRS-30.

Chen et al., NeurIPS 2023, arXiv:2302.14838: section 4.1 searches networks for MNIST-1D, trained
8,000 steps by AdamW; section 4.2 triplet functions, trained 2,000 steps, with batch and rate of
Ibarz et al., LoG 2022, arXiv:2209.11142.
"""

from typing import NamedTuple

from jaxnas.data.catalog import load
from jaxnas.data.clrs_probes import ALGORITHMS
from jaxnas.programs import lessons, triplets
from jaxnas.programs.evoprompting import INSTRUCTION, STUB
from jaxnas.programs.grammars import flax_class
from jaxnas.programs.lessons import Lesson
from jaxnas.programs.seeds import MNIST1D

PREFIX = "clrs_"  # before the name of an algorithm
OF_FUNCTIONS = (
    "You write triplet functions of a graph network in Flax. I say which metrics a network has, you "
    "answer with the code of its triplet function, not a word before or after it. The function sees "
    "nodes z [B, N, Z], edge_fts [B, N, N, E] and graph_fts [B, G], and returns a message for each "
    "edge, [B, N, N, features]."
)


class Protocol(NamedTuple):
    """How the paper trains a candidate, and what it may take.

    Attributes:
      steps: of training.
      batch: examples of a step.
      learning_rate: constant.
      deadline: seconds.
    """

    steps: int
    batch: int
    learning_rate: float
    deadline: float


class Subject(NamedTuple):
    """What is written, and what for.

    Attributes:
      lesson: what programs learn.
      seeds: sources to begin with, by what a report calls them.
      name: of the class or function.
      stub: the line that it begins with.
      instruction: for a model that chats.
      measure: what is measured of a program.
      grammar: of replies; empty where there is none.
    """

    lesson: Lesson
    seeds: dict[str, list[str]]
    name: str
    stub: str
    instruction: str
    measure: str
    grammar: str


def protocol(data: str) -> Protocol:
    """The paper's for a data set, or for CLRS-30."""
    if data.startswith(PREFIX):
        return Protocol(steps=2000, batch=32, learning_rate=1e-3, deadline=7200.0)
    return Protocol(steps=8000, batch=128, learning_rate=0.01, deadline=600.0)


def networks(data: str, *, batch: int, weight_decay: float) -> Subject:
    """Networks for a data set.

    Args:
      data: of signals in ten classes, see `data.catalog`.
      batch: examples of a step.
      weight_decay: of AdamW.

    Raises:
      ValueError: for other data.
    """
    dataset = load(data)
    shape, classes = dataset.train.x.shape[1:], len(dataset.classes)
    if len(shape) != 1 or classes != 10:
        raise ValueError(
            f"`data` must hold signals [N, L] in 10 classes, as the seeds expect, or be one of "
            f"{PREFIX}ALGORITHM, but {data} has {list(dataset.train.x.shape)} in {classes}."
        )
    return Subject(
        lessons.classification(dataset, batch=batch, weight_decay=weight_decay),
        {"hand-made": list(MNIST1D.values())},
        "Model",
        STUB,
        INSTRUCTION,
        "accuracy",
        flax_class(shape, classes),
    )


def triplet_functions(
    data: str,
    *,
    batch: int,
    nodes: tuple[int, ...],
    test_nodes: int,
    examples: int,
    hidden: int,
) -> Subject:
    """Triplet functions of a Triplet-GMPNN, whose own is the first of the paper's nine seeds.

    Args:
      data: `clrs_` and the name of an algorithm.
      batch: examples of a step.
      nodes: see `lessons.clrs`.
      test_nodes: likewise.
      examples: likewise.
      hidden: likewise.

    Raises:
      ValueError: if there is no such algorithm, dm-clrs is absent, or a number is out of range.
    """
    own, *others = (triplets.SOURCES[name] for name in triplets.SEEDS)
    return Subject(
        lessons.clrs(
            _algorithm(data),
            nodes=nodes,
            test_nodes=test_nodes,
            examples=examples,
            batch=batch,
            hidden=hidden,
        ),
        {"Triplet-GMPNN": [own], "hand-made": others},
        triplets.NAME,
        triplets.STUB,
        OF_FUNCTIONS,
        "score",
        "",
    )


def lesson(data: str) -> Lesson:
    """What sources for some data are checked for, at the paper's scale, of few examples.

    Args:
      data: a name in `data.catalog`, or `clrs_` and the name of an algorithm.

    Raises:
      ValueError: if there is no such data set or algorithm, or dm-clrs is absent.
    """
    if not data.startswith(PREFIX):
        return lessons.classification(load(data))
    batch = protocol(data).batch
    return lessons.clrs(_algorithm(data), examples=batch, batch=batch)


def _algorithm(data: str) -> str:
    name = data.removeprefix(PREFIX)
    if name not in ALGORITHMS:
        known = ", ".join(ALGORITHMS)
        raise ValueError(f"`data` must be {PREFIX} and one of {known}, but got {data!r}.")
    return name
