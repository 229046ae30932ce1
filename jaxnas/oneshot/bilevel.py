"""The machine all gradient searches share: one step on the architecture, one on the weights.

Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv:1806.09055,
algorithm 1. A method is a `Relaxation`: how architecture parameters start, become mixing weights,
are tended after a step, and turn into a genotype.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxnas.core import Search
from jaxnas.nn.network import cross_entropy
from jaxnas.oneshot.supernet import Supernet
from jaxnas.train.batches import Data, compute_dtype, epoch_order, take

ORDERS = ("first", "second", "exact")


class Relaxation(NamedTuple):
    """A method, as four functions and the rule that moves the architecture parameters.

    Attributes:
      start: `(key) -> alphas`, `[edges, ops]`.
      mix: `(key, alphas) -> mixing weights`, drawn afresh for every forward pass.
      after: `(key, state) -> state`, at the end of every step.
      derive: `(state) -> genotype`.
      alphas_tx: the optimiser of the alphas, regularisation included.
    """

    start: Callable[[Key[Array, ""]], PyTree]
    mix: Callable[[Key[Array, ""], PyTree], PyTree]
    after: Callable[[Key[Array, ""], Any], Any]
    derive: Callable[[Any], PyTree]
    alphas_tx: optax.GradientTransformation


@dataclass(frozen=True)
class Schedule:
    """How the weights of a supernet are trained; defaults as in the DARTS paper.

    Attributes:
      epochs: passes over the training half; the cosine ends there.
      batch: images per step.
      learning_rate: of the weights, at the first step.
      final_learning_rate: at the last one.
      momentum: of the weights.
      weight_decay: of the weights.
      clip: largest global norm of their gradient; 0 for none.
      order: gradient of the architecture: `first`; `second` by finite differences, as in the
        paper; `exact` by a Hessian-vector product.
      warm_epochs: epochs before the architecture starts to move.
    """

    epochs: int = 50
    batch: int = 64
    learning_rate: float = 0.025
    final_learning_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    clip: float = 5.0
    order: str = "first"
    warm_epochs: int = 0


class State(NamedTuple):
    """State of a gradient search.

    Attributes:
      weights: of the supernet.
      alphas: architecture parameters, `[edges, ops]`.
      momentum: buffers of the weights, like `weights`.
      alphas_opt: state of the alphas' optimiser.
      step: steps made.
      order_key: from which the shuffled order of every epoch is drawn.
    """

    weights: PyTree
    alphas: PyTree
    momentum: PyTree
    alphas_opt: PyTree
    step: Int[Array, ""]
    order_key: Key[Array, ""]


def bilevel(
    net: Supernet, train: Data, valid: Data, relaxation: Relaxation, schedule: Schedule
) -> Search:
    """A gradient search as a `Search`.

    Args:
      net: the supernet.
      train: the half that trains the weights.
      valid: the half that trains the architecture.
      relaxation: the method.
      schedule: how the weights are trained.

    Returns:
      A `Search` of `steps_per_epoch(train, schedule) * schedule.epochs` steps. Its `info` holds
      `train_loss`, `valid_loss`, `train_accuracy`, `valid_accuracy` (%, of this step's batches),
      `weights` (softmax of the alphas, `[edges, ops]`) and what `health` says of it.

    Raises:
      ValueError: for an unknown `order`, or fewer images than a batch.
    """
    per_epoch, dtype = steps_per_epoch(train, schedule), compute_dtype()
    steps_per_epoch(valid, schedule)
    if schedule.order not in ORDERS:
        raise ValueError(f"`order` must be one of {', '.join(ORDERS)}, got {schedule.order!r}.")

    def init(key: Key[Array, ""]) -> State:
        key_weights, key_alphas, key_order = jax.random.split(key, 3)
        weights = net.init(key_weights, take(train, jnp.arange(1))[0])
        alphas = relaxation.start(key_alphas)
        return State(
            weights,
            alphas,
            jax.tree.map(jnp.zeros_like, weights),
            relaxation.alphas_tx.init(alphas),
            jnp.int32(0),
            key_order,
        )

    def losses(key: Key[Array, ""], data: Data, index: Int[Array, " B"]) -> Callable[..., Any]:
        """`(weights, alphas) -> (loss, accuracy)` on one batch under one draw of the mix."""
        key_mix, key_augment = jax.random.split(key)
        x, y = take(data, index, dtype, key_augment)

        def loss(weights: PyTree, alphas: PyTree) -> tuple[Array, Array]:
            logits = net.logits(weights, relaxation.mix(key_mix, alphas), x)
            return cross_entropy(logits, y), 100 * (logits.argmax(-1) == y).mean()

        return loss

    def step(key: Key[Array, ""], state: State) -> tuple[State, dict[str, Array]]:
        key_train, key_valid, key_draw, key_after = jax.random.split(key, 4)
        epoch, at = jnp.divmod(state.step, per_epoch)
        order = epoch_order(
            jax.random.fold_in(state.order_key, epoch), train.y.shape[0], schedule.batch
        )
        drawn = jax.random.choice(key_draw, valid.y.shape[0], (schedule.batch,), replace=False)
        on_train = losses(key_train, train, order[at])
        on_valid = losses(key_valid, valid, drawn)
        rate = learning_rate(schedule, state.step / (per_epoch * schedule.epochs))

        gradient, valid_said = architecture_gradient(on_train, on_valid, state, rate, schedule)
        update, alphas_opt = relaxation.alphas_tx.update(gradient, state.alphas_opt, state.alphas)
        moved = state._replace(
            alphas=optax.apply_updates(state.alphas, update), alphas_opt=alphas_opt
        )
        warm = epoch < schedule.warm_epochs
        state = jax.tree.map(lambda old, new: _where(warm, old, new), state, moved)

        (loss, accuracy), gradient = jax.value_and_grad(on_train, has_aux=True)(
            state.weights, state.alphas
        )
        weights, momentum = descend(state.weights, state.momentum, gradient, rate, schedule)
        state = state._replace(weights=weights, momentum=momentum, step=state.step + 1)
        state = relaxation.after(key_after, state)
        info = {
            "train_loss": loss,
            "train_accuracy": accuracy,
            "valid_loss": valid_said[0],
            "valid_accuracy": valid_said[1],
            **health(net, state.alphas),
        }
        return state, info

    return Search(init, step, relaxation.derive)


def steps_per_epoch(data: Data, schedule: Schedule) -> int:
    """Full batches in a pass over the data.

    Raises:
      ValueError: if there are fewer images than a batch.
    """
    size = data.y.shape[0]
    if not 1 <= schedule.batch <= size:
        raise ValueError(
            f"`batch` must be between 1 and the {size} examples of a half of the training set, "
            f"but got {schedule.batch}."
        )
    return size // schedule.batch


def learning_rate(schedule: Schedule, done: Float[Array, ""]) -> Float[Array, ""]:
    """Cosine from the first to the final rate; `done` is the share of steps made."""
    drop = schedule.learning_rate - schedule.final_learning_rate
    return schedule.final_learning_rate + drop * 0.5 * (1 + jnp.cos(jnp.pi * done))


def descend(
    weights: PyTree, momentum: PyTree, gradient: PyTree, rate: Array, schedule: Schedule
) -> tuple[PyTree, PyTree]:
    """SGD with momentum on the clipped gradient plus weight decay."""
    shrink = 1.0
    if schedule.clip:
        shrink = jnp.minimum(1.0, schedule.clip / (optax.tree.norm(gradient) + 1e-6))
    momentum = jax.tree.map(
        lambda m, g, w: schedule.momentum * m + shrink * g + schedule.weight_decay * w,
        momentum,
        gradient,
        weights,
    )
    return jax.tree.map(lambda w, m: w - rate * m, weights, momentum), momentum


def architecture_gradient(
    on_train: Callable[..., Any],
    on_valid: Callable[..., Any],
    state: State,
    rate: Float[Array, ""],
    schedule: Schedule,
) -> tuple[PyTree, tuple[Array, Array]]:
    """Gradient of the validation loss by the alphas, and that loss and accuracy.

    First order takes the weights as they are; second order looks one step of the weights ahead
    (Eq. 7 of the paper), `w' = w - rate * (momentum + gradient + decay)`.

    Args:
      on_train: `(weights, alphas) -> (loss, accuracy)` on the training batch.
      on_valid: the same on the validation batch.
      state: where the search stands.
      rate: learning rate of the weights.
      schedule: its `order`, `momentum` and `weight_decay`.
    """
    w, a = state.weights, state.alphas
    if schedule.order == "first":
        said, gradient = jax.value_and_grad(on_valid, 1, has_aux=True)(w, a)
        return gradient, said
    slope = jax.grad(on_train, has_aux=True)(w, a)[0]
    ahead = jax.tree.map(
        lambda w, m, g: w - rate * (schedule.momentum * m + g + schedule.weight_decay * w),
        w,
        state.momentum,
        slope,
    )
    said, (vector, direct) = jax.value_and_grad(on_valid, (0, 1), has_aux=True)(ahead, a)

    def by_alphas(w: PyTree) -> PyTree:
        return jax.grad(on_train, 1, has_aux=True)(w, a)[0]

    product = (hessian_product if schedule.order == "exact" else finite_difference)(
        by_alphas, w, vector
    )
    return jax.tree.map(lambda d, p: d - rate * p, direct, product), said


def hessian_product(gradient: Callable[[PyTree], PyTree], w: PyTree, vector: PyTree) -> PyTree:
    """Derivative of `gradient` at `w` in the direction `vector`, exactly."""
    return jax.jvp(gradient, (w,), (vector,))[1]


def finite_difference(gradient: Callable[[PyTree], PyTree], w: PyTree, vector: PyTree) -> PyTree:
    """The same by central differences, with the paper's width of `0.01 / |vector|`."""
    width = 0.01 / optax.tree.norm(vector)  # Eq. 8
    up = gradient(jax.tree.map(lambda w, v: w + width * v, w, vector))
    down = gradient(jax.tree.map(lambda w, v: w - width * v, w, vector))
    return jax.tree.map(lambda u, d: (u - d) / (2 * width), up, down)


def health(net: Supernet, alphas: Float[Array, "edges ops"]) -> dict[str, Array]:
    """Signs of where a search is heading.

    Returns:
      `weights`: softmax of the alphas. `entropy`: its mean over edges, in nats. `skips`: edges on
      which the identity leads. `collapsed`: 1 if the identity leads on more than half of the edges,
      or no edge leads to an operation with weights (the known failure of DARTS).
    """
    weights = jax.nn.softmax(alphas, axis=-1)
    leader = jnp.argmax(alphas, axis=-1)
    skips = (leader == net.skip).sum()
    learned = jnp.isin(leader, jnp.asarray(net.learned)).sum()
    return {
        "weights": weights,
        "entropy": -(weights * jnp.log(weights + 1e-30)).sum(-1).mean(),
        "skips": skips,
        "collapsed": ((2 * skips > net.edges) | (learned == 0)).astype(jnp.int32),
    }


def _where(condition: Array, a: Array, b: Array) -> Array:
    """`jnp.where` that also takes PRNG keys and keeps what both sides share."""
    return a if a is b else jnp.where(condition, a, b)


def keep(key: Key[Array, ""], state: State) -> State:
    """The `after` of methods that tend nothing."""
    del key
    return state


def strongest(state: State) -> Int[Array, " edges"]:
    """The `derive` of NAS-Bench-201: the leading operation of every edge."""
    return jnp.argmax(state.alphas, axis=-1).astype(jnp.int8)


def alphas_adam(
    *, learning_rate: float = 3e-4, weight_decay: float = 1e-3
) -> optax.GradientTransformation:
    """Adam with betas (.5, .999) and L2 decay in the gradient, as every DARTS paper has it."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(b1=0.5, b2=0.999),
        optax.scale(-learning_rate),
    )
