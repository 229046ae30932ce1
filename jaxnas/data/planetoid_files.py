"""Citation networks as Planetoid distributes them, and as one npz file.

Yang, Cohen & Salakhutdinov, Revisiting Semi-Supervised Learning with Graph Embeddings, ICML 2016,
arXiv:1603.08861. The official release has eight files `ind.NAME.*` a network: pickles of Python 2
and a text file that lists the test nodes. All but `x`, the first rows of `allx`, are read. No scipy
is needed, and no code in a file is ever run.
"""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas.data.dataset import DataError
from jaxnas.data.files import read_bytes, read_npz, unpickle

REMEDY = (
    "Get the files ind.*.* of https://github.com/kimiyoung/planetoid into a folder `planetoid`."
)
PARTS = ("tx", "allx", "ty", "ally", "y", "graph")
SPARSE = ("indptr", "indices", "data", "shape")
NPZ = (*SPARSE, "labels", "labelled", "edges", "n_train", "test_idx")
UNKNOWN = -1


class Citations(NamedTuple):
    """A network as read: consistent, not yet split.

    Attributes:
        features: Bag of words, or its tf-idf, of every node, float32 [N, F].
        labels: Class of every node, int32 [N]; `UNKNOWN` where the release has none.
        links: Pairs of nodes in any form: one way or both, repeated, or of a node with itself.
        train: How many training nodes there are; they come first.
        test: Indices of the test nodes.
    """

    features: np.ndarray
    labels: np.ndarray
    links: np.ndarray
    train: int
    test: np.ndarray


class _Csr:
    """Stands for scipy's matrix in a pickle: the attributes that it was saved with."""


def read_planetoid_npz(path: Path) -> Citations:
    """Read a network from one npz file.

    Args:
        path: The file: `indptr`, `indices`, `data` and `shape` of the features in rows, `labels`,
            `labelled`, `edges` [E, 2], `n_train` and `test_idx`.

    Returns:
        The network.

    Raises:
        DataError: If it is absent, damaged or inconsistent.
    """
    arrays = read_npz(path, NPZ, REMEDY)
    features = _dense(path, *(arrays[key] for key in SPARSE))
    labels = np.where(arrays["labelled"], arrays["labels"].astype(np.int32), np.int32(UNKNOWN))
    return Citations(features, labels, arrays["edges"], int(arrays["n_train"]), arrays["test_idx"])


def read_planetoid(folder: Path, name: str) -> Citations:
    """Read a network from the eight official files, the test nodes in their places.

    The release keeps test nodes apart (`tx`, `ty`), in the order in which `test.index` names them.
    Where that list leaves out indices in its range, nodes stand there of which only the links are
    known.

    Args:
        folder: Where the files lie.
        name: The network as the files are named: `cora`, `citeseer` or `pubmed`.

    Returns:
        The network.

    Raises:
        DataError: If a file is absent, damaged or asks for code, or if they are inconsistent.
    """
    paths = {part: folder / f"ind.{name}.{part}" for part in (*PARTS, "test.index")}
    parts = {part: _unpickled(paths[part]) for part in PARTS}
    test = _indices(paths["test.index"])
    known, tested = (_matrix(paths[part], parts[part]) for part in ("allx", "tx"))
    first, last = len(known), max(int(test.max()) + 1, len(known))
    if len(test) != len(tested) or test.min() < first or len(np.unique(test)) != len(test):
        cause = f"it must name {len(tested)} different nodes from {first} on"
        raise DataError(paths["test.index"], cause, REMEDY)
    places = np.concatenate([np.arange(first), test])
    features = np.zeros((last, known.shape[1]), np.float32)
    labels = np.full(last, UNKNOWN, np.int32)
    try:
        features[places] = np.concatenate([known, tested])
        labels[places] = np.concatenate([_classes(parts["ally"]), _classes(parts["ty"])])
        links = [(node, other) for node, others in parts["graph"].items() for other in others]
        pairs, train = np.array(links, np.int64).reshape(-1, 2), len(parts["y"])
    except (AttributeError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise DataError(folder, f"ind.{name}.* do not fit together ({error})", REMEDY) from error
    return Citations(features, labels, pairs, train, test)


def _unpickled(path: Path) -> Any:
    """One object of the release."""
    raw = io.BytesIO(read_bytes(path, REMEDY))
    return unpickle(raw, path, REMEDY, encoding="latin1", also=_names())


def _names() -> Mapping[tuple[str, str], Any]:
    """What scipy calls its matrix, then and now, and how Python 2 makes an object of a class."""
    matrices = {(f"scipy.sparse{m}", "csr_matrix"): _Csr for m in ("", ".csr", "._csr")}
    makers = {(m, "_reconstructor"): _reconstructed for m in ("copy_reg", "copyreg")}
    return matrices | makers | {(m, "object"): object for m in ("builtins", "__builtin__")}


def _reconstructed(kind: type, *_: object) -> _Csr:
    if kind is not _Csr:
        raise TypeError(f"it makes an object of {kind}")
    return _Csr()


def _matrix(path: Path, matrix: Any) -> np.ndarray:
    """The dense form of a pickled matrix."""
    state = getattr(matrix, "__dict__", {}) if isinstance(matrix, _Csr) else {}
    state = {key.removeprefix("_"): value for key, value in state.items()}
    missing = [key for key in SPARSE if key not in state]
    if missing:
        raise DataError(path, f"it holds no matrix in rows (no {', '.join(missing)})", REMEDY)
    return _dense(path, *(np.asarray(state[key]) for key in SPARSE))


def _dense(
    path: Path, indptr: np.ndarray, indices: np.ndarray, data: np.ndarray, shape: np.ndarray
) -> np.ndarray:
    """Rows of a sparse matrix, float32 [N, F]; what could not be one is refused."""
    integers = all(part.dtype.kind in "iu" for part in (indptr, indices, shape))
    if not integers or data.dtype.kind not in "biuf" or shape.shape != (2,):
        raise DataError(path, "its features are no matrix of numbers", REMEDY)
    counts = np.diff(indptr)
    rows, columns = (int(size) for size in shape)
    sound = (
        len(counts) == rows
        and bool((counts >= 0).all())
        and counts.sum() == len(indices) == len(data)
        and bool(((indices >= 0) & (indices < columns)).all())
    )
    if not sound:
        raise DataError(path, f"its features are no matrix of {rows} by {columns}", REMEDY)
    dense = np.zeros((rows, columns), np.float32)
    np.add.at(dense, (np.repeat(np.arange(rows), counts), indices), data)
    return dense


def _classes(one_hot: np.ndarray) -> np.ndarray:
    """Labels of rows with a single one; a row of zeros is unknown."""
    return np.where(one_hot.any(1), one_hot.argmax(1), UNKNOWN)


def _indices(path: Path) -> np.ndarray:
    """One number a line."""
    try:
        numbers = np.array(read_bytes(path, REMEDY).split(), np.int64)
    except (ValueError, OverflowError) as error:
        raise DataError(path, f"it is no list of numbers ({error})", REMEDY) from error
    if not len(numbers):
        raise DataError(path, "it is empty", REMEDY)
    return numbers
