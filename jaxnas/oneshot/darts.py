"""DARTS: a softmax over operations on every edge, descended on the validation loss.

Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv:1806.09055. The
order of the architecture gradient is `Schedule.order`. On NAS-Bench-201 the method is known to end
with skip connections everywhere (54.30 % test accuracy on CIFAR-10); `info["collapsed"]` tells.
"""

import jax
from jaxtyping import Array, Key

from jaxnas.oneshot.bilevel import Relaxation, alphas_adam, keep, strongest


def darts(
    *, edges: int, ops: int, learning_rate: float = 3e-4, weight_decay: float = 1e-3
) -> Relaxation:
    """The softmax relaxation.

    Args:
      edges: edges of the cell.
      ops: operations per edge.
      learning_rate: Adam's, on the alphas.
      weight_decay: L2 penalty on the alphas.

    Returns:
      A `Relaxation` for `bilevel`.

    Example:
      >>> relaxation = darts(edges=6, ops=5)
      >>> alphas = relaxation.start(jax.random.key(0))
      >>> relaxation.mix(jax.random.key(1), alphas).shape
      (6, 5)
    """

    def start(key: Key[Array, ""]) -> Array:
        return 1e-3 * jax.random.normal(key, (edges, ops))

    def mix(key: Key[Array, ""], alphas: Array) -> Array:
        del key
        return jax.nn.softmax(alphas, axis=-1)  # Eq. 2

    tx = alphas_adam(learning_rate=learning_rate, weight_decay=weight_decay)
    return Relaxation(start, mix, keep, strongest, tx)
