"""The official releases of NAS-Bench-201 and NATS-Bench, made into the compact table.

Read are the topology release of NATS-Bench as a folder of small files, as the tar of that folder
and as one large pickle (`NATS-tss-v1_0-3ffb9...`), and the PyTorch file of NAS-Bench-201
(`NAS-Bench-201-v1_1-096897.pth`, also v1_0). No PyTorch is needed: weights are read over, and no
code in a file is ever run. The two large single files need as much memory as the official
programming interface does, tens of GB; the folder and the tar need almost none.

A record is a dict: `dataset_seed` lists the seeds of each training set, `all_results` holds under
`(training set, seed)` a dict with `epochs` and `eval_acc1es`, whose keys are `split@epoch`.
"""

import bz2
import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas.data.dataset import DataError, cache_folder
from jaxnas.data.files import unpickle, write_atomic
from jaxnas.data.tables import (
    FILE,
    KEYS,
    Nasbench201Table,
    check_table,
    count_flops,
    count_params,
    parse_cell,
    table_from,
)

REMEDY = "Fetch the release again (https://github.com/D-X-Y/NATS-Bench) and compare its size."
VALID = (("cifar10-valid", "x-valid"), ("cifar100", "x-valid"), ("ImageNet16-120", "x-valid"))
TEST = (("cifar10", "ori-test"), ("cifar100", "x-test"), ("ImageNet16-120", "x-test"))
# The single-seed column of CIFAR-10 is the network trained on half of the training set.
TEST_888 = (("cifar10-valid", "ori-test"), *TEST[1:])
TORCH_MAGIC = 0x1950A86A20F9469CFC6C
ENDING = ".pickle.pbz2"


class _Series(NamedTuple):
    """Which numbers of a cell make one array of the table: schedule, column sources, one seed."""

    epochs: str
    columns: tuple[tuple[str, str], ...]
    seed: int | None = None


SERIES = {
    "valid": _Series("200", VALID),
    "test": _Series("200", TEST),
    "valid_12": _Series("12", VALID),
    "test_12": _Series("12", TEST),
    "test_seed888": _Series("200", TEST_888, 888),
}


def import_official(path: Path | str, out: Path | str | None = None) -> Path:
    """Write the compact table of an official release.

    Args:
        path: The release: folder, tar, `.pickle.pbz2` or `.pth`.
        out: The npz file to write; `None` writes it into the user's cache folder, where
            `nas_bench_201()` finds it.

    Returns:
        Where it was written.

    Raises:
        DataError: If the release is damaged or incomplete.
        OSError: If the target cannot be written.
    """
    table = read_official(path)
    check_table(Path(path), table)
    target = Path(out) if out else cache_folder() / FILE
    arrays = {key: getattr(table, key) for key in KEYS}
    write_atomic(target, lambda file: np.savez_compressed(file, **arrays))
    return target


