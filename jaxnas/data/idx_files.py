"""MNIST and everything shaped like it: idx files, gzipped or not, and the npz of Keras.

An idx file is a big-endian magic number (two zero bytes, 8 for unsigned bytes, the number of
axes), one 32-bit length an axis, then the bytes. Y. LeCun, C. Cortes, C. Burges, The MNIST
database of handwritten digits.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxnas.data.dataset import DataError, Split, checked_split, find
from jaxnas.data.files import read_bytes, read_npz

SIDE, CLASSES = 28, 10
UNSIGNED_BYTES = 0x08
IMAGES, LABELS = "images-idx3-ubyte", "labels-idx1-ubyte"
NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")


@dataclass(frozen=True)
class Counts:
    """How many images a set has, and how many of the training ones are held out."""

    train: int = 60_000
    test: int = 10_000
    held_out: int = 10_000


def find_idx(folders: tuple[str, ...], root: Path | str | None = None) -> Path | None:
    """The folder that holds the training images of an MNIST-like set.

    Args:
        folders: Names to try below each data folder.
        root: Look only here; `None` looks in all data folders.

    Returns:
        The folder, or `None`.
    """
    names = [f"{folder}/train-{IMAGES}{ending}" for folder in folders for ending in ("", ".gz")]
    return next((path.parent for name in names if (path := find(name, root))), None)


def read_idx_folder(folder: Path, counts: Counts, remedy: str) -> tuple[Split, Split]:
    """Read the four files of an MNIST-like set.

    Args:
        folder: Where `train-images-idx3-ubyte` and its three companions lie, each gzipped or not.
        counts: How many images there must be.
        remedy: What to do if they are not there.

    Returns:
        The official training and test sets, images uint8 [N, 28, 28, 1].

    Raises:
        DataError: If a file is absent, damaged, or not what its name says.
    """
    return (
        _read_split(folder, "train", counts.train, remedy),
        _read_split(folder, "t10k", counts.test, remedy),
    )


def read_mnist_npz(path: Path, counts: Counts, remedy: str) -> tuple[Split, Split]:
    """Read `x_train`, `y_train`, `x_test`, `y_test`; the test set may be a first part.

    Args:
        path: The archive.
        counts: How many training images there must be, and how many test images at most.
        remedy: What to do if it is damaged.

    Returns:
        Training and test sets, images uint8 [N, 28, 28, 1].

    Raises:
        DataError: If it is damaged or its arrays have the wrong shape.
    """
    arrays = read_npz(path, NPZ_KEYS, remedy)
    for key in ("x_train", "x_test"):
        x = arrays[key]
        if x.dtype != np.uint8 or x.shape[1:] != (SIDE, SIDE):
            cause = f"`{key}` is {x.dtype}{list(x.shape)}, not uint8[N, {SIDE}, {SIDE}]"
            raise DataError(path, cause, remedy)
    train, test = (
        checked_split(
            path,
            arrays[f"x_{part}"][..., None],
            arrays[f"y_{part}"],
            classes=CLASSES,
            remedy=remedy,
            rows=rows,
        )
        for part, rows in (("train", counts.train), ("test", None))
    )
    return train, test


def read_idx(path: Path, axes: int, remedy: str) -> np.ndarray:
    """Read one idx file of unsigned bytes.

    Args:
        path: The file, gzipped or not.
        axes: How many axes it must have.
        remedy: What to do if it is damaged.

    Returns:
        A uint8 array of that many axes.

    Raises:
        DataError: If the magic number or the number of bytes is wrong.
    """
    raw = read_bytes(path, remedy)
    start = 4 + 4 * axes
    if len(raw) < start:
        raise DataError(path, f"it ends after {len(raw)} bytes, inside its header", remedy)
    magic, *shape = struct.unpack(f">{1 + axes}I", raw[:start])
    wanted = UNSIGNED_BYTES << 8 | axes
    if magic != wanted:
        cause = f"its magic number is {magic}, not {wanted} (unsigned bytes, {axes} axes)"
        raise DataError(path, cause, remedy)
    if len(raw) - start != math.prod(shape):
        cause = f"it holds {len(raw) - start} bytes of data, its header {shape} promises "
        raise DataError(path, f"{cause}{math.prod(shape)}", remedy)
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _read_split(folder: Path, part: str, rows: int, remedy: str) -> Split:
    """Images and labels of `train` or `t10k`."""
    path = _existing(folder / f"{part}-{IMAGES}", remedy)
    x = read_idx(path, 3, remedy)
    if x.shape[1:] != (SIDE, SIDE):
        raise DataError(path, f"its images are {list(x.shape[1:])}, not [{SIDE}, {SIDE}]", remedy)
    y = read_idx(_existing(folder / f"{part}-{LABELS}", remedy), 1, remedy)
    return checked_split(path, x[..., None], y, classes=CLASSES, remedy=remedy, rows=rows)


def _existing(path: Path, remedy: str) -> Path:
    """The file or its gzipped twin."""
    for candidate in (path, path.with_name(f"{path.name}.gz")):
        if candidate.exists():
            return candidate
    raise DataError(path, "it is missing, with and without .gz, beside its companions", remedy)
