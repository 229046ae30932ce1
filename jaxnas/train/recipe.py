"""How a network is trained: loss, optimizer and learning rate of the papers' recipes.

The defaults are NAS-Bench-201's (Dong & Yang, arXiv:2001.00326, table 1); DARTS's (Liu et al.,
arXiv:1806.09055, section 3.2 and appendix A) are presets of `recipes.training`. Learning rates go
on from step to step; the DARTS code changes them once an epoch.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxnas.data.dataset import Dataset
from jaxnas.nn.network import cross_entropy

SCHEDULES = ("cosine", "exponential")


@dataclass(frozen=True)
class Recipe:
    """How a candidate is trained.

    Attributes:
      epochs: passes over the training set where a call names none.
      batch: images per step.
      learning_rate: at its highest.
      final_learning_rate: at the end of a cosine.
      schedule: `cosine`, or `exponential`: times `decay` each epoch.
      decay: factor of the exponential schedule, per epoch.
      warm_epochs: epochs over which the learning rate first rises from zero.
      momentum: of SGD.
      nesterov: whether the momentum is Nesterov's.
      weight_decay: L2 penalty, on every parameter.
      clip: largest global norm of a gradient; 0 for none.
      smoothing: share of each label that is spread over all classes.
      auxiliary: weight of the loss of an auxiliary head, of networks that return two logits.
      augment: pad-4 random crop and horizontal flip (images only).
      jitter: random brightness, contrast, saturation and hue (colour images, with `augment`).
      cutout: edge of the square that is cut out of an image, 0 for none (with `augment`).
    """

    epochs: int = 200
    batch: int = 256
    learning_rate: float = 0.1
    final_learning_rate: float = 0.0
    schedule: str = "cosine"
    decay: float = 0.97
    warm_epochs: int = 0
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    clip: float = 0.0
    smoothing: float = 0.0
    auxiliary: float = 0.0
    augment: bool = True
    jitter: bool = False
    cutout: int = 0

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise ValueError(
                f"`schedule` must be one of {', '.join(SCHEDULES)}, but got {self.schedule!r}."
            )
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"`smoothing` must be in [0, 1), but got {self.smoothing}.")


def steps_per_epoch(recipe: Recipe, dataset: Dataset) -> int:
    """Full batches in the training set.

    Raises:
      ValueError: if there is none.
    """
    size = len(dataset.train.y)
    if not 1 <= recipe.batch <= size:
        raise ValueError(
            f"`batch` must be between 1 and the {size} training examples of {dataset.name}, "
            f"but got {recipe.batch}."
        )
    return size // recipe.batch


def optimizer(recipe: Recipe) -> optax.GradientTransformation:
    """The direction of a step, for a learning rate of one: clip, decay, momentum."""
    clip = optax.clip_by_global_norm(recipe.clip) if recipe.clip else optax.identity()
    decay = optax.add_decayed_weights(recipe.weight_decay)
    return optax.chain(clip, decay, optax.trace(recipe.momentum, nesterov=recipe.nesterov))


def learning_rate(
    recipe: Recipe, epoch: Float[Array, ""], epochs: int | Int[Array, ""]
) -> Float[Array, ""]:
    """The learning rate at a point in time.

    Args:
      recipe: names peak, schedule and warm-up.
      epoch: passes over the training set so far.
      epochs: passes in all.
    """
    peak, last = recipe.learning_rate, recipe.final_learning_rate
    if recipe.schedule == "cosine":
        rate = last + (peak - last) * 0.5 * (1 + jnp.cos(jnp.pi * epoch / epochs))
    else:
        rate = peak * recipe.decay**epoch
    warm = recipe.warm_epochs
    return jnp.where(epoch < warm, peak * epoch / warm, rate) if warm else rate


def loss_and_logits(
    recipe: Recipe, outputs: Any, labels: Int[Array, " B"]
) -> tuple[Float[Array, ""], Float[Array, "B K"]]:
    """The loss of a batch, and the logits that count.

    Args:
      recipe: names label smoothing and the weight of the auxiliary loss.
      outputs: logits `[B, K]`, or those and an auxiliary head's.
      labels: the right classes.
    """
    logits, *auxiliary = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = smooth_cross_entropy(logits, labels, recipe.smoothing)
    for side in auxiliary:
        loss += recipe.auxiliary * smooth_cross_entropy(side, labels, recipe.smoothing)
    return loss, logits


def smooth_cross_entropy(
    logits: Float[Array, "B K"], labels: Int[Array, " B"], smoothing: float
) -> Float[Array, ""]:
    """Cross-entropy to labels of which a share is spread evenly (Szegedy et al., arXiv:1512.00567)."""
    loss = cross_entropy(logits, labels)
    if not smoothing:
        return loss
    even = -jax.nn.log_softmax(logits.astype(jnp.float32)).mean()
    return (1 - smoothing) * loss + smoothing * even
