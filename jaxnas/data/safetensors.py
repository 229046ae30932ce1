"""Weights in safetensors files, read without trusting them.

The format of https://github.com/huggingface/safetensors: the length of a header (8 bytes, little
endian), the header (json: name -> dtype, shape, offsets), then the bytes of all tensors without
gaps.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from jaxnas.data.dataset import DataError

# numpy has no bfloat16: its bits are read as uint16 and are the upper half of a float32.
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "|b1",
}  # fmt: skip
LARGEST_HEADER = 100 << 20


def read_safetensors(path: Path, remedy: str) -> dict[str, np.ndarray]:
    """All tensors of a file.

    Args:
        path: The file.
        remedy: What to do if it is damaged.

    Returns:
        The tensors by name, read-only views of the file on disk; bfloat16 comes as float32.

    Raises:
        DataError: If it cannot be read, or its header does not fit the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(LARGEST_HEADER, size - 8):
                raise ValueError(f"a header of {length} bytes does not fit {size} bytes")
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("its header is no table")
        header.pop("__metadata__", None)
        data = np.memmap(path, np.uint8, "r")[8 + length :]
        _check(header, len(data))
        return {name: _tensor(data, entry) for name, entry in header.items()}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(path, f"it is no complete safetensors file ({error})", remedy) from error


def _check(header: dict[str, Any], size: int) -> None:
    """Raises a `ValueError` unless the tensors fill the file one after another."""
    spans = sorted(_span(name, entry) for name, entry in header.items())
    ends = [0, *(end for _, end in spans)]
    if [start for start, _ in spans] != ends[:-1] or ends[-1] != size:
        raise ValueError(f"its tensors do not fill its {size} bytes one after another")


def _span(name: str, entry: Any) -> tuple[int, int]:
    """Where a tensor starts and ends, which must fit its dtype and shape."""
    try:
        dtype, shape, (start, end) = DTYPES[entry["dtype"]], entry["shape"], entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (*shape, start, end))
        if whole and end - start == math.prod(shape) * np.dtype(dtype).itemsize:
            return start, end
    except (KeyError, TypeError, ValueError):
        pass
    raise ValueError(f"the entry of {name!r} is {str(entry)[:200]}")


def _tensor(data: np.ndarray, entry: dict[str, Any]) -> np.ndarray:
    """One tensor whose entry has been checked."""
    start, end = entry["data_offsets"]
    raw = data[start:end].view(DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return (raw.astype(np.uint32) << 16).view(np.float32) if entry["dtype"] == "BF16" else raw
