"""A supernet small enough for dense calculus: six edges of five operations on numbers.

The features of a batch go through one small matrix per operation and edge; what the edges make of
them is added up and read out. Everything a bilevel search asks of a supernet, compiled in no time.
"""

import jax
import jax.numpy as jnp

from jaxnas.oneshot.supernet import Supernet

EDGES, OPS, WIDTH, CLASSES = 6, 5, 3, 4


def toy_supernet():
    def init(key, x):
        key_in, key_edges, key_out = jax.random.split(key, 3)
        features = x.shape[1] * x.shape[2]
        return {
            "in": jax.random.normal(key_in, (features, WIDTH)) / features**0.5,
            "edges": jax.random.normal(key_edges, (EDGES, OPS, WIDTH, WIDTH)) / WIDTH**0.5,
            "out": jax.random.normal(key_out, (WIDTH, CLASSES)),
        }

    def logits(weights, mix, x):
        hidden = jnp.tanh(x.reshape(x.shape[0], -1) @ weights["in"])
        mixed = jnp.einsum("bi,eoij,eo->bj", hidden, weights["edges"], mix)
        return jnp.tanh(mixed) @ weights["out"]

    names = tuple("abcde")
    return Supernet(init, logits, EDGES, names, 1, (2, 3))
