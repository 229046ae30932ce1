"""SDARTS: the weights are trained under perturbed mixing weights, so that the loss is smooth there.

Chen & Hsieh, "Stabilizing Differentiable Architecture Search via Perturbation-based Regularization",
ICML 2020, arXiv:2002.05283. Before every step on the weights the mixing weights are moved within a
ball of radius epsilon, at random (RS) or to where the training loss is high (ADV, projected
gradient ascent). The architecture step is DARTS's own.

Epsilon grows with every step, not with every epoch. The attack looks at the loss under batch
statistics, as everything in this supernet does; the authors' code switches batch norm to running
statistics for it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from jaxnas.oneshot.bilevel import Relaxation
from jaxnas.oneshot.supernet import Mix

FORMS = ("random", "adversarial")
ASCENTS = 7


def sdarts(
    relaxation: Relaxation, *, form: str = "random", epsilon: tuple[float, ...] = (0.03, 0.3)
) -> Relaxation:
    """Adds the perturbation to a relaxation, that of DARTS in the paper.

    Args:
      relaxation: what is made smooth.
      form: `random` (RS) or `adversarial` (ADV).
      epsilon: radius at the first and the last step.

    Raises:
      ValueError: for an unknown `form`, or radii that are negative.
    """
    if form not in FORMS:
        raise ValueError(f"`form` must be one of {', '.join(FORMS)}, but got {form!r}.")
    if len(epsilon) != 2 or min(epsilon) < 0:
        raise ValueError(f"`epsilon` must hold two radii of at least 0, but got {epsilon}.")
    move = at_random if form == "random" else against

    def perturb(
        key: Key[Array, ""], mix: Mix, mask: Array, loss: Callable[[Mix], Array], done: Array
    ) -> Mix:
        radius = epsilon[0] + (epsilon[1] - epsilon[0]) * done
        by_ops = lambda ops: loss(mix._replace(ops=ops))  # noqa: E731
        ops = move(key, mix.ops, mask, by_ops, radius)
        return mix._replace(ops=jax.lax.stop_gradient(ops))

    return relaxation._replace(perturb=perturb)


def at_random(
    key: Key[Array, ""],
    ops: Float[Array, "E K"],
    mask: Bool[Array, "E K"],
    loss: Callable[[Array], Array],
    radius: Float[Array, ""],
) -> Float[Array, "E K"]:
    """Uniform noise within the ball, then back to distributions (RS)."""
    del loss
    return to_simplex(ops + jax.random.uniform(key, ops.shape, minval=-radius, maxval=radius), mask)


def against(
    key: Key[Array, ""],
    ops: Float[Array, "E K"],
    mask: Bool[Array, "E K"],
    loss: Callable[[Array], Array],
    radius: Float[Array, ""],
) -> Float[Array, "E K"]:
    """Sign ascent on the loss from a random start in the ball (ADV); kept where the loss rose."""

    def climb(_: Array, moved: Array) -> Array:
        moved = moved + 2 * radius / ASCENTS * jnp.sign(jax.grad(loss)(moved))
        return to_simplex(ops + jnp.clip(moved - ops, -radius, radius), mask)

    start = at_random(key, ops, mask, loss, radius)
    moved = jax.lax.fori_loop(0, ASCENTS, climb, start)
    return jnp.where(loss(moved) >= loss(ops), moved, ops)


def to_simplex(ops: Float[Array, "E K"], mask: Bool[Array, "E K"]) -> Float[Array, "E K"]:
    """Cut to [0, 1] and divided by the sum; a row that would be zero gets its largest entry."""
    cut = jnp.where(mask, jnp.clip(ops, 0.0, 1.0), 0.0)
    total = cut.sum(-1, keepdims=True)
    largest = jax.nn.one_hot(jnp.argmax(jnp.where(mask, ops, -jnp.inf), -1), ops.shape[-1])
    return jnp.where(total > 0, cut / jnp.maximum(total, 1e-30), largest * mask)
