"""Image sets from files the user has: CIFAR-10, CIFAR-100, MNIST, Fashion-MNIST.

Nothing is downloaded. Every function takes the first source it finds, lossless ones first, and
says in `note` what a number made from a lesser source must carry. Validation is held out of the
official training set, always its last images: 5,000 of CIFAR's 50,000, 10,000 of MNIST's 60,000.
"""

from pathlib import Path

import numpy as np

from jaxnas.data import class_names
from jaxnas.data.cifar_files import Layout, read_cifar
from jaxnas.data.dataset import (
    DataError,
    Dataset,
    Split,
    checked_split,
    find,
    hold_out,
    not_found,
    require,
)
from jaxnas.data.files import read_npz
from jaxnas.data.idx_files import Counts, find_idx, read_idx_folder, read_mnist_npz
from jaxnas.data.jpeg_pack import NAME as JPEG_PACK, NOTE as JPEG_NOTE, read_jpeg_pack

CIFAR10 = Layout(
    python=("cifar-10-batches-py", "cifar-10-python.tar.gz"),
    binary=("cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    train_rows=10_000,
    test_rows=10_000,
    label="labels",
    label_bytes=1,
    classes=10,
    remedy="Get cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html.",
)
CIFAR100 = Layout(
    python=("cifar-100-python", "cifar-100-python.tar.gz"),
    binary=("cifar-100-binary", "cifar-100-binary.tar.gz"),
    train=("train",),
    test="test",
    train_rows=50_000,
    test_rows=10_000,
    label="fine_labels",
    label_bytes=2,
    classes=100,
    remedy="Get cifar-100-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html.",
)
CIFAR_HELD_OUT = 5_000
CIFAR_LICENCE = "none stated by its authors"
CIFAR_SOURCE = "Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images"
CIFAR10_MEAN, CIFAR10_STD = (
    (0.49139968, 0.48215827, 0.44653124),
    (0.24703233, 0.24348505, 0.26158768),
)

SAMPLE = "cifar10_lossless4000.npz"
SAMPLE_ROWS, SAMPLE_PART = 4_000, 400
SAMPLE_REMEDY = "Save the first 4,000 training images of CIFAR-10 as `x` and `y` in an npz file."

MNIST_FOLDERS = ("mnist", "MNIST/raw")
MNIST_NPZ = "mnist.npz"
MNIST_COUNTS = Counts()
MNIST_LICENCE = "CC BY-SA 3.0, as commonly stated"
MNIST_REMEDY = "Get the four idx files of MNIST into a folder `mnist`, or Keras' mnist.npz."
FASHION_FOLDERS = ("fashion-mnist", "FashionMNIST/raw")
FASHION_COUNTS = Counts()
FASHION_LICENCE = "MIT"
FASHION_REMEDY = (
    "Get the four idx files from https://github.com/zalandoresearch/fashion-mnist into a folder "
    "`fashion-mnist`, or install Debian's package dataset-fashion-mnist."
)


def cifar10(folder: Path | str | None = None) -> Dataset:
    """CIFAR-10: 45,000 / 5,000 / 10,000 colour images of ten classes.

    Args:
        folder: Look only here; `None` looks in all of `data_folders()`.

    Returns:
        Images uint8 [N, 32, 32, 3]; `note` says so if only the lossy JPEG pack was found.

    Raises:
        DataError: If no version is found, or the one found is damaged.
    """
    path = _first(CIFAR10.names, folder)
    if path is None:
        pack = find(JPEG_PACK, folder)
        if pack is None:
            raise not_found("CIFAR-10", CIFAR10.remedy, folder)
        official = read_jpeg_pack(pack, classes=CIFAR10.classes, remedy=CIFAR10.remedy)
    else:
        official = read_cifar(path, CIFAR10)
    return _cifar10_like("cifar10", official, note="" if path else JPEG_NOTE)


def cifar10_4000(folder: Path | str | None = None) -> Dataset:
    """The first 4,000 training images of CIFAR-10, exact: 3,200 / 400 / 400.

    Args:
        folder: Look only here; `None` looks in all of `data_folders()`.

    Returns:
        Images uint8 [N, 32, 32, 3]. Its test set is the last 400 of these, not CIFAR-10's own.

    Raises:
        DataError: If the file is absent or damaged.
    """
    path = require(SAMPLE, SAMPLE_REMEDY, folder)
    arrays = read_npz(path, ("x", "y"), SAMPLE_REMEDY)
    x, y = arrays["x"], arrays["y"]
    if x.dtype != np.uint8 or x.shape[1:] != (32, 32, 3):
        cause = f"`x` is {x.dtype}{list(x.shape)}, not uint8[N, 32, 32, 3]"
        raise DataError(path, cause, SAMPLE_REMEDY)
    split = checked_split(path, x, y, classes=10, remedy=SAMPLE_REMEDY, rows=SAMPLE_ROWS)
    official = hold_out(split, SAMPLE_PART)
    note = f"{SAMPLE_ROWS} training images of CIFAR-10; test is not CIFAR-10's test set"
    return _cifar10_like("cifar10_4000", official, note=note, held_out=SAMPLE_PART)


def cifar100(folder: Path | str | None = None) -> Dataset:
    """CIFAR-100 with its fine labels: 45,000 / 5,000 / 10,000 colour images of 100 classes.

    Args:
        folder: Look only here; `None` looks in all of `data_folders()`.

    Returns:
        Images uint8 [N, 32, 32, 3].

    Raises:
        DataError: If no version is found, or the one found is damaged.
    """
    path = _first(CIFAR100.names, folder)
    if path is None:
        raise not_found("CIFAR-100", CIFAR100.remedy, folder)
    train, test = read_cifar(path, CIFAR100)
    train, valid = hold_out(train, CIFAR_HELD_OUT)
    return Dataset(
        name="cifar100",
        train=train,
        valid=valid,
        test=test,
        classes=class_names.CIFAR100,
        mean=(0.50707516, 0.48654887, 0.44091784),
        std=(0.26733429, 0.25643846, 0.27615047),
        licence=CIFAR_LICENCE,
        source=CIFAR_SOURCE,
    )


def mnist(folder: Path | str | None = None) -> Dataset:
    """MNIST: 50,000 / 10,000 / 10,000 grey digits.

    Args:
        folder: Look only here, where the idx files may also lie directly; `None` looks in all of
            `data_folders()`, in the folders `mnist` and `MNIST/raw` and for `mnist.npz`.

    Returns:
        Images uint8 [N, 28, 28, 1]; `note` says so if only part of the test set was found.

    Raises:
        DataError: If nothing is found, or what is found is damaged.
    """
    found = find_idx(_with_root(MNIST_FOLDERS, folder), folder)
    if found:
        train, test = read_idx_folder(found, MNIST_COUNTS, MNIST_REMEDY)
    else:
        path = require(MNIST_NPZ, MNIST_REMEDY, folder)
        train, test = read_mnist_npz(path, MNIST_COUNTS, MNIST_REMEDY)
    whole = len(test.y) == MNIST_COUNTS.test
    train, valid = hold_out(train, MNIST_COUNTS.held_out)
    return Dataset(
        name="mnist",
        train=train,
        valid=valid,
        test=test,
        classes=class_names.DIGITS,
        mean=(0.13066048,),
        std=(0.30810781,),
        licence=MNIST_LICENCE,
        source="LeCun, Cortes and Burges 1998, The MNIST database of handwritten digits",
        note="" if whole else f"first {len(test.y)} of {MNIST_COUNTS.test} test images",
    )


def fashion_mnist(folder: Path | str | None = None) -> Dataset:
    """Fashion-MNIST: 50,000 / 10,000 / 10,000 grey articles of clothing.

    Args:
        folder: Look only here, where the idx files may also lie directly; `None` looks in all of
            `data_folders()`, in the folders `fashion-mnist` and `FashionMNIST/raw`.

    Returns:
        Images uint8 [N, 28, 28, 1].

    Raises:
        DataError: If the files are not found or damaged.
    """
    found = find_idx(_with_root(FASHION_FOLDERS, folder), folder)
    if found is None:
        raise not_found("Fashion-MNIST", FASHION_REMEDY, folder)
    train, test = read_idx_folder(found, FASHION_COUNTS, FASHION_REMEDY)
    train, valid = hold_out(train, FASHION_COUNTS.held_out)
    return Dataset(
        name="fashion_mnist",
        train=train,
        valid=valid,
        test=test,
        classes=class_names.FASHION,
        mean=(0.28604060,),
        std=(0.35302424,),
        licence=FASHION_LICENCE,
        source="Xiao, Rasul and Vollgraf 2017, arXiv:1708.07747",
    )


def _cifar10_like(
    name: str, official: tuple[Split, Split], *, note: str, held_out: int | None = None
) -> Dataset:
    """What both sets of CIFAR-10 images have in common."""
    train, test = official
    train, valid = hold_out(train, held_out or CIFAR_HELD_OUT)
    return Dataset(
        name=name,
        train=train,
        valid=valid,
        test=test,
        classes=class_names.CIFAR10,
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
        licence=CIFAR_LICENCE,
        source=CIFAR_SOURCE,
        note=note,
    )


def _first(names: tuple[str, ...], folder: Path | str | None) -> Path | None:
    """The first of several names that is there."""
    return next((path for name in names if (path := find(name, folder))), None)


def _with_root(folders: tuple[str, ...], root: Path | str | None) -> tuple[str, ...]:
    """Also the root itself, but only where the caller named it.

    MNIST and Fashion-MNIST use the same file names: lying loose in a shared folder, one would
    pass for the other.
    """
    return folders if root is None else (*folders, ".")
