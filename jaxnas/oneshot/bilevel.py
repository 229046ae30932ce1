"""The machine all gradient searches share: one step on the architecture, one on the weights.

Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv:1806.09055,
algorithm 1. A method is a `Relaxation`: how architecture parameters start, become mixing weights,
are tended after a step, and how strong each operation is in the end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jaxnas.core import Leg, Search
from jaxnas.nn.network import cross_entropy
from jaxnas.oneshot.supernet import IDENTITY, WITHOUT_WEIGHTS, Choices, Mix, Supernet
from jaxnas.train.batches import Data, compute_dtype, epoch_order, take

ORDERS = ("first", "second", "exact", "fixed")


class Relaxation(NamedTuple):
    """A method: four functions, the rule that moves the architecture parameters, and two extras.

    Attributes:
      start: `(key) -> alphas`, leaves `[E, K]` for operations or `[E]` for edges.
      mix: `(key, alphas, mask) -> Mix`, drawn afresh for every forward pass; `mask` `[E, K]` tells
        which operations are still in play.
      after: `(key, state) -> state`, at the end of every step.
      strength: `(alphas, mask) -> Mix`, what the answer is derived from and reports show.
      alphas_tx: the optimiser of the alphas, regularisation included.
      perturb: `(key, mix, mask, loss, done) -> Mix`, what the weights are trained under instead of
        the mix itself; `loss` is that of the training batch by the mix, `done` the share of steps
        made. `None` changes nothing.
      memory: what `after` keeps from step to step in `state.memory`, at its start.
    """

    start: Callable[[Key[Array, ""]], PyTree]
    mix: Callable[[Key[Array, ""], PyTree, Array], Mix]
    after: Callable[[Key[Array, ""], Any], Any]
    strength: Callable[[PyTree, Array], Mix]
    alphas_tx: optax.GradientTransformation
    perturb: Callable[..., Mix] | None = None
    memory: PyTree = ()


@dataclass(frozen=True)
class Schedule:
    """How the weights of a supernet are trained; defaults as in the DARTS paper.

    Attributes:
      epochs: passes over the training half; the cosine ends there.
      batch: images per step.
      learning_rate: of the weights, at the first step.
      final_learning_rate: at the last one.
      momentum: of the weights.
      nesterov: whether the momentum is Nesterov's.
      weight_decay: of the weights.
      clip: largest global norm of their gradient; 0 for none.
      order: gradient of the architecture: `first`; `second` by finite differences, as in the
        paper; `exact` by a Hessian-vector product; `fixed` leaves the architecture alone.
    """

    epochs: int = 50
    batch: int = 64
    learning_rate: float = 0.025
    final_learning_rate: float = 0.001
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 3e-4
    clip: float = 5.0
    order: str = "first"


class State(NamedTuple):
    """State of a gradient search.

    Attributes:
      weights: of the supernet.
      alphas: architecture parameters.
      momentum: buffers of the weights, like `weights`.
      alphas_opt: state of the alphas' optimiser.
      mask: `[E, K]` operations still in play; the alphas of an edge that is decided stand still.
      memory: what the method remembers.
      decay: factor on the schedule's weight decay, 1 unless it is changed on the way.
      step: steps made under the schedule.
      order_key: from which the shuffled order of every epoch is drawn.
    """

    weights: PyTree
    alphas: PyTree
    momentum: PyTree
    alphas_opt: PyTree
    mask: Bool[Array, "E K"]
    memory: PyTree
    decay: Float[Array, ""]
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
      `train_loss`, `train_accuracy` (%, of this step's batch), unless the order is `fixed` also
      `valid_loss` and `valid_accuracy`, `weights` (the strength of every operation, `[E, K]`) and
      what `health` says of it.

    Raises:
      ValueError: for an unknown `order`, or fewer images than a batch.
    """
    per_epoch = steps_per_epoch(train, schedule)
    steps_per_epoch(valid, schedule)
    if schedule.order not in ORDERS:
        raise ValueError(f"`order` must be one of {', '.join(ORDERS)}, got {schedule.order!r}.")
    move_alphas = alphas_step(net, valid, relaxation, schedule)
    signs = signs_of(net.choices, relaxation)

    def init(key: Key[Array, ""]) -> State:
        key_weights, key_alphas, key_order = jax.random.split(key, 3)
        weights = net.init(key_weights, take(train, jnp.arange(1))[0])
        alphas = relaxation.start(key_alphas)
        return State(
            weights,
            alphas,
            jax.tree.map(jnp.zeros_like, weights),
            relaxation.alphas_tx.init(alphas),
            jnp.ones(net.choices.shape, bool),
            relaxation.memory,
            jnp.float32(1),
            jnp.int32(0),
            key_order,
        )

    def step(key: Key[Array, ""], state: State) -> tuple[State, dict[str, Array]]:
        key_train, key_alphas, key_mix, key_perturb, key_after = jax.random.split(key, 5)
        epoch, at = jnp.divmod(state.step, per_epoch)
        order_key = jax.random.fold_in(state.order_key, epoch)
        order = epoch_order(order_key, train.y.shape[0], schedule.batch)
        on_train = batch_loss(key_train, net, train, order[at])
        done = state.step / (per_epoch * schedule.epochs)
        rate = learning_rate(schedule, done)
        state, info = move_alphas(key_alphas, state, on_train, rate)
        mix = relaxation.mix(key_mix, state.alphas, state.mask)
        if relaxation.perturb:
            of_mix = lambda mix: on_train(state.weights, mix)[0]  # noqa: E731
            mix = relaxation.perturb(key_perturb, mix, state.mask, of_mix, done)
        (loss, accuracy), gradient = jax.value_and_grad(on_train, has_aux=True)(state.weights, mix)
        tended = state.weights, state.momentum, gradient
        weights, momentum = descend(*tended, rate, schedule, state.decay)
        state = state._replace(weights=weights, momentum=momentum, step=state.step + 1)
        state = relaxation.after(key_after, state)
        info |= {"train_loss": loss, "train_accuracy": accuracy}
        return state, info | signs(state)

    return Search(
        init, step, lambda state: net.derive(relaxation.strength(state.alphas, state.mask))
    )


