"""DARTS: a softmax over operations on every edge, descended on the validation loss.

Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv:1806.09055. The
order of the architecture gradient is `Schedule.order`. On NAS-Bench-201 the method is known to end
with skip connections everywhere (54.30 % test accuracy on CIFAR-10); `info["collapsed"]` tells.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxnas.oneshot.bilevel import Relaxation, alphas_adam, keep
from jaxnas.oneshot.supernet import Choices, Mix, masked_softmax


def darts(
    choices: Choices, *, learning_rate: float = 3e-4, weight_decay: float = 1e-3
) -> Relaxation:
    """The softmax relaxation.

    Args:
      choices: what the supernet leaves open.
      learning_rate: Adam's, on the alphas.
      weight_decay: L2 penalty on the alphas.

    Returns:
      A `Relaxation` for `bilevel`.

    Example:
      >>> from jaxnas.oneshot.nas_bench_201 import CHOICES
      >>> relaxation = darts(CHOICES)
      >>> alphas = relaxation.start(jax.random.key(0))
      >>> relaxation.strength(alphas, jnp.ones(CHOICES.shape, bool)).ops.shape
      (6, 5)
    """

    def start(key: Key[Array, ""]) -> Array:
        return 1e-3 * jax.random.normal(key, choices.shape)

    def mix(key: Key[Array, ""], alphas: Array, mask: Array) -> Mix:
        del key
        return strength(alphas, mask)

    def strength(alphas: Array, mask: Array) -> Mix:
        alive = mask.any(-1).astype(jnp.float32)
        return Mix(masked_softmax(alphas, mask), alive)  # Eq. 2

    tx = alphas_adam(learning_rate=learning_rate, weight_decay=weight_decay)
    return Relaxation(start, mix, keep, strength, tx)
