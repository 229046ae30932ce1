"""Weights that a network takes over from its parent, layer by layer where both have the same.

Nasir et al. (arXiv:2306.01102) let a new network begin with the trained weights of the one that it was
made from: those of every layer of a type that the parent has, where the shapes fit. A layer is known by
its type and its number among the layers of that type, in the order of creation.

Example:
    >>> import numpy as np
    >>> from jaxnas.programs.inheritance import Weights, inherited
    >>> layout = (("Dense/0/kernel", (1, 2)), ("Dense/0/bias", (2,)))
    >>> parent = Weights("1f8a", layout, np.arange(4, dtype="f4"))
    >>> inherited((("Dense/0/kernel", (1, 3)), ("Dense/0/bias", (2,))), parent).tolist()
    [nan, nan, nan, 2.0, 3.0]
"""

import math
from collections.abc import Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32

LARGEST = 4 << 20  # weights of a network that takes over any, or hands any on

Layout = tuple[tuple[str, tuple[int, ...]], ...]
"""Name and shape of each array of weights, in order; a name is `TYPE/NUMBER/NAME`."""


class Weights(NamedTuple):
    """What a network has learned.

    Attributes:
      program: identity of the network, whatever it began with.
      layout: of its weights.
      values: `[W]` all of them.
    """

    program: str
    layout: Layout
    values: Float32[np.ndarray, " W"]


@runtime_checkable
class Memory(Protocol):
    """Weights by the identity of what was trained, a program and what it began with.

    Such as a dict, or the folder of a run.
    """

    def get(self, identity: str) -> Weights | None:
        """The weights, or None where none are kept."""
        ...

    def __setitem__(self, identity: str, weights: Weights) -> None:
        """Keeps them."""
        ...


def inherited(layout: Layout, parent: Weights | None) -> Float32[np.ndarray, " W"] | None:
    """The weights that a network begins with.

    Args:
      layout: of its weights.
      parent: what it was made from; `None` for nothing.

    Returns:
      `[W]`, not a number where it has to draw its own; `None` for a network without a layout, or
      with more than `LARGEST` weights, which takes no part.
    """
    size = sum(math.prod(shape) for _, shape in layout)
    if not layout or size > LARGEST:
        return None
    values = np.full(size, np.nan, np.float32)
    old = {} if parent is None else {k: parent.values[span] for k, span in _spans(parent.layout)}
    for key, span in _spans(layout):
        values[span] = old.get(key, np.nan)
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def _spans(layout: Layout) -> Iterator[tuple[tuple[str, tuple[int, ...]], slice]]:
    """Each array and where it lies."""
    at = 0
    for name, shape in layout:
        size = math.prod(shape)
        yield (name, shape), slice(at, at + size)
        at += size
