"""Files nobody vouches for: read whole, or refused with a `DataError` that says why.

Pickles are the one format here that can carry code. They are read by an unpickler that knows a
short list of harmless names and never imports anything, so a hostile file is refused instead of
run.
"""

import gzip
import io
import os
import pickle
import tempfile
import zipfile
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from jaxnas.data.dataset import DataError

GZIP = b"\x1f\x8b"


def read_bytes(path: Path, remedy: str) -> bytes:
    """The content of a file, unpacked if it is gzipped (told by content, not by name).

    Args:
        path: The file.
        remedy: What to do if it is damaged.

    Returns:
        The bytes.

    Raises:
        DataError: If it cannot be read, or ends early.
    """
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == GZIP else raw
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(path, f"it cannot be read whole ({error})", remedy) from error


def read_npz(path: Path, keys: Sequence[str], remedy: str) -> dict[str, np.ndarray]:
    """The named arrays of an npz archive; never objects.

    Args:
        path: The archive.
        keys: The arrays it must hold.
        remedy: What to do if it does not.

    Returns:
        The arrays by key.

    Raises:
        DataError: If it is no archive, is damaged, or lacks a key.
    """
    if not zipfile.is_zipfile(path):
        raise DataError(path, "it is not a complete npz archive", remedy)
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in keys if key not in archive.files]
            arrays = {key: archive[key] for key in keys if not missing}
    # Numpy parses headers as Python literals: damage shows as almost any error.
    except Exception as error:
        raise DataError(path, f"it is damaged ({error})", remedy) from error
    if missing:
        raise DataError(path, f"it lacks {', '.join(missing)}", remedy)
    return arrays


def read_npy(path: Path, remedy: str) -> np.ndarray:
    """The array of an npy file; never objects.

    Args:
        path: The file.
        remedy: What to do if it is damaged.

    Returns:
        The array.

    Raises:
        DataError: If it is absent or damaged, or holds objects.
    """
    try:
        return np.load(io.BytesIO(read_bytes(path, remedy)), allow_pickle=False)
    except DataError:
        raise
    except Exception as error:
        raise DataError(path, f"it is damaged ({error})", remedy) from error


def write_atomic(path: Path, write: Callable[[IO[bytes]], None]) -> None:
    """Write a file so that nobody ever sees half of it.

    Args:
        path: Where it shall stand; its folder is made.
        write: Writes the content to an open binary file.

    Raises:
        OSError: If the folder cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def unpickle(
    stream: IO[bytes],
    path: Path,
    remedy: str,
    *,
    encoding: str = "ASCII",
    tensors: bool = False,
    also: Mapping[tuple[str, str], Any] = {},
) -> Any:
    """One pickled object made of plain containers, numbers, strings and numpy arrays.

    Args:
        stream: Binary file positioned at the pickle; left just behind it.
        path: What to call it in messages.
        remedy: What to do if it is refused.
        encoding: How strings written by Python 2 come back; "bytes" keeps them as bytes.
        tensors: Let PyTorch tensors stand in the object; they come back as `None`.
        also: What stands for further names, by module and name; nothing of theirs is imported.

    Returns:
        The object.

    Raises:
        DataError: If it asks for any other name, or is damaged.
    """
    reader = (_Tensorless if tensors else _Restricted)(stream, encoding=encoding)
    reader.names = _ALLOWED | dict(also)
    try:
        return reader.load()
    # A damaged pickle may raise almost anything, from IndexError to MemoryError.
    except Exception as error:
        raise DataError(path, f"its pickle is refused or damaged ({error})", remedy) from error


def _latin1(text: str, encoding: str) -> bytes:
    """Bytes that Python 3 wrote in a pickle meant for Python 2."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes bytes as {encoding}")
    return text.encode("latin1")


def _dropped(*_: object) -> None:
    """Stands in for whatever rebuilds a tensor."""


def _harmless() -> dict[tuple[str, str], Any]:
    """What a pickle may name: containers, and what numpy needs to rebuild an array."""
    rebuild: dict[str, Any] = {
        "_reconstruct": np.empty(0).__reduce__()[0],
        "scalar": np.float64(0).__reduce__()[0],
    }
    frombuffer: Any = np.empty(0).__reduce_ex__(5)[0]
    allowed: dict[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("collections", "OrderedDict"): OrderedDict,
        ("collections", "defaultdict"): defaultdict,
        ("_codecs", "encode"): _latin1,
    }
    # Python 2 says __builtin__, numpy before 2 says numpy.core.
    for module in ("builtins", "__builtin__"):
        allowed |= {(module, kind.__name__): kind for kind in (dict, float, int, list, set)}
    for core in ("numpy.core", "numpy._core"):
        allowed |= {(f"{core}.multiarray", name): value for name, value in rebuild.items()}
        allowed[f"{core}.numeric", "_frombuffer"] = frombuffer
    return allowed


_ALLOWED = _harmless()


class _Restricted(pickle.Unpickler):
    """Looks names up in a fixed table and imports nothing."""

    names: Mapping[tuple[str, str], Any] = _ALLOWED

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.names:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.names[module, name]


class _Tensorless(_Restricted):
    """Also reads over tensors and their storages, without PyTorch."""

    def find_class(self, module: str, name: str) -> Any:
        is_torch = module.split(".")[0] == "torch"
        return _dropped if is_torch else super().find_class(module, name)

    def persistent_load(self, pid: object) -> None:
        return None
