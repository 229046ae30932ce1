"""A data set as arrays: three splits and what must be said beside every number made from them.

Everything that reads or generates data returns a `Dataset`; everything that cannot raises a
`DataError`. Nothing is downloaded: files are looked for in `data_folders()`, in that order.
"""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

PLACES = "Put it into the folder named by JAXNAS_DATA or into ~/.cache/jaxnas."
SYSTEM_FOLDER = Path("/usr/share/datasets")
BESIDE_CHECKOUT = Path(__file__).resolve().parents[3] / "shared" / "data"


class Split(NamedTuple):
    """Examples and their labels.

    Attributes:
        x: uint8 images [N, H, W, C], or float32 signals [N, L].
        y: int32 labels [N], each in [0, number of classes).
    """

    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """Three splits with their provenance.

    Attributes:
        name: The name used in tables and in the catalogue.
        train: What weights are trained on.
        valid: Held out of the training set; what a search may look at.
        test: What only the final number may look at.
        classes: One name a label.
        mean: Per channel, in units of `x` (after division by 255 where `x` is uint8).
        std: Per channel, in the same units.
        licence: The licence its authors state, or that they state none.
        source: Authors, year and where it comes from.
        note: What must be printed beside every number, such as "lossy JPEG"; else empty.
    """

    name: str
    train: Split
    valid: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    licence: str
    source: str
    note: str = ""


class DataError(ValueError):
    """Data that is absent, damaged or not what its name says.

    Args:
        path: The file or folder in question.
        cause: What is wrong with it, as a clause.
        remedy: What to do about it, as a sentence.
    """

    def __init__(self, path: Path | str, cause: str, remedy: str) -> None:
        # All three stay in `args`, so that the error survives a trip between processes.
        super().__init__(path, cause, remedy)
        self.path, self.cause, self.remedy = path, cause, remedy

    def __str__(self) -> str:
        return f"{self.path}: {self.cause}. {self.remedy}"


def cache_folder() -> Path:
    """The folder of the user's own copies: `$XDG_CACHE_HOME/jaxnas`, else `~/.cache/jaxnas`.

    Returns:
        The path; it need not exist.
    """
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "jaxnas"


def data_folders() -> list[Path]:
    """Where files are looked for, in order.

    Returns:
        The folder named by `JAXNAS_DATA` if it is set, `../shared/data` beside the checkout and
        then the user's cache folder, then the folder where system packages install data sets.
        The second and the last are left out where they do not exist.
    """
    named = os.environ.get("JAXNAS_DATA")
    folders = [Path(named).expanduser()] if named else []
    folders += [BESIDE_CHECKOUT] if BESIDE_CHECKOUT.is_dir() else []
    folders.append(cache_folder())
    return folders + ([SYSTEM_FOLDER] if SYSTEM_FOLDER.is_dir() else [])


def find(name: str, folder: Path | str | None = None) -> Path | None:
    """The first file or folder of that name.

    Args:
        name: A path relative to a data folder, such as `mnist/train-images-idx3-ubyte.gz`.
        folder: Look only here; `None` looks in all of `data_folders()`.

    Returns:
        The path, or `None` if there is none.
    """
    folders = data_folders() if folder is None else [Path(folder).expanduser()]
    return next((root / name for root in folders if (root / name).exists()), None)


def require(name: str, remedy: str, folder: Path | str | None = None) -> Path:
    """The first file or folder of that name, which must exist.

    Args:
        name: A path relative to a data folder.
        remedy: How to get it, as a sentence.
        folder: Look only here; `None` looks in all of `data_folders()`.

    Returns:
        The path.

    Raises:
        DataError: If it is in none of the folders, which the message lists.
    """
    path = find(name, folder)
    if path is None:
        raise not_found(name, remedy, folder)
    return path


def not_found(name: str, remedy: str, folder: Path | str | None = None) -> DataError:
    """The error that lists the folders searched.

    Args:
        name: What was looked for.
        remedy: How to get it, as a sentence.
        folder: The only folder searched; `None` if it was all of `data_folders()`.

    Returns:
        The error, for the caller to raise.
    """
    folders = data_folders() if folder is None else [Path(folder)]
    return DataError(name, f"not found in {', '.join(map(str, folders))}", f"{remedy} {PLACES}")


def hold_out(train: Split, n: int) -> tuple[Split, Split]:
    """Hold out the last `n` training examples for validation; no randomness is involved.

    Args:
        train: The official training set.
        n: How many to hold out, in [1, len(train.y)).

    Returns:
        The shortened training set and the validation set, both views.

    Raises:
        ValueError: If `n` would leave either of them empty.
    """
    total = len(train.y)
    if not 1 <= n < total:
        raise ValueError(
            f"`n` must be at least 1 and below the {total} training examples, but is {n}."
        )
    return Split(train.x[:-n], train.y[:-n]), Split(train.x[-n:], train.y[-n:])


def on_everything(dataset: Dataset) -> Dataset:
    """The data set with its validation split given back to training, and none left to validate.

    Args:
        dataset: Any data set.

    Returns:
        It, what was held out standing last in the training set.
    """
    train, valid = dataset.train, dataset.valid
    joined = Split(np.concatenate([train.x, valid.x]), np.concatenate([train.y, valid.y]))
    return replace(dataset, train=joined, valid=Split(valid.x[:0], valid.y[:0]))


def checked_split(
    path: Path, x: np.ndarray, y: np.ndarray, *, classes: int, remedy: str, rows: int | None = None
) -> Split:
    """A split whose counts agree and whose labels are in range.

    Args:
        path: The file the arrays came from, for the message.
        x: Examples, first axis N.
        y: Labels of any integer type, [N].
        classes: How many classes there are.
        remedy: What to do if the file is wrong.
        rows: How many examples there must be; `None` takes any number from one.

    Returns:
        The split, labels as int32.

    Raises:
        DataError: If labels are no integers, counts differ or a label is out of range.
    """
    if y.ndim != 1 or y.dtype.kind not in "iu":
        raise DataError(path, f"its labels are {y.dtype}{list(y.shape)}, not integers [N]", remedy)
    if len(x) != len(y) or len(y) == 0 or (rows is not None and len(y) != rows):
        wanted = f"{rows} of each were expected" if rows else "equal counts were expected"
        raise DataError(path, f"it holds {len(x)} examples and {len(y)} labels, {wanted}", remedy)
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= classes:
        raise DataError(
            path, f"labels run from {low} to {high}, not within 0..{classes - 1}", remedy
        )
    return Split(x, y.astype(np.int32))
