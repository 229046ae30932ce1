"""What data there is, whether it is here, and how to get it.

`DATASETS` is the one list: adding a set is a function that returns a `Dataset` and a line here.
"""

import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from jaxnas.data import graphs, idx_files, images, jpeg_pack, tables
from jaxnas.data.dataset import PLACES, Dataset, find

_GENERATED = "generated, nothing to get"
_IDX = tuple(f"train-{idx_files.IMAGES}{ending}" for ending in ("", ".gz"))


@dataclass(frozen=True)
class Entry:
    """One line of the catalogue.

    Attributes:
        name: What `load` takes.
        what: What it is, in a few words.
        loader: `module:function`, imported when it is needed.
        files: Any of these in a data folder satisfies it; empty if it is generated.
        how: How to get it.
        licence: The licence its authors state.
        kind: What the loader returns; `load` returns data sets only.
    """

    name: str
    what: str
    loader: str
    files: tuple[str, ...] = ()
    how: str = _GENERATED
    licence: str = "generated here"
    kind: str = "data set"


class Row(NamedTuple):
    """One line of `survey`.

    Attributes:
        name: What `load` takes.
        here: Whether it can be loaded now.
        where: The file or folder, "generated", or "" if it is absent.
        how: How to get it.
        what: What it is.
        licence: The licence its authors state.
    """

    name: str
    here: bool
    where: str
    how: str
    what: str
    licence: str


_ENTRIES = (
    Entry("mnist1d", "5,000 signals of 40 points, ten classes", "jaxnas.data.mnist1d:mnist1d"),
    Entry("blobs", "Gaussian clouds", "jaxnas.data.toy:blobs"),
    Entry("two_moons", "two interleaved half circles", "jaxnas.data.toy:two_moons"),
    Entry("waves", "four kinds of waves, 40 points", "jaxnas.data.toy:waves"),
    Entry("shapes", "coloured 8x8 shapes, four classes", "jaxnas.data.toy:shapes"),
    Entry(
        "mnist",
        "70,000 grey 28x28 digits, ten classes",
        "jaxnas.data.images:mnist",
        files=(
            *(f"{folder}/{name}" for folder in images.MNIST_FOLDERS for name in _IDX),
            images.MNIST_NPZ,
        ),
        how=f"{images.MNIST_REMEDY} {PLACES}",
        licence=images.MNIST_LICENCE,
    ),
    Entry(
        "fashion_mnist",
        "70,000 grey 28x28 articles of clothing, ten classes",
        "jaxnas.data.images:fashion_mnist",
        files=tuple(f"{folder}/{name}" for folder in images.FASHION_FOLDERS for name in _IDX),
        how=f"{images.FASHION_REMEDY} {PLACES}",
        licence=images.FASHION_LICENCE,
    ),
    Entry(
        "cifar10",
        "60,000 colour 32x32 images, ten classes",
        "jaxnas.data.images:cifar10",
        files=(*images.CIFAR10.names, jpeg_pack.NAME),
        how=f"{images.CIFAR10.remedy} {PLACES}",
        licence=images.CIFAR_LICENCE,
    ),
    Entry(
        "cifar10_4000",
        "4,000 training images of CIFAR-10",
        "jaxnas.data.images:cifar10_4000",
        files=(images.SAMPLE,),
        how=f"{images.SAMPLE_REMEDY} {PLACES}",
        licence=images.CIFAR_LICENCE,
    ),
    Entry(
        "cifar100",
        "60,000 colour 32x32 images, 100 classes",
        "jaxnas.data.images:cifar100",
        files=images.CIFAR100.names,
        how=f"{images.CIFAR100.remedy} {PLACES}",
        licence=images.CIFAR_LICENCE,
    ),
    Entry(
        "nas_bench_201",
        "15,625 cells with trained accuracies on three data sets",
        "jaxnas.data.tables:nas_bench_201",
        files=(tables.FILE,),
        how=tables.REMEDY,
        licence="MIT",
        kind="table",
    ),
    Entry(
        "cora",
        "2,708 papers that cite each other, seven classes",
        "jaxnas.data.graphs:cora",
        files=graphs.citation_files("cora"),
        how=f"{graphs.REMEDY} {PLACES}",
        licence=graphs.LICENCE,
        kind="graph",
    ),
    Entry(
        "citeseer",
        "3,327 papers that cite each other, six classes",
        "jaxnas.data.graphs:citeseer",
        files=graphs.citation_files("citeseer"),
        how=f"{graphs.REMEDY} {PLACES}",
        licence=graphs.LICENCE,
        kind="graph",
    ),
    Entry(
        "pubmed",
        "19,717 papers that cite each other, three classes",
        "jaxnas.data.graphs:pubmed",
        files=graphs.citation_files("pubmed"),
        how=f"{graphs.REMEDY} {PLACES}",
        licence=graphs.LICENCE,
        kind="graph",
    ),
    Entry(
        "ppi",
        "24 graphs of interacting proteins, 121 labels a node",
        "jaxnas.data.graphs:ppi",
        files=(graphs.PPI_FILE,),
        how=f"{graphs.PPI_REMEDY} {PLACES}",
        licence=graphs.LICENCE,
        kind="list of graphs",
    ),
)
DATASETS: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def load(name: str) -> Dataset:
    """Load a data set by name, with its default arguments.

    Args:
        name: A key of `DATASETS`, such as "mnist1d".

    Returns:
        The data set.

    Raises:
        ValueError: If there is no such data set, or it is a table or a graph.
        DataError: If its files are absent or damaged.

    Example:
        >>> load("mnist1d").train.x.shape
        (3500, 40)
    """
    if name not in DATASETS:
        raise ValueError(f"`name` must be a known data set, but is {name!r}. {_suggestion(name)}")
    module, function = DATASETS[name].loader.split(":")
    kind = DATASETS[name].kind
    if kind != "data set":
        raise ValueError(f"{name!r} is a {kind}, not a data set: call {module}.{function}().")
    return getattr(importlib.import_module(module), function)()


def survey() -> list[Row]:
    """What is here and how to get the rest; looks for files without opening any.

    Returns:
        One row an entry of `DATASETS`, in its order.
    """
    return [_row(entry) for entry in DATASETS.values()]


def _row(entry: Entry) -> Row:
    """Where one entry comes from."""
    path: Path | None = next((one for name in entry.files if (one := find(name))), None)
    where = str(path or "") if entry.files else "generated"
    return Row(entry.name, bool(where), where, entry.how, entry.what, entry.licence)


def _suggestion(name: str) -> str:
    """Close matches, or all names."""
    close = difflib.get_close_matches(name, DATASETS)
    return f"Did you mean {' or '.join(close)}?" if close else f"Known: {', '.join(DATASETS)}."
