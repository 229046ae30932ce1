"""DrNAS: mixing weights drawn from a Dirichlet whose concentration is learned.

Chen, Wang, Cheng, Tang & Hsieh, "DrNAS: Dirichlet Neural Architecture Search", ICLR 2021,
arXiv:2006.10355. The concentration is `elu(eta) + 1` (Eq. 5), every forward pass draws afresh, in
validation too, and the gradient flows through the draw (pathwise). The paper keeps the distance to
the uniform Dirichlet small; its code has two forms of that, both here: L2 decay of eta (its
default) and the Kullback-Leibler divergence.
"""

import jax
import jax.numpy as jnp
import optax
from jax.scipy.special import digamma, gammaln
from jaxtyping import Array, Float, Key, PyTree

from jaxnas.oneshot.bilevel import Relaxation, alphas_adam
from jaxnas.oneshot.darts import darts
from jaxnas.oneshot.supernet import Choices, Mix

REGULARISERS = ("l2", "kl")


def drnas(
    choices: Choices,
    *,
    regulariser: str = "l2",
    strength: float = 1e-3,
    learning_rate: float = 3e-4,
) -> Relaxation:
    """The Dirichlet relaxation.

    Args:
      choices: what the supernet leaves open.
      regulariser: `l2` or `kl`.
      strength: the factor of either.
      learning_rate: Adam's, on eta.

    Returns:
      A `Relaxation` for `bilevel`. Its draws are over all operations; where some are out of play,
      theirs become zero and the rest is divided by its sum.

    Raises:
      ValueError: for an unknown `regulariser`.
    """
    if regulariser not in REGULARISERS:
        raise ValueError(
            f"`regulariser` must be one of {', '.join(REGULARISERS)}, but got {regulariser!r}."
        )
    softmax = darts(choices)

    def mix(key: Key[Array, ""], eta: Array, mask: Array) -> Mix:
        drawn = jnp.where(mask, jax.random.dirichlet(key, concentration(eta)), 0.0)
        total = drawn.sum(-1, keepdims=True)
        return Mix(drawn / jnp.maximum(total, 1e-30), mask.any(-1).astype(jnp.float32))

    if regulariser == "l2":
        tx = alphas_adam(learning_rate=learning_rate, weight_decay=strength)
    else:
        adam = alphas_adam(learning_rate=learning_rate, weight_decay=0.0)
        tx = optax.chain(pull_to_uniform(strength), adam)
    return softmax._replace(mix=mix, alphas_tx=tx)


def concentration(eta: Float[Array, "edges ops"]) -> Float[Array, "edges ops"]:
    """`elu(eta) + 1`: positive, and 1 where eta is 0 (the uniform Dirichlet)."""
    return jax.nn.elu(eta) + 1.0


def divergence(c: Float[Array, "edges ops"]) -> Float[Array, ""]:
    """Sum over edges of KL(Dir(c) || Dir(1))."""
    total = c.sum(-1, keepdims=True)
    normaliser = gammaln(total[..., 0]) - gammaln(c).sum(-1) - gammaln(1.0 * c.shape[-1])
    return (normaliser + ((c - 1) * (digamma(c) - digamma(total))).sum(-1)).sum()


def pull_to_uniform(strength: float) -> optax.GradientTransformation:
    """Adds the gradient of `strength * divergence` to that of the loss.

    The paper's code adds the divergence to the loss of both levels; the weights do not enter it,
    so it moves the architecture alone.
    """

    def pulled(gradient: PyTree, eta: PyTree) -> PyTree:
        pull = jax.grad(lambda eta: strength * divergence(concentration(eta)))(eta)
        return jax.tree.map(jnp.add, gradient, pull)

    return optax.stateless(pulled)
