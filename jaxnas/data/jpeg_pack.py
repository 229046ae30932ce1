"""CIFAR-10 as a pack of JPEG bytes: a third of the size, and lossy.

The pack is an npz: for each of `train` and `test` the concatenated JPEG files (`_blob`), where
each begins and ends (`_off`, one more than there are images) and the labels (`_y`). Decoding takes
seconds, so the pixels are kept in the user's cache folder under the fingerprint of the pack.

The pack is sorted by class, so its images are dealt out again, one of each class in turn: else the
last images, which are held out for validation, would all be trucks.
"""

import hashlib
import io
from pathlib import Path

import numpy as np

from jaxnas.data.dataset import DataError, Split, cache_folder, checked_split
from jaxnas.data.files import read_npz, write_atomic

NAME = "cifar10_jpeg.npz"
NOTE = "lossy JPEG, PSNR 30.5 dB median"
KEYS = ("train_blob", "train_off", "train_y", "test_blob", "test_off", "test_y")
SHAPE = (32, 32, 3)


def read_jpeg_pack(path: Path, *, classes: int, remedy: str) -> tuple[Split, Split]:
    """Decode the pack, or take the pixels decoded before.

    Args:
        path: The pack.
        classes: How many classes there are.
        remedy: What to do if it is damaged.

    Returns:
        Training and test sets, images uint8 [N, 32, 32, 3], the classes taking turns. Within a
        class the images keep the order of the pack, which is the official one.

    Raises:
        DataError: If the pack is damaged, or one of its JPEGs is.
    """
    arrays = read_npz(path, KEYS, remedy)
    counts = [arrays["train_y"].size, arrays["test_y"].size]
    kept = cache_folder() / f"{path.stem}-{_fingerprint(path)}.npy"
    pixels = _kept_pixels(kept, sum(counts))
    if pixels is None:
        parts = [_decode(path, arrays, part, remedy) for part in ("train", "test")]
        pixels = np.concatenate(parts)
        _keep(kept, pixels)
    train_x, test_x = pixels[: counts[0]], pixels[counts[0] :]
    train = checked_split(path, train_x, arrays["train_y"], classes=classes, remedy=remedy)
    test = checked_split(path, test_x, arrays["test_y"], classes=classes, remedy=remedy)
    return _dealt(train), _dealt(test)


def _dealt(split: Split) -> Split:
    """The first image of each class, then the second of each, and so on."""
    rank = np.empty(len(split.y), np.int64)
    for label in np.unique(split.y):
        places = np.flatnonzero(split.y == label)
        rank[places] = np.arange(len(places))
    order = np.lexsort((split.y, rank))
    return Split(split.x[order], split.y[order])


def _fingerprint(path: Path) -> str:
    """Size and content of the pack, so that another pack never meets these pixels."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{path.stat().st_size}-{digest[:16]}"


def _kept_pixels(path: Path, count: int) -> np.ndarray | None:
    """Pixels decoded before; whatever is wrong with them, they can be decoded again."""
    try:
        pixels = np.load(path, allow_pickle=False)
    # Numpy parses headers as Python literals: damage shows as almost any error.
    except Exception:
        return None
    return pixels if pixels.shape == (count, *SHAPE) and pixels.dtype == np.uint8 else None


def _keep(path: Path, pixels: np.ndarray) -> None:
    """Keep the pixels if the folder can be written."""
    try:
        write_atomic(path, lambda file: np.save(file, pixels, allow_pickle=False))
    except OSError:
        # An unwritable or full cache costs time the next time, nothing else.
        return


def _decode(path: Path, arrays: dict[str, np.ndarray], part: str, remedy: str) -> np.ndarray:
    """Every JPEG of one part, [N, 32, 32, 3]."""
    blob, offsets = arrays[f"{part}_blob"].tobytes(), arrays[f"{part}_off"]
    wanted = arrays[f"{part}_y"].size + 1
    fits = offsets.shape == (wanted,) and offsets.dtype.kind in "iu"
    if not fits or offsets[0] != 0 or offsets[-1] != len(blob):
        cause = f"`{part}_off` holds {offsets.size} offsets that do not cover `{part}_blob`"
        raise DataError(path, f"{cause}; {wanted} were expected", remedy)
    pixels = np.empty((wanted - 1, *SHAPE), np.uint8)
    for index in range(wanted - 1):
        pixels[index] = _decode_one(
            blob[offsets[index] : offsets[index + 1]], path, f"{part} image {index}", remedy
        )
    return pixels


def _decode_one(raw: bytes, path: Path, where: str, remedy: str) -> np.ndarray:
    """One JPEG as RGB pixels."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(raw)) as image:
            pixels = np.asarray(image.convert("RGB"))
    # Pillow raises OSError for most damage, SyntaxError and ValueError for some.
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(path, f"{where} is no whole JPEG ({error})", remedy) from error
    if pixels.shape != SHAPE:
        raise DataError(path, f"{where} is {list(pixels.shape)}, not {list(SHAPE)}", remedy)
    return pixels
