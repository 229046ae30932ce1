"""Five tasks of GLUE as sentences and labels.

A. Wang et al., GLUE, ICLR 2019, arXiv:1804.07461: CoLA (Warstadt et al.), RTE, WNLI, STS-B (Cer et
al.) and MRPC (Dolan and Brockett). For MRPC the original release is read: all 4,076 labelled pairs
of its training file are trained on, and its labelled test file stands in for the development set,
where GLUE cuts 408 pairs off the training file by a list of its own. Numbers on MRPC are therefore
not those of GLUE's development set.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnas.data.dataset import DataError, data_folders, not_found
from jaxnas.data.files import read_bytes

FOLDER = "glue"
REMEDY = (
    "Unpack the files of https://gluebenchmark.com/tasks into a folder `glue`, such as "
    "glue/RTE/train.tsv, each gzipped or not; for MRPC the two files of Microsoft's paraphrase "
    "corpus, msr_paraphrase_train.txt and msr_paraphrase_test.txt."
)


class Sentences(NamedTuple):
    """Sentences, or pairs of them, with labels.

    Attributes:
        first: N sentences.
        second: N sentences, or none where the task has single sentences.
        labels: [N], int32 classes; float32 in [0, 5] where the task is a regression.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    labels: np.ndarray


class GlueTask(NamedTuple):
    """A task with its training and development sets; the test labels of GLUE are secret.

    Attributes:
        name: Such as "cola".
        train: What is trained on.
        dev: What papers report on; for MRPC the original test set.
        classes: One name a label; empty for a regression.
        metric: What it is judged by: "matthews", "accuracy" or "spearman".
    """

    name: str
    train: Sentences
    dev: Sentences
    classes: tuple[str, ...]
    metric: str


@dataclass(frozen=True)
class _Layout:
    """How a task lies on disk.

    Attributes:
        folder: Below `glue`.
        sizes: Examples of the two files.
        columns: Tab-separated ones.
        sentences: Columns of the first and the second sentence.
        label: Column of the label.
        classes: Name of each class; empty for a regression.
        written: How each class is written, if not by its number.
        metric: What the task is judged by.
        header: Whether the first line names the columns.
        files: Names of the two files.
    """

    folder: str
    sizes: tuple[int, int]
    columns: int
    sentences: tuple[int, ...]
    label: int
    classes: tuple[str, ...] = ()
    written: tuple[str, ...] = ("0", "1")
    metric: str = "accuracy"
    header: bool = True
    files: tuple[str, str] = ("train.tsv", "dev.tsv")


_ENTAILMENT = ("entailment", "not_entailment")
_LAYOUTS = {
    "cola": _Layout(
        "CoLA", (8_551, 1_043), 4, (3,), 1, ("unacceptable", "acceptable"),
        metric="matthews", header=False,
    ),
    "rte": _Layout("RTE", (2_490, 277), 4, (1, 2), 3, _ENTAILMENT, written=_ENTAILMENT),
    "wnli": _Layout("WNLI", (635, 71), 4, (1, 2), 3, _ENTAILMENT[::-1]),
    "stsb": _Layout("STS-B", (5_749, 1_500), 10, (7, 8), 9, metric="spearman"),
    "mrpc": _Layout(
        "MRPC", (4_076, 1_725), 5, (3, 4), 0, ("not_equivalent", "equivalent"),
        files=("msr_paraphrase_train.txt", "msr_paraphrase_test.txt"),
    ),
}  # fmt: skip
TASKS = tuple(_LAYOUTS)


def glue(task: str, folder: Path | None = None) -> GlueTask:
    """One task of GLUE.

    Args:
        task: One of "cola", "rte", "wnli", "stsb", "mrpc".
        folder: Look only below this data folder; `None` looks in all.

    Returns:
        Its training and development sets.

    Raises:
        ValueError: If there is no such task.
        DataError: If a file is absent, damaged or not what its name says.

    Example:
        >>> glue("wnli").train.first[1]
        "John couldn't see the stage with Billy in front of him because he is so short."
    """
    if task not in _LAYOUTS:
        raise ValueError(f"`task` must be one of {', '.join(_LAYOUTS)}, but is {task!r}.")
    layout = _LAYOUTS[task]
    train, dev = (
        _read(_find(f"{FOLDER}/{layout.folder}/{file}", folder), layout, size)
        for file, size in zip(layout.files, layout.sizes, strict=True)
    )
    return GlueTask(task, train, dev, layout.classes, layout.metric)


def _find(name: str, folder: Path | None) -> Path:
    """The file or its gzipped twin."""
    roots = data_folders() if folder is None else [folder]
    paths = (root / f"{name}{ending}" for root in roots for ending in ("", ".gz"))
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise not_found(name, REMEDY, folder)
    return path


def _read(path: Path, layout: _Layout, size: int) -> Sentences:
    """One file; quotation marks have no meaning in it."""
    try:
        text = read_bytes(path, REMEDY).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(path, f"it is no text ({error})", REMEDY) from error
    # Not `splitlines`, which also cuts at line separators inside a sentence.
    lines = text.removesuffix("\n").split("\n")
    rows = [line.removesuffix("\r").split("\t") for line in lines][layout.header :]
    for number, row in enumerate(rows, start=1 + layout.header):
        if len(row) != layout.columns:
            cause = f"line {number} has {len(row)} columns, not {layout.columns}"
            raise DataError(path, cause, REMEDY)
    if len(rows) != size:
        raise DataError(path, f"it holds {len(rows)} examples, not {size}", REMEDY)
    first, second = (
        tuple(row[column] for row in rows for column in layout.sentences[place : place + 1])
        for place in (0, 1)
    )
    return Sentences(first, second, _labels(path, layout, rows))


def _labels(path: Path, layout: _Layout, rows: list[list[str]]) -> np.ndarray:
    """Classes as int32, scores as float32."""
    read: Callable[[str], float] = layout.written.index if layout.classes else float
    wanted = f"one of {', '.join(layout.written)}" if layout.classes else "within 0..5"
    labels = []
    for number, row in enumerate(rows, start=1 + layout.header):
        try:
            labels.append(read(row[layout.label]))
        except ValueError:
            labels.append(np.nan)
        if not 0 <= labels[-1] <= 5:
            cause = f"the label of line {number} is {row[layout.label]!r}, not {wanted}"
            raise DataError(path, cause, REMEDY)
    return np.array(labels, np.int32 if layout.classes else np.float32)
