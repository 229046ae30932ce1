"""A supernet small enough for dense calculus: edges of operations on numbers.

The features of a batch go through one small matrix per operation and edge; what the edges make of
them is added up and read out. Everything a bilevel search asks of a supernet, compiled in no time.
"""

import jax
import jax.numpy as jnp

from jaxnas.oneshot.nas_bench_201 import strongest
from jaxnas.oneshot.supernet import Choices, Mix, Supernet

EDGES, OPS, CLASSES = 6, 5, 4
NAMES = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
CHOICES = Choices((NAMES,) * EDGES, (0, 1, 1, 2, 2, 2), kinds=1, keep=0)
# Two kinds of cell of two nodes, with two and three inputs, of which each keeps two.
TWO_KINDS = Choices((NAMES,) * 10, (0, 0, 1, 1, 1, 2, 2, 3, 3, 3), kinds=2, keep=2)


def toy_supernet(choices=CHOICES, width=3):
    def init(key, x):
        key_in, key_edges, key_out = jax.random.split(key, 3)
        features = x.shape[1] * x.shape[2]
        return {
            "in": {"kernel": jax.random.normal(key_in, (features, width)) / features**0.5},
            "edges": jax.random.normal(key_edges, (*choices.shape, width, width)) / width**0.5,
            "out": jax.random.normal(key_out, (width, CLASSES)),
        }

    def logits(weights, mix, x, key):
        del key
        hidden = jnp.tanh(x.reshape(x.shape[0], -1) @ weights["in"]["kernel"])
        shares = mix.ops * mix.edges[:, None]
        mixed = jnp.einsum("bi,eoij,eo->bj", hidden, weights["edges"], shares)
        return jnp.tanh(mixed) @ weights["out"]

    return Supernet(init, logits, choices, strongest)


def mixed(ops):
    """A mix of given weights and equal edges."""
    return Mix(ops, jnp.ones(len(ops)))