def batch_loss(
    key: Key[Array, ""], net: Supernet, data: Data, index: Int[Array, " B"]
) -> Callable[[PyTree, Mix], tuple[Array, Array]]:
    """`(weights, mix) -> (loss, accuracy in %)` on one batch, augmented under the key."""
    key_net, key_augment = jax.random.split(key)
    x, y = take(data, index, compute_dtype(), key_augment)

    def loss(weights: PyTree, mix: Mix) -> tuple[Array, Array]:
        logits = net.logits(weights, mix, x, key_net)
        return cross_entropy(logits, y), 100 * (logits.argmax(-1) == y).mean()

    return loss


def alphas_step(
    net: Supernet, valid: Data, relaxation: Relaxation, schedule: Schedule
) -> Callable[..., tuple[State, dict[str, Array]]]:
    """Builds `(key, state, on_train, rate) -> (state, info)`, which moves the architecture."""

    def step(
        key: Key[Array, ""], state: State, on_train: Callable[..., Any], rate: Array
    ) -> tuple[State, dict[str, Array]]:
        key_batch, key_draw, key_mix, key_virtual = jax.random.split(key, 4)
        drawn = jax.random.choice(key_draw, valid.y.shape[0], (schedule.batch,), replace=False)
        on_valid = batch_loss(key_batch, net, valid, drawn)

        def by_alphas(loss: Callable[..., Any], key: Key[Array, ""]) -> Callable[..., Any]:
            return lambda w, a: loss(w, relaxation.mix(key, a, state.mask))

        gradient, (loss, accuracy) = architecture_gradient(
            by_alphas(on_train, key_virtual), by_alphas(on_valid, key_mix), state, rate, schedule
        )
        update, alphas_opt = relaxation.alphas_tx.update(gradient, state.alphas_opt, state.alphas)
        alphas = optax.apply_updates(state.alphas, open_only(update, state.mask))
        info = {"valid_loss": loss, "valid_accuracy": accuracy}
        return state._replace(alphas=alphas, alphas_opt=alphas_opt), info

    return (lambda key, state, on_train, rate: (state, {})) if schedule.order == "fixed" else step


