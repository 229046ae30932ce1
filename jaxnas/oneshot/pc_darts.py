"""PC-DARTS: a part of the channels is searched, and edges compete as operations do.

Xu, Xie, Zhang, Chen, Qi, Tian & Xiong, "PC-DARTS: Partial Channel Connections for Memory-Efficient
Architecture Search", ICLR 2020, arXiv:1907.05737. One in `K` channels goes through the mixed
operation, the others around it, then all are shuffled: that is the supernet's `partial`. Since
the operations an edge prefers then change from batch to batch, edge normalisation weighs the edges
into a node by a softmax of their own. The architecture stands still for the first epochs, while
operations without weights would win.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from jaxnas.oneshot.bilevel import Relaxation, alphas_adam, keep
from jaxnas.oneshot.supernet import Choices, Mix, masked_softmax


def pc_darts(
    choices: Choices, *, learning_rate: float = 6e-4, weight_decay: float = 1e-3
) -> Relaxation:
    """The softmax relaxation with edge normalisation.

    Args:
      choices: what the supernet leaves open.
      learning_rate: Adam's, on alphas and betas.
      weight_decay: L2 penalty on both.

    Returns:
      A `Relaxation` whose parameters are `{"ops": [E, K], "edges": [E]}`.
    """

    def start(key: Key[Array, ""]) -> PyTree:
        key_ops, key_edges = jax.random.split(key)
        return {
            "ops": 1e-3 * jax.random.normal(key_ops, choices.shape),
            "edges": 1e-3 * jax.random.normal(key_edges, choices.shape[:1]),
        }

    def mix(key: Key[Array, ""], alphas: PyTree, mask: Array) -> Mix:
        del key
        return strength(alphas, mask)

    def strength(alphas: PyTree, mask: Array) -> Mix:
        return Mix(
            masked_softmax(alphas["ops"], mask),
            edge_softmax(alphas["edges"], mask.any(-1), choices.nodes),  # Eq. 4
        )

    tx = alphas_adam(learning_rate=learning_rate, weight_decay=weight_decay)
    return Relaxation(start, mix, keep, strength, tx)


def edge_softmax(
    betas: Float[Array, " E"], alive: Bool[Array, " E"], nodes: tuple[int, ...]
) -> Float[Array, " E"]:
    """Softmax over the edges into the same node; an edge that is removed weighs nothing."""
    into = jnp.array(nodes)[None] == jnp.array(sorted(set(nodes)))[:, None]
    shares = masked_softmax(jnp.broadcast_to(betas, into.shape), into & alive)
    return shares.sum(0)
