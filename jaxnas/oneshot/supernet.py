"""What a search needs to know of a supernet: a network that mixes every operation on every edge.

A space has `E` edges of `K` operations each. A forward pass is weighed by a `Mix`; what is left
open, and how decisions become a genotype, is said by `Choices` and `derive`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, PyTree

IDENTITY, NOTHING = "skip_connect", "none"
WITHOUT_WEIGHTS = (IDENTITY, NOTHING, "noise", "avg_pool_3x3", "max_pool_3x3")


class Mix(NamedTuple):
    """How much everything counts in a forward pass.

    Attributes:
      ops: `[E, K]` weight of every operation on every edge.
      edges: `[E]` factor of the whole edge; 1 without edge normalisation.
    """

    ops: Float[Array, "E K"]
    edges: Float[Array, " E"]


class Choices(NamedTuple):
    """What a supernet leaves open.

    Attributes:
      ops: `[E][K]` names of the operations an edge chooses from.
      nodes: `[E]` node the edge leads to, numbered through all kinds of cell.
      kinds: kinds of cell; each has as many edges, and those of one kind lie together.
      keep: incoming edges a node keeps; 0 for all.
    """

    ops: tuple[tuple[str, ...], ...]
    nodes: tuple[int, ...]
    kinds: int
    keep: int

    @property
    def shape(self) -> tuple[int, int]:
        """`(E, K)`."""
        return len(self.ops), len(self.ops[0])

    def among(self, *names: str) -> Bool[np.ndarray, "E K"]:
        """Which operations bear one of these names."""
        return np.isin(np.array(self.ops), names)


class Supernet(NamedTuple):
    """A network over all cells of a space.

    Attributes:
      init: `(key, x) -> weights`; `x` gives only shapes.
      logits: `(weights, mix, x, key) -> [B, classes]`; `key` is for operations that are random.
      choices: what is left open.
      derive: `(mix) -> genotype`, from the strengths a search ends with.
    """

    init: Callable[[Key[Array, ""], Array], PyTree]
    logits: Callable[[PyTree, Mix, Array, Key[Array, ""]], Float[Array, "B classes"]]
    choices: Choices
    derive: Callable[[Mix], PyTree]


def masked_softmax(
    alphas: Float[Array, "E K"], mask: Bool[Array, "E K"], axis: int = -1
) -> Float[Array, "E K"]:
    """Softmax over the operations still in play; an edge that has none weighs nothing."""
    low = jnp.where(mask, alphas, -jnp.inf)
    top = jnp.maximum(low.max(axis, keepdims=True), jnp.finfo(alphas.dtype).min)
    powers = jnp.where(mask, jnp.exp(jnp.where(mask, alphas, top) - top), 0.0)
    return powers / jnp.maximum(powers.sum(axis, keepdims=True), jnp.finfo(alphas.dtype).tiny)


def shuffle(x: Float[Array, "*B C"], groups: int) -> Float[Array, "*B C"]:
    """Deals the channels of `groups` equal parts in turn, so that each part gets some of every."""
    parts = x.reshape(*x.shape[:-1], groups, -1)
    return parts.swapaxes(-1, -2).reshape(x.shape)


def part_of(channels: int, partial: int) -> int:
    """Channels that go through the mixed operations when one in `partial` does.

    Raises:
      ValueError: if the channels cannot be divided so.
    """
    if partial < 1 or channels % partial:
        raise ValueError(
            f"`partial` must divide the channels of every cell, but {channels} channels are not "
            f"divisible by {partial}: set `channels` to a multiple of it."
        )
    return channels // partial


def one_hot(choice: Array, size: int) -> Bool[Array, "... K"]:
    """A mask in which only the choice is left; for -1 nothing."""
    return jax.nn.one_hot(choice, size, dtype=bool)
