"""One step of one candidate, and its accuracy: what training one and training many share."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxnas.nn.network import Network
from jaxnas.train.batches import Data, take
from jaxnas.train.recipe import Recipe, learning_rate, loss_and_logits, optimizer


class State(NamedTuple):
    """A candidate in training.

    Attributes:
      variables: of the network.
      momentum: the optimizer's state.
      step: steps made.
      diverged: the step at which the loss stopped being finite, -1 if never.
    """

    variables: PyTree
    momentum: PyTree
    step: Int[Array, ""]
    diverged: Int[Array, ""]


class Told(NamedTuple):
    """What one step says.

    Attributes:
      loss: of the batch, before the step.
      accuracy: on the batch, before the step, %.
      rate: the learning rate.
    """

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    rate: Float[Array, ""]


def start(network: Network, recipe: Recipe, key: Key[Array, ""], data: Data) -> State:
    """A candidate before its first step."""
    variables = network.init(key, take(data, jnp.arange(1))[0])
    momentum = optimizer(recipe).init(variables["params"])
    return State(variables, momentum, jnp.int32(0), jnp.int32(-1))


def batch(
    recipe: Recipe, data: Data, index: Int[Array, " B"], key: Key[Array, ""], dtype: DTypeLike
) -> tuple[Array, Array]:
    """Examples and labels as a recipe wants them: augmented, or not."""
    augment = key if recipe.augment else None
    return take(data, index, dtype, augment, colours=recipe.jitter, hole=recipe.cutout)


def update(
    network: Network,
    recipe: Recipe,
    state: State,
    examples: tuple[Array, Array],
    key: Key[Array, ""],
    *,
    epochs: int | Int[Array, ""],
    per_epoch: int,
) -> tuple[State, Told]:
    """One step; nothing moves once a candidate has diverged or used up its epochs.

    Args:
      network: what is trained. If its variables hold `["progress"]["done"]`, the share of training
        done is written there, for drop-path.
      recipe: how.
      state: before the step.
      examples: a batch and its labels.
      key: for dropout and the like.
      epochs: passes over the training set in all.
      per_epoch: steps in one.

    Returns:
      The state after the step, and what is to be told.
    """
    x, y = examples
    given = _with_progress(state.variables, state.step / (epochs * per_epoch))

    def objective(params: PyTree) -> tuple[Array, tuple[PyTree, Array]]:
        outputs, new = network.apply({**given, "params": params}, x, True, {"dropout": key})
        loss, logits = loss_and_logits(recipe, outputs, y)
        return loss, (new, 100 * (logits.argmax(-1) == y).mean())

    params = given["params"]
    (loss, (new, accuracy)), gradient = jax.value_and_grad(objective, has_aux=True)(params)
    direction, momentum = optimizer(recipe).update(gradient, state.momentum, params)
    rate = learning_rate(recipe, state.step / per_epoch, epochs)
    moved = jax.tree.map(lambda p, d: p - rate * d, params, direction)
    fresh = State({**new, "params": moved}, momentum, state.step + 1, state.diverged)
    active = (state.step < epochs * per_epoch) & (state.diverged < 0)
    finite = jnp.isfinite(loss)
    kept = jax.tree.map(lambda a, b: jnp.where(active & finite, a, b), fresh, state)
    diverged = jnp.where(active & ~finite, state.step, state.diverged)
    return kept._replace(diverged=diverged), Told(loss, accuracy, rate)


def _with_progress(variables: PyTree, done: Float[Array, ""]) -> PyTree:
    if "done" not in variables.get("progress", {}):
        return variables
    return {**variables, "progress": {**variables["progress"], "done": done.astype(jnp.float32)}}


def accuracy(network: Network, state: State, data: Data, dtype: DTypeLike) -> Float[Array, ""]:
    """Share of right answers in %, `-inf` for a candidate that diverged."""
    size = data.y.shape[0]
    together = min(size, 500)
    index = jnp.arange(-(-size // together) * together).reshape(-1, together)

    def right(at: Array) -> Array:
        x, y = take(data, jnp.minimum(at, size - 1), dtype)
        logits, _ = network.apply(state.variables, x, False)
        return ((logits.argmax(-1) == y) & (at < size)).sum()

    share = 100 * jax.lax.map(right, index).sum() / size
    return jnp.where(state.diverged < 0, share, -jnp.inf)
