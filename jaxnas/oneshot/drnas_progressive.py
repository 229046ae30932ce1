"""DrNAS with progressive learning: fewer operations and wider channels, stage by stage.

Chen, Wang, Cheng, Tang & Hsieh, "DrNAS: Dirichlet Neural Architecture Search", ICLR 2021,
arXiv:2006.10355, section 3.4. The search starts with a small part of the channels; at the end of a
stage every edge keeps its strongest operations, and the operations get more channels: each new one
is a copy of an old one drawn at random, and so is its momentum (Net2Wider). As in the authors'
code a copied input is not divided among its copies, and the learning rate falls through all
stages; the optimiser of the architecture goes on untouched.

Operations that were pruned weigh exactly zero but are still computed: which ones they are differs
from seed to seed, and seeds share one program.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jaxnas.core import Leg, Search
from jaxnas.oneshot.bilevel import Relaxation, Schedule, State, bilevel, steps_per_epoch, stretch
from jaxnas.oneshot.supernet import Supernet
from jaxnas.train.batches import Data, take


def progressive_stages(
    nets: Sequence[Supernet],
    train: Data,
    valid: Data,
    relaxation: Relaxation,
    schedule: Schedule,
    *,
    keeps: Sequence[int],
    warm_epochs: int = 10,
) -> list[list[Leg]]:
    """A search over several supernets of one space, each wider than the one before.

    Args:
      nets: one for each stage.
      train: the half that trains the weights.
      valid: the half that trains the architecture.
      relaxation: the method, `drnas` in the paper.
      schedule: of all stages together, which are equally long.
      keeps: operations every edge has in each stage.
      warm_epochs: epochs at the start of each stage in which the architecture stands still.

    Returns:
      The legs of each stage; all of them in a row are the search.

    Raises:
      ValueError: if `keeps` and `nets` do not match, or epochs cannot be divided among them.
    """
    stages, per_epoch = len(nets), steps_per_epoch(train, schedule)
    most = nets[0].choices.shape[1]
    if not stages or len(keeps) != stages or min(keeps) < 1 or max(keeps) > most:
        raise ValueError(
            f"`keeps` must hold {stages} numbers of operations between 1 and {most}, got {keeps}."
        )
    if keeps[0] != most:
        raise ValueError(
            f"`keeps` must begin with all {most} operations, which nothing has pruned yet, but got "
            f"{keeps}."
        )
    if schedule.epochs < stages or schedule.epochs % stages:
        raise ValueError(
            f"`epochs` must be divisible by the {stages} stages, but got {schedule.epochs}."
        )
    example, legs = take(train, jnp.arange(1))[0], list[list[Leg]]()
    for n, net in enumerate(nets):

        def search(order: str, net: Supernet = net) -> Search:
            moved = dataclasses.replace(schedule, order=order)
            return bilevel(net, train, valid, relaxation, moved)

        epochs = schedule.epochs // stages
        stage = stretch(search, per_epoch, warm=warm_epochs, epochs=epochs, order=schedule.order)
        if n:
            stage[0] = stage[0]._replace(take_over=narrow_and_widen(net, keeps[n], example))
        legs.append(stage)
    return legs


def narrow_and_widen(
    net: Supernet, keep: int, example: Array
) -> Callable[[Key[Array, ""], State], State]:
    """The step between two stages.

    Args:
      net: the supernet of the stage that begins.
      keep: operations every edge keeps.
      example: `[1, *space, C]`, for shapes.
    """
    like = jax.eval_shape(net.init, jax.random.key(0), example)

    def take_over(key: Key[Array, ""], state: State) -> State:
        mask = strongest(state.alphas, state.mask, keep)
        return state._replace(
            weights=widen(key, state.weights, like),
            momentum=widen(key, state.momentum, like),
            alphas=jnp.where(mask, state.alphas, 0.0),
            mask=mask,
        )

    return take_over


def strongest(eta: Float[Array, "E K"], mask: Bool[Array, "E K"], keep: int) -> Bool[Array, "E K"]:
    """The `keep` largest of every row that are still in play."""
    order = jnp.argsort(jnp.where(mask, -eta, jnp.inf), axis=-1)
    return mask & (jnp.argsort(order, axis=-1) < keep)


def widen(key: Key[Array, ""], tree: PyTree, like: PyTree) -> PyTree:
    """Copies channels into wider shapes; trees of the same shapes are copied alike under one key.

    All leaves of an operation share one choice of copies, so the outputs of one of its convolutions
    stay in line with the inputs of the next.

    Args:
      key: random key.
      tree: arrays.
      like: shapes to reach; an axis is longer only where it counts channels.
    """
    leaves, structure = jax.tree.flatten_with_path(tree)
    names = sorted({_operation(path) for path, _ in leaves})
    wide = []
    for (path, leaf), target in zip(leaves, jax.tree.leaves(like), strict=True):
        of_module = jax.random.fold_in(key, names.index(_operation(path)))
        for axis, (old, new) in enumerate(zip(leaf.shape, target.shape, strict=True)):
            if new > old:
                leaf = jnp.take(leaf, copies(of_module, old, new), axis=axis)
        wide.append(leaf)
    return jax.tree.unflatten(structure, wide)


def _operation(path: Any) -> str:
    """The operation of a leaf: the innermost module whose parameters are stacked by edge."""
    stacked = [n for n, part in enumerate(path[:-1]) if str(part.key).startswith("stacked")]
    return jax.tree_util.keystr(path[: stacked[-1] + 1] if stacked else path[:-1])


def copies(key: Key[Array, ""], old: int, new: int) -> Int[Array, " new"]:
    """The old channels in order, then draws from them."""
    return jnp.concatenate([jnp.arange(old), jax.random.randint(key, (new - old,), 0, old)])
