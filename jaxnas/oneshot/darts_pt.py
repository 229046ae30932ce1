"""DARTS-PT: what an operation is worth is what the supernet loses without it.

Wang, Cheng, Chen, Tang & Hsieh, "Rethinking Architecture Selection in Differentiable NAS", ICLR
2021, arXiv:2108.04392; chapter 2 of Wang's dissertation. A supernet is trained by any relaxation,
or with its architecture held at the start; then edges, drawn at random, are decided one by one:
the operation stays whose removal lowers the validation accuracy most. After each decision the
supernet is tuned for some epochs. Where a node keeps only some of its edges, those follow: the
edge goes whose removal leaves the accuracy highest; there `none` is no candidate, since what it
would leave could not be derived.

All candidates of a decision are judged side by side in one program. Removing sets the mixing weight
to zero without renormalising; the validation half is seen in full batches under batch statistics.
Edges of different kinds of cell are decided in the same turn, each drawn on its own.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Key

from jaxnas.core import Leg
from jaxnas.oneshot.bilevel import Relaxation, Schedule, State, bilevel, steps_per_epoch
from jaxnas.oneshot.discretise import judge_mixes, without, without_edge
from jaxnas.oneshot.supernet import NOTHING, Choices, Supernet, one_hot
from jaxnas.train.batches import Data


def perturbation_legs(
    net: Supernet,
    train: Data,
    valid: Data,
    relaxation: Relaxation,
    tuning: Schedule,
    *,
    between: int = 5,
) -> list[Leg]:
    """The decisions and the tuning between them, to follow a supernet's training.

    Args:
      net: the supernet.
      train: the half that trains the weights.
      valid: the half that decisions are judged on.
      relaxation: by which the supernet was trained, and is tuned.
      tuning: how it is tuned; its momentum starts anew and its steps are counted from zero.
      between: epochs after a decision; the last two share those that are left.

    Raises:
      ValueError: if there are too few epochs for the decisions, or none between them.
    """
    if between < 1:
        raise ValueError(f"`between` (`tune_between`) must be at least 1, but got {between}.")
    operations, topology = turns(net.choices)
    count, per_epoch = operations + topology, steps_per_epoch(train, tuning)
    first = [n * between for n in range(count)]
    # The last decision leaves an epoch to tune what it made.
    first[-1] = min(first[-1], tuning.epochs - 1)
    if sorted(set(first)) != first:
        raise ValueError(
            f"`epochs` of tuning must be at least {(count - 2) * between + 2} for {count} "
            f"decisions {between} epochs apart, but got {tuning.epochs}."
        )
    tuned = bilevel(net, train, valid, relaxation, tuning)
    judge = judge_mixes(net, valid, tuning.batch)
    decide = tuned._replace(step=operation_decision(net.choices, relaxation, judge))
    remove = tuned._replace(step=topology_decision(net.choices, relaxation, judge))
    legs = []
    for n, (start, end) in enumerate(zip(first, [*first[1:], tuning.epochs], strict=True)):
        legs.append(Leg(decide if n < operations else remove, 1))
        legs.append(Leg(tuned, per_epoch * (end - start)))
    legs[0] = legs[0]._replace(take_over=afresh)
    return legs


def turns(choices: Choices) -> tuple[int, int]:
    """Decisions on operations and on topology, all kinds of cell deciding in the same turn.

    Example:
      >>> from jaxnas.oneshot.nas_bench_201 import CHOICES
      >>> turns(CHOICES)
      (6, 0)
    """
    inputs = [choices.nodes.count(node) for node in set(choices.nodes)]
    crowded = sum(n > choices.keep for n in inputs) if choices.keep else 0
    return choices.shape[0] // choices.kinds, crowded // choices.kinds


def afresh(key: Key[Array, ""], state: State) -> State:
    """Momentum and the count of steps start anew."""
    del key
    momentum = jax.tree.map(jnp.zeros_like, state.momentum)
    return state._replace(momentum=momentum, step=jnp.int32(0))


def operation_decision(
    choices: Choices,
    relaxation: Relaxation,
    judge: Callable[..., tuple[Array, Array]],
    pick: Callable[[Key[Array, ""], State], Int[Array, " kinds"]] | None = None,
) -> Callable[[Key[Array, ""], State], tuple[State, dict[str, Array]]]:
    """A step that fixes one undecided edge of every kind of cell to one operation.

    Edges are drawn at random, or are those that `pick` names.

    Its `info` holds `edge` and `operation`, `[kinds]` (-1 where nothing was open), the
    `accuracy_without` each operation, `[kinds, K]` in %, and `weights` afterwards.
    """
    ops = choices.shape[1]
    # Where edges are removed by topology, an edge cannot be decided away.
    barred = jnp.asarray(choices.among(NOTHING) & (choices.keep > 0))

    def at_random(key: Key[Array, ""], state: State) -> Int[Array, " kinds"]:
        return draw(key, (state.mask.sum(-1) > 1).reshape(choices.kinds, -1))

    def step(key: Key[Array, ""], state: State) -> tuple[State, dict[str, Array]]:
        key_edge, key_net = jax.random.split(key)
        edge = (pick or at_random)(key_edge, state)
        base = relaxation.strength(state.alphas, state.mask)
        pairs = (jnp.repeat(edge, ops), jnp.tile(jnp.arange(ops), choices.kinds))
        mixes = jax.vmap(without, (None, 0, 0))(base, *pairs)
        _, accuracy = judge(key_net, state.weights, mixes)
        accuracy = accuracy.reshape(choices.kinds, ops)
        best = jnp.where(state.mask[edge] & ~barred[edge], accuracy, jnp.inf).argmin(-1)
        open_ = state.mask[edge].sum(-1) > 1
        rows = jnp.where(open_[:, None], one_hot(best, ops), state.mask[edge])
        state = state._replace(mask=state.mask.at[edge].set(rows))
        return state, {
            "edge": jnp.where(open_, edge, -1),
            "operation": jnp.where(open_, best, -1),
            "accuracy_without": accuracy,
            "weights": relaxation.strength(state.alphas, state.mask).ops,
        }

    return step


def topology_decision(
    choices: Choices, relaxation: Relaxation, judge: Callable[..., tuple[Array, Array]]
) -> Callable[[Key[Array, ""], State], tuple[State, dict[str, Array]]]:
    """A step that cuts one node of every kind of cell down to the edges it keeps.

    Its `info` holds the `node`, `[kinds]`, and `weights` afterwards.
    """
    nodes, count = jnp.array(choices.nodes), max(choices.nodes) + 1
    most = max(choices.nodes.count(node) for node in choices.nodes)

    def cut(key: Key[Array, ""], node: Array, state: State) -> State:
        """Removes the edge that is missed least from a node that still has too many."""
        into = (nodes == node) & state.mask.any(-1)
        edges = jnp.argsort(~into)[:most]  # those of this node first, in order
        base = relaxation.strength(state.alphas, state.mask)
        mixes = jax.vmap(without_edge, (None, 0))(base, edges)
        _, accuracy = judge(key, state.weights, mixes)
        left = jnp.where(into[edges], accuracy, -jnp.inf)
        gone = edges[most - 1 - left[::-1].argmax()]  # of equals the later one
        crowded = into.sum() > choices.keep
        return state._replace(mask=state.mask.at[gone].set(state.mask[gone] & ~crowded))

    def step(key: Key[Array, ""], state: State) -> tuple[State, dict[str, Array]]:
        key_node, key_net = jax.random.split(key)
        inputs = jax.ops.segment_sum(state.mask.any(-1).astype(jnp.int32), nodes, count)
        node = draw(key_node, (inputs > choices.keep).reshape(choices.kinds, -1))
        for kind in range(choices.kinds):
            for _ in range(most - choices.keep):
                state = cut(key_net, node[kind], state)
        info = {"node": node, "weights": relaxation.strength(state.alphas, state.mask).ops}
        return state, info

    return step


def draw(key: Key[Array, ""], open_: Bool[Array, "kinds n"]) -> Int[Array, " kinds"]:
    """One open place of every row, as a position in the flattened whole; the first if none is."""
    kinds, n = open_.shape
    keys = jax.random.split(key, kinds)
    logits = jnp.where(open_, 0.0, -1e9)
    return jax.vmap(jax.random.categorical)(keys, logits) + n * jnp.arange(kinds)
