"""CIFAR-10 and CIFAR-100 as their authors distribute them.

Two versions, pickles of Python 2 and plain binary, each as the downloaded tar.gz or the folder it
unpacks to. An archive is read in one pass, without unpacking to disk.
https://www.cs.toronto.edu/~kriz/cifar.html describes both formats.
"""

import io
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxnas.data.dataset import DataError, Split, checked_split
from jaxnas.data.files import read_bytes, unpickle

SIDE, CHANNELS = 32, 3
PIXELS = SIDE * SIDE * CHANNELS


@dataclass(frozen=True)
class Layout:
    """What one of the two sets looks like on disk.

    Attributes:
        python: Folder and archive of the pickled version.
        binary: Folder and archive of the binary version.
        train: Training files of the pickled version, in order; the binary ones end in `.bin`.
        test: The test file.
        train_rows: Images in each training file.
        test_rows: Images in the test file.
        label: Key of the labels in a pickle.
        label_bytes: Bytes before the pixels of a binary row; the last of them is the label.
        classes: Number of classes.
        remedy: How to get the files, as a sentence.
    """

    python: tuple[str, str]
    binary: tuple[str, str]
    train: tuple[str, ...]
    test: str
    train_rows: int
    test_rows: int
    label: str
    label_bytes: int
    classes: int
    remedy: str

    @property
    def names(self) -> tuple[str, ...]:
        """Every name under which the set may lie in a data folder, all of them lossless."""
        return self.python + self.binary


def read_cifar(path: Path, layout: Layout) -> tuple[Split, Split]:
    """Read either version, from its folder or from its archive.

    Args:
        path: The folder or archive; its name says which version it is.
        layout: Which of the two sets it is.

    Returns:
        The official training and test sets, images uint8 [N, 32, 32, 3].

    Raises:
        DataError: If a file is absent, damaged, of the wrong size, or holds a label out of range.
    """
    ending = "" if path.name in layout.python else ".bin"
    parse = _parse_pickle if path.name in layout.python else _parse_binary
    names = [f"{name}{ending}" for name in (*layout.train, layout.test)]
    rows = [layout.train_rows] * len(layout.train) + [layout.test_rows]
    contents = _read_members(path, names, layout.remedy)
    splits = [
        parse(path / name, contents[name], layout, count)
        for name, count in zip(names, rows, strict=True)
    ]
    *batches, test = splits
    train = Split(
        np.concatenate([batch.x for batch in batches]),
        np.concatenate([batch.y for batch in batches]),
    )
    return train, test


def _read_members(path: Path, names: list[str], remedy: str) -> dict[str, bytes]:
    """The named files of a folder or tar archive, whatever folder they lie in there."""
    if path.is_dir():
        return {name: read_bytes(path / name, remedy) for name in names}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r|*") as archive:
            for member in archive:
                name = Path(member.name).name
                wanted = member.isfile() and name in names
                content = archive.extractfile(member) if wanted else None
                if content is not None:
                    found[name] = content.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(path, f"the archive is truncated or damaged ({error})", remedy) from error
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(path, f"the archive lacks {', '.join(missing)}", remedy)
    return found


def _parse_pickle(path: Path, raw: bytes, layout: Layout, rows: int) -> Split:
    """One batch of the pickled version: a dict with bytes as keys."""
    batch = unpickle(io.BytesIO(raw), path, layout.remedy, encoding="bytes")
    try:
        x, y = np.asarray(batch[b"data"]), np.asarray(batch[layout.label.encode()])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        cause = f"the pickle is no CIFAR batch ({type(error).__name__}: {error})"
        raise DataError(path, cause, layout.remedy) from error
    if x.dtype != np.uint8 or x.shape[1:] != (PIXELS,):
        cause = f"its data are {x.dtype}{list(x.shape)}, not uint8[N, {PIXELS}]"
        raise DataError(path, cause, layout.remedy)
    return _split(path, x, y, layout, rows)


def _parse_binary(path: Path, raw: bytes, layout: Layout, rows: int) -> Split:
    """One file of the binary version: label bytes, then red, green and blue planes."""
    width = layout.label_bytes + PIXELS
    if len(raw) != rows * width:
        cause = f"it holds {len(raw)} bytes, {rows} rows of {width} were expected"
        raise DataError(path, cause, layout.remedy)
    table = np.frombuffer(raw, np.uint8).reshape(rows, width)
    return _split(path, table[:, -PIXELS:], table[:, layout.label_bytes - 1], layout, rows)


def _split(path: Path, x: np.ndarray, y: np.ndarray, layout: Layout, rows: int) -> Split:
    """Planes to pixels, then the checks every split passes."""
    images = x.reshape(-1, CHANNELS, SIDE, SIDE).transpose(0, 2, 3, 1)
    return checked_split(
        path,
        np.ascontiguousarray(images),
        y,
        classes=layout.classes,
        remedy=layout.remedy,
        rows=rows,
    )
