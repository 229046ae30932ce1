"""NAS-Bench-201 as arrays: every cell of the space with its trained accuracies.

X. Dong and Y. Yang, NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture
Search, ICLR 2020, arXiv:2001.00326; X. Dong et al., NATS-Bench, TPAMI 2021, arXiv:2009.00437.
A cell has four nodes and six edges, each edge one of five operations: 5^6 = 15,625 cells, trained
on three data sets. The 600 kB file `nas_bench_201.npz` holds the means over the stored seeds;
`jaxnas.data.official.import_official` makes it from the official releases.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from jaxnas.data.dataset import DataError, require
from jaxnas.data.files import read_npz

FILE = "nas_bench_201.npz"
DATASETS = ("cifar10", "cifar100", "ImageNet16-120")
CLASSES = np.array([10, 100, 120])
# ImageNet16 images have a quarter of the pixels of CIFAR's.
PIXEL_SHARE = np.array([4, 4, 1])
OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
CELLS = len(OPERATIONS) ** len(EDGES)
# Rows known from the releases: a table in any other order would answer for the wrong cells.
ANCHORS = {0: (4, 2, 1, 2, 1, 1), 11: (3, 3, 4, 0, 3, 4), 6111: (3, 3, 3, 1, 3, 2)}
ACCURACIES = ("valid", "test", "valid_12", "test_12", "test_seed888")
REMEDY = (
    "Make it from an official release with jaxnas.data.official.import_official, for example from "
    "NATS-tss-v1_0-3ffb9-simple.tar (https://github.com/D-X-Y/NATS-Bench)."
)


class Nasbench201Table(NamedTuple):
    """One row a cell, in the official order of the cells; one column a data set.

    Accuracies are percent at the end of training. After 200 epochs they are means over the
    stored seeds; CIFAR-10 is validated by networks trained on half of its training set and
    tested by networks trained on all of it.

    Attributes:
        ops: Operation of each edge 0->1, 0->2, 1->2, 0->3, 1->3, 2->3, [15625, 6] int8: 0 none,
            1 skip_connect, 2 nor_conv_1x1, 3 nor_conv_3x3, 4 avg_pool_3x3.
        valid: Validation accuracy after 200 epochs, [15625, 3] float32.
        test: Test accuracy after 200 epochs, [15625, 3] float32.
        valid_12: Validation accuracy of the 12-epoch schedule (CIFAR-10 the mean of two seeds,
            the others one), [15625, 3] float32; NaN where a release lacks it.
        test_12: Test accuracy of the 12-epoch schedule, [15625, 3] float32, NaN likewise.
        test_seed888: Test accuracy of the single seed 888 after 200 epochs, on CIFAR-10 by the
            network trained on half of the training set, [15625, 3] float32, NaN likewise.
        params: Weights, exact, [15625, 3] int32.
        flops: Operations of one forward pass as `count_flops` counts them, [15625, 3] int64.
        datasets: The names of the columns.
    """

    ops: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    valid_12: np.ndarray
    test_12: np.ndarray
    test_seed888: np.ndarray
    params: np.ndarray
    flops: np.ndarray
    datasets: tuple[str, ...] = DATASETS


KEYS = Nasbench201Table._fields[:-1]


def nas_bench_201(path: Path | str | None = None) -> Nasbench201Table:
    """Read and check the compact table.

    Args:
        path: The npz file; `None` looks for `nas_bench_201.npz` in all of `data_folders()`.

    Returns:
        The table.

    Raises:
        DataError: If it is absent, damaged, incomplete, or in another order.
    """
    path = Path(path) if path else require(FILE, REMEDY)
    arrays = read_npz(path, KEYS, REMEDY)
    table = table_from(arrays)
    check_table(path, table)
    return table


def table_from(arrays: dict[str, np.ndarray]) -> Nasbench201Table:
    """A table from its arrays by name, as the npz file holds them.

    Args:
        arrays: One array for each of `KEYS`, with the shapes the table documents.

    Returns:
        The table, not checked.
    """
    return Nasbench201Table(
        ops=arrays["ops"],
        valid=arrays["valid"],
        test=arrays["test"],
        valid_12=arrays["valid_12"],
        test_12=arrays["test_12"],
        test_seed888=arrays["test_seed888"],
        params=arrays["params"],
        flops=arrays["flops"],
    )


def check_table(path: Path, table: Nasbench201Table) -> None:
    """Refuse a table that would silently answer wrong.

    Args:
        path: Where it came from, for the message.
        table: The table.

    Raises:
        DataError: If a shape is wrong, a cell is missing, misplaced or twice there, an accuracy
            is no percentage, or a count disagrees with its cell.
    """
    cause = _wrong_shape(table) or _wrong_cells(table.ops) or _wrong_numbers(table)
    if cause:
        raise DataError(path, cause, REMEDY)


def count_params(ops: np.ndarray) -> np.ndarray:
    """Weights of the 15-cell network: stem, two residual blocks, cells, classifier.

    Args:
        ops: Operation of each edge, [N, 6].

    Returns:
        One column a data set, [N, 3] int32. An edge that leads nowhere still has its weights.
    """
    _, conv1, conv3, _ = _counts(ops)
    return (72_656 + 65 * CLASSES + 243_040 * conv3 + 28_000 * conv1).astype(np.int32)


def count_flops(ops: np.ndarray) -> np.ndarray:
    """Operations of one forward pass, counting batch norm, ReLU and pooling.

    Args:
        ops: Operation of each edge, [N, 6].

    Returns:
        One column a data set, [N, 3] int64.
    """
    _, conv1, conv3, pool = _counts(ops)
    body = 8_954_880 * conv3 + 1_090_560 * conv1 + 322_560 * pool
    fixed = np.array([7_943_872, 7_949_632, 1_993_792])
    return (fixed + PIXEL_SHARE * body).astype(np.int64)


def parse_cell(name: str) -> tuple[int, ...]:
    """Operations of a cell written the official way.

    Args:
        name: Such as `|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|`: nodes joined by
            `+`, each a list of `operation~source`.

    Returns:
        Six indices into `OPERATIONS`, in the order of `EDGES`.

    Raises:
        ValueError: If it is no cell of this space.
    """
    edges = [
        (int(source), node, OPERATIONS.index(operation))
        for node, group in enumerate(name.split("+"), start=1)
        for operation, _, source in (edge.partition("~") for edge in group.strip("|").split("|"))
    ]
    if tuple(edge[:2] for edge in edges) != EDGES:
        raise ValueError(f"`name` must list the edges {EDGES}, but is {name!r}.")
    return tuple(operation for _, _, operation in edges)


def _counts(ops: np.ndarray) -> list[np.ndarray]:
    """How often each operation but `none` stands in a cell, each [N, 1]."""
    return [(ops == index).sum(1, keepdims=True) for index in range(1, len(OPERATIONS))]


def _wrong_shape(table: Nasbench201Table) -> str:
    """What is wrong with the shapes, or nothing."""
    for key in KEYS:
        wanted = (CELLS, len(EDGES) if key == "ops" else len(DATASETS))
        if getattr(table, key).shape != wanted:
            return f"`{key}` is {list(getattr(table, key).shape)}, not {list(wanted)}"
    return ""


def _wrong_cells(ops: np.ndarray) -> str:
    """What is wrong with the rows, or nothing."""
    if ops.dtype.kind not in "iu" or ops.min() < 0 or ops.max() >= len(OPERATIONS):
        return f"`ops` must be integers within 0..{len(OPERATIONS) - 1}"
    distinct = len(np.unique(ops, axis=0))
    if distinct != CELLS:
        return f"it holds {distinct} distinct cells, not {CELLS}"
    moved = [row for row, cell in ANCHORS.items() if tuple(ops[row].tolist()) != cell]
    return f"its cells are not in the official order (row {moved[0]} differs)" if moved else ""


def _wrong_numbers(table: Nasbench201Table) -> str:
    """What is wrong with the columns, or nothing."""
    for key in ACCURACIES:
        values = getattr(table, key)
        known = values if key in ("valid", "test") else values[~np.isnan(values)]
        if not np.all((known >= 0) & (known <= 100)):
            return f"`{key}` holds values that are no percentages"
    for key, count in (("params", count_params), ("flops", count_flops)):
        if not np.array_equal(getattr(table, key), count(table.ops)):
            return f"`{key}` disagrees with the cells"
    return ""
