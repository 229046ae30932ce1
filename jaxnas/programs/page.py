r"""A program as a page: its text as an array of one length, so that a state holds arrays alone.

Example:
    >>> from jaxnas.programs.page import page, text
    >>> written = page("class Model: ...\n")
    >>> written.shape, text(written)
    ((8192,), 'class Model: ...\n')
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, UInt8

LENGTH = 8192


def page(source: str) -> UInt8[np.ndarray, " L"]:
    """The UTF-8 bytes of a text, followed by zeros.

    Args:
      source: at most `LENGTH` bytes. What is longer or no UTF-8 is kept as far as it goes, and
        spoilt, so that it is never run.
    """
    data = source.encode("utf-8", "replace")
    if data.decode() != source:
        data = spoilt(data.decode(), "the text is no UTF-8").encode()
    if len(data) > LENGTH:
        reason = f"{len(data)} bytes are more than the {LENGTH} of a page"
        data = spoilt(data.decode(), reason).encode()[:LENGTH]
    return np.frombuffer(data.ljust(LENGTH, b"\0"), np.uint8).copy()


def text(written: UInt8[Array | np.ndarray, " L"]) -> str:
    """The text on a page."""
    return np.asarray(written).tobytes().rstrip(b"\0").decode("utf-8", "ignore")


def pages(sources: Sequence[str]) -> UInt8[np.ndarray, "N L"]:
    """Many texts, a page each."""
    return np.stack([page(source) for source in sources])


def texts(written: UInt8[Array | np.ndarray, "N L"]) -> list[str]:
    """The texts on many pages."""
    return [text(one) for one in np.asarray(written)]


def spoilt(source: str, reason: str) -> str:
    """A text that is kept for the record and is no program: the reason stands above it.

    Args:
      source: what was said.
      reason: why it is not to be run, in a line.
    """
    return f"<no program: {' '.join(reason.split())}>\n{source}"
