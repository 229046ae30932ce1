"""SGAS: edges are decided one after another while the supernet trains.

Li, Qian, Delgadillo, Mueller, Thabet & Ghanem, "SGAS: Sequential Greedy Architecture Search", CVPR
2020, arXiv:1912.00195. Every few epochs the undecided edge of highest score, of each kind of cell,
is fixed to its best operation; when a node has all the edges it keeps, the others are removed. The
score is made of the importance of an edge (how little `none` weighs there), the certainty of its
selection (entropy) and, by the second criterion, its stability over the last epochs.

Decisions are masks, so shapes stay and seeds run side by side. A space without `none` gives every
edge the same importance, which then counts for nothing. A factor that is equal on all edges is 1.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from jaxnas.core import Leg
from jaxnas.oneshot.bilevel import Relaxation, Schedule, State, bilevel, steps_per_epoch
from jaxnas.oneshot.darts import darts
from jaxnas.oneshot.supernet import NOTHING, Choices, Supernet, masked_softmax, one_hot
from jaxnas.train.batches import Data

HISTORY = 4


class Memory(NamedTuple):
    """What the second criterion looks back on.

    Attributes:
      shares: `[4, E, K]` shares of the operations at the end of the last epochs, the newest last.
      epochs: how many epochs have been seen.
    """

    shares: Float[Array, "H E K"]
    epochs: Int[Array, ""]


def sgas(
    choices: Choices,
    *,
    per_epoch: int,
    criterion: int = 2,
    first: int = 9,
    every: int = 5,
    learning_rate: float = 3e-4,
    weight_decay: float = 1e-3,
) -> Relaxation:
    """The softmax relaxation with greedy decisions.

    Args:
      choices: what the supernet leaves open.
      per_epoch: steps per epoch.
      criterion: 1 or 2.
      first: epoch, counted from 0, at whose end the first decision falls.
      every: epochs between decisions.
      learning_rate: Adam's, on the alphas.
      weight_decay: L2 penalty on the alphas.

    Raises:
      ValueError: for another criterion.
    """
    if criterion not in (1, 2):
        raise ValueError(f"`criterion` must be 1 or 2, but got {criterion}.")
    memory = Memory(jnp.zeros((HISTORY, *choices.shape)), jnp.int32(0))

    def after(key: Key[Array, ""], state: State) -> State:
        del key
        factors, shares = urgency(choices, state.alphas)
        if criterion == 2:
            factors.append(stability(shares, state.memory))
        decided = decide(choices, state.mask, factors, shares)
        ends = state.step % per_epoch == 0
        epoch = state.memory.epochs
        now = ends & (epoch >= first) & ((epoch - first) % every == 0)
        kept = jnp.concatenate([state.memory.shares[1:], shares[None]])
        return state._replace(
            mask=jnp.where(now, decided, state.mask),
            memory=Memory(jnp.where(ends, kept, state.memory.shares), epoch + ends),
        )

    softmax = darts(choices, learning_rate=learning_rate, weight_decay=weight_decay)
    return softmax._replace(after=after, memory=memory)


def urgency(
    choices: Choices, alphas: Float[Array, "E K"]
) -> tuple[list[Float[Array, " E"]], Float[Array, "E K"]]:
    """Importance and certainty of every edge, and the shares of its operations but `none`."""
    none = jnp.asarray(choices.among(NOTHING))
    shares = jnp.where(none, 0.0, masked_softmax(alphas, jnp.ones(choices.shape, bool)))
    importance = shares.sum(-1)
    shares = shares / importance[:, None]
    return [importance, certainty(shares, (~none).sum(-1))], shares


def certainty(shares: Float[Array, "E K"], count: Int[Array, " E"]) -> Float[Array, " E"]:
    """One minus the entropy of the operations that do something, over its maximum."""
    entropy = -(shares * jnp.log(shares + 1e-30)).sum(-1)
    return 1 - entropy / jnp.log(count)  # Eq. 5


def stability(shares: Float[Array, "E K"], memory: Memory) -> Float[Array, " E"]:
    """Mean histogram intersection with the last epochs."""
    seen = jnp.minimum(memory.epochs, HISTORY)
    usable = jnp.arange(HISTORY) >= HISTORY - seen
    common = jnp.minimum(memory.shares, shares).sum(-1)  # Eq. 6
    return jnp.where(usable[:, None], common, 0.0).sum(0) / jnp.maximum(seen, 1)


def decide(
    choices: Choices, mask: Bool[Array, "E K"], factors: list[Array], shares: Float[Array, "E K"]
) -> Bool[Array, "E K"]:
    """The mask after one decision in every kind of cell; unchanged where nothing is open."""
    edge = most_urgent(choices, mask, factors)
    best = one_hot(shares[edge].argmax(-1), choices.shape[1])
    open_ = mask[edge].sum(-1, keepdims=True) > 1
    return without_spare(choices, mask.at[edge].set(jnp.where(open_, best, mask[edge])))


def most_urgent(
    choices: Choices, mask: Bool[Array, "E K"], factors: list[Array]
) -> Int[Array, " kinds"]:
    """The undecided edge of highest score of every kind of cell."""
    score = jnp.ones((choices.kinds, choices.shape[0] // choices.kinds))
    for factor in factors:
        score *= spread_to_unit(factor.reshape(score.shape))
    undecided = (mask.sum(-1) > 1).reshape(score.shape)
    best = jnp.where(undecided, score, -1.0).argmax(-1)
    return best + score.shape[1] * jnp.arange(choices.kinds)


def without_spare(choices: Choices, mask: Bool[Array, "E K"]) -> Bool[Array, "E K"]:
    """The mask without the undecided edges of nodes that have all the edges they keep."""
    if choices.keep == 0:
        return mask
    nodes = jnp.array(choices.nodes)
    fixed = jax.ops.segment_sum(
        (mask.sum(-1) == 1).astype(jnp.int32), nodes, max(choices.nodes) + 1
    )
    removed = (mask.sum(-1) > 1) & (fixed[nodes] >= choices.keep)
    return mask & ~removed[:, None]


def spread_to_unit(x: Float[Array, "kinds edges"]) -> Float[Array, "kinds edges"]:
    """Each row stretched to [0, 1]; ones where all of it is equal."""
    low, high = x.min(-1, keepdims=True), x.max(-1, keepdims=True)
    return jnp.where(high > low, (x - low) / jnp.maximum(high - low, 1e-30), 1.0)


def sgas_legs(
    net: Supernet,
    train: Data,
    valid: Data,
    schedule: Schedule,
    *,
    growth: int = 8,
    first: int = 9,
    every: int = 5,
    **settings: Any,
) -> list[Leg]:
    """A whole search, its batch growing after every decision, since the supernet shrinks.

    Args:
      net: the supernet.
      train: the half that trains the weights.
      valid: the half that trains the architecture.
      schedule: how the weights are trained.
      growth: examples the batch grows by; with 0 the search is one leg.
      first: as for `sgas`.
      every: as for `sgas`.
      **settings: the others of `sgas`.

    Raises:
      ValueError: if there are too few epochs for the decisions.
    """
    stages = stages_of(net.choices, schedule.epochs, first, every)
    legs = []
    for n, (start, end) in enumerate(stages if growth else [(0, schedule.epochs)]):
        grown = dataclasses.replace(schedule, batch=schedule.batch + n * growth)
        per_epoch = steps_per_epoch(train, grown)
        method = sgas(net.choices, per_epoch=per_epoch, first=first, every=every, **settings)
        search = bilevel(net, train, valid, method, grown)
        legs.append(Leg(search, per_epoch * (end - start), at_step(per_epoch * start)))
    return legs


def stages_of(choices: Choices, epochs: int, first: int, every: int) -> list[tuple[int, int]]:
    """First epoch and the end of every stage; each ends in a decision, but for one that is left.

    Raises:
      ValueError: if there are too few epochs for the decisions.
    """
    count = decisions(choices)
    needed = first + (count - 1) * max(every, 1) + 1
    if every < 1 or first < 0 or epochs < needed:
        raise ValueError(
            f"`epochs` must be at least {needed} for {count} decisions, the first at the end of "
            f"epoch {first} and then every {every} (at least 1), but got {epochs}."
        )
    ends = [*range(first + 1, epochs, every)][:count]
    return list(zip([0, *ends], [*ends, epochs], strict=True))


def decisions(choices: Choices) -> int:
    """How many decisions each kind of cell needs."""
    edges, nodes = choices.shape[0], len(set(choices.nodes))
    return (nodes * choices.keep if choices.keep else edges) // choices.kinds


def at_step(step: int) -> Callable[[Key[Array, ""], State], State]:
    """A `take_over` that sets the count of steps, where a batch grows and epochs get shorter."""

    def take_over(key: Key[Array, ""], state: State) -> State:
        del key
        return state._replace(step=jnp.int32(step))

    return take_over