def open_only(update: PyTree, mask: Bool[Array, "E K"]) -> PyTree:
    """Nothing moves on an edge that is decided, nor an operation that is out of play."""
    free = mask & (mask.sum(-1, keepdims=True) > 1)
    return jax.tree.map(lambda u: jnp.where(free, u, 0) if u.shape == mask.shape else u, update)


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
    weights: PyTree,
    momentum: PyTree,
    gradient: PyTree,
    rate: Array,
    schedule: Schedule,
    factor: Array | float = 1.0,
) -> tuple[PyTree, PyTree]:
    """SGD with momentum on the clipped gradient plus weight decay, the latter times `factor`."""
    shrink, decay = 1.0, schedule.weight_decay * factor
    if schedule.clip:
        shrink = jnp.minimum(1.0, schedule.clip / (optax.tree.norm(gradient) + 1e-6))

    def heavier(m: Any, g: Any, w: Any) -> Any:
        return schedule.momentum * m + shrink * g + decay * w

    momentum = jax.tree.map(heavier, momentum, gradient, weights)
    way = jax.tree.map(heavier, momentum, gradient, weights) if schedule.nesterov else momentum
    return jax.tree.map(lambda w, d: w - rate * d, weights, way), momentum


def architecture_gradient(
    on_train: Callable[..., Any],
    on_valid: Callable[..., Any],
    state: State,
    rate: Float[Array, ""],
    schedule: Schedule,
) -> tuple[PyTree, tuple[Array, Array]]:
    """Gradient of the validation loss by the alphas, and that loss and accuracy.

    First order takes the weights as they are; second order looks one step of the weights ahead
    (Eq. 7 of the paper), `w' = w - rate * (momentum + gradient + decay)`, under `nesterov` too.

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
    slope, decay = jax.grad(on_train, has_aux=True)(w, a)[0], schedule.weight_decay * state.decay
    ahead = jax.tree.map(
        lambda w, m, g: w - rate * (schedule.momentum * m + g + decay * w),
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


def signs_of(choices: Choices, relaxation: Relaxation) -> Callable[[State], dict[str, Array]]:
    """Builds `(state) -> ` what `health` says of it."""
    return lambda state: health(choices, relaxation.strength(state.alphas, state.mask).ops)


def health(choices: Choices, strength: Float[Array, "E K"]) -> dict[str, Array]:
    """Signs of where a search is heading.

    Args:
      choices: of the supernet.
      strength: of every operation, the rows distributions.

    Returns:
      `weights`: the strengths. `entropy`: its mean over edges, in nats. `skips`: edges on which the
      identity leads. `collapsed`: 1 if the identity leads on more than half of the edges, or no
      edge leads to an operation with weights (the known failure of DARTS).
    """
    leader = jax.nn.one_hot(jnp.argmax(strength, axis=-1), strength.shape[-1], dtype=bool)
    skips = (leader & choices.among(IDENTITY)).sum()
    learned = (leader & ~choices.among(*WITHOUT_WEIGHTS)).sum()
    return {
        "weights": strength,
        "entropy": -(strength * jnp.log(strength + 1e-30)).sum(-1).mean(),
        "skips": skips,
        "collapsed": ((2 * skips > len(choices.ops)) | (learned == 0)).astype(jnp.int32),
    }


def keep(key: Key[Array, ""], state: State) -> State:
    """The `after` of methods that tend nothing."""
    del key
    return state


def stretch(
    search: Callable[[str], Search], per_epoch: int, *, warm: int, epochs: int, order: str
) -> list[Leg]:
    """Legs of a search whose architecture stands still at first.

    Args:
      search: `(order) -> Search`.
      per_epoch: steps per epoch.
      warm: epochs before the architecture starts to move.
      epochs: in all.
      order: gradient of the architecture once it moves.

    Raises:
      ValueError: if there are fewer epochs in all than warm ones.
    """
    if not 0 <= warm <= epochs:
        raise ValueError(f"`warm_epochs` must be between 0 and {epochs}, but got {warm}.")
    parts = (("fixed", warm), (order, epochs - warm))
    return [Leg(search(kind), per_epoch * count) for kind, count in parts if count]


def alphas_adam(
    *, learning_rate: float = 3e-4, weight_decay: float = 1e-3
) -> optax.GradientTransformation:
    """Adam with betas (.5, .999) and L2 decay in the gradient, as every DARTS paper has it."""
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_adam(b1=0.5, b2=0.999),
        optax.scale(-learning_rate),
    )