def read_official(path: Path | str) -> Nasbench201Table:
    """Read however many cells a release holds, by the official rule: the mean over its seeds.

    Parameters and FLOPs follow from the cells and are counted, not read: the releases hold some
    that disagree between the seeds of one cell.

    Args:
        path: The release: folder, tar, `.pickle.pbz2` or `.pth`.

    Returns:
        A table with one row a cell of the release, not checked for completeness.

    Raises:
        DataError: If the release is absent or damaged, or a record is not as described above.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(path, "it does not exist", REMEDY)
    ops, rows = [], []
    for index, (name, record) in enumerate(_cells(path)):
        # Whatever a foreign record lacks or holds instead, the message names the cell.
        try:
            ops.append(parse_cell(name))
            rows.append([_accuracies(record, series) for series in SERIES.values()])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            cause = f"cell {index} is not recorded as expected ({type(error).__name__}: {error})"
            raise DataError(path, cause, REMEDY) from error
    if not rows:
        raise DataError(path, "it lists no cells", REMEDY)
    cells, numbers = np.array(ops, np.int8), np.array(rows, np.float32)
    arrays = {key: numbers[:, place] for place, key in enumerate(SERIES)}
    counts = {"params": count_params(cells), "flops": count_flops(cells)}
    return table_from({"ops": cells, **arrays, **counts})


def _accuracies(record: dict[str, Any], series: _Series) -> list[float]:
    """One row of one array of the table."""
    results = record[series.epochs]
    return [_accuracy(results, *column, series.seed) for column in series.columns]


def _accuracy(results: dict[str, Any], dataset: str, split: str, seed: int | None) -> float:
    """Mean over the stored seeds, or one seed; NaN if nothing was stored."""
    seeds = [one for one in results["dataset_seed"].get(dataset, ()) if seed in (None, one)]
    runs = [results["all_results"][dataset, one] for one in seeds]
    values = [float(run["eval_acc1es"][f"{split}@{run['epochs'] - 1}"]) for run in runs]
    if not all(0 <= value <= 100 for value in values):
        raise ValueError(f"{dataset} {split} holds {values}, no percentages")
    return sum(values) / len(values) if values else float("nan")


def _cells(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and record of every cell, in the official order."""
    if path.is_dir():
        yield from _separate_cells(path, lambda name: (path / name).read_bytes())
    elif path.suffix == ".pth":
        yield from _joined_cells(path, _read_torch(path), {"12": "less", "200": "full"})
    elif path.name.endswith(ENDING):
        with path.open("rb") as file:
            whole = _unpack(path, file)
        yield from _joined_cells(path, whole, {"12": "12", "200": "200"})
    else:
        yield from _tar_cells(path)


def _tar_cells(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The cells of the folder inside a tar."""
    try:
        with tarfile.open(path) as archive:
            members = {Path(one.name).name: one for one in archive if one.isfile()}

            def read(name: str) -> bytes:
                content = archive.extractfile(members[name])
                return content.read() if content else b""

            yield from _separate_cells(path, read)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise DataError(path, f"it is no whole tar archive ({error})", REMEDY) from error


def _separate_cells(
    path: Path, read: Callable[[str], bytes]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The cells of a release that stores each in a file of its own."""

    def load(name: str) -> Any:
        try:
            raw = read(name)
        except (OSError, KeyError) as error:
            raise DataError(path, f"it lacks {name}, or it cannot be read", REMEDY) from error
        return _unpack(path / name, io.BytesIO(raw))

    for index, name in enumerate(_field(path, load(f"meta{ENDING}"), "meta_archs")):
        yield name, load(f"{index:06d}{ENDING}")


def _joined_cells(
    path: Path, whole: Any, schedules: dict[str, str]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The cells of a release that is one object; `schedules` translates its keys."""
    records = _field(path, whole, "arch2infos")
    for index, name in enumerate(_field(path, whole, "meta_archs")):
        record = _field(path, records, index)
        yield name, {ours: _field(path, record, theirs) for ours, theirs in schedules.items()}


def _field(path: Path, record: Any, key: str | int) -> Any:
    """An entry that must be there."""
    if not isinstance(record, dict) or key not in record:
        raise DataError(path, f"its pickle lacks {key!r}", REMEDY)
    return record[key]


def _unpack(path: Path, stream: Any) -> Any:
    """The object in a bz2-compressed pickle."""
    with bz2.BZ2File(stream) as unpacked:
        return unpickle(unpacked, path, REMEDY, tensors=True)


def _read_torch(path: Path) -> Any:
    """The object in a PyTorch file, old or new, its tensors left out."""
    if zipfile.is_zipfile(path):
        return _read_torch_zip(path)
    with path.open("rb") as file:
        if unpickle(file, path, REMEDY) != TORCH_MAGIC:
            raise DataError(path, "it is no PyTorch file: its magic number is wrong", REMEDY)
        # Two pickles of versions and sizes stand between the magic number and the object.
        for _ in range(2):
            unpickle(file, path, REMEDY)
        return unpickle(file, path, REMEDY, tensors=True)


def _read_torch_zip(path: Path) -> Any:
    """The object in a PyTorch file of 1.6 or later."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith("data.pkl")]
            with archive.open(names[0]) as file:
                return unpickle(file, path, REMEDY, tensors=True)
    except (OSError, IndexError, zipfile.BadZipFile) as error:
        raise DataError(path, f"it is no whole PyTorch file ({error})", REMEDY) from error
