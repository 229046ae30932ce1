"""The bit-string toy of the aging-evolution paper: as many ones as possible, seen through noise.

Real et al., arXiv:1802.01548 (its notebook): 100 bits, reward = share of ones plus N(0, .01),
clipped to [0, 1].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Key

from jaxnas.core import Asked, Measured


class BitString(NamedTuple):
    """A `Problem` over `[bits]` booleans; `extra` is the noise-free reward.

    Attributes:
      bits: length of a string.
      noise: standard deviation of the measurement.
    """

    bits: int = 100
    noise: float = 0.01

    def sample(self, key: Key[Array, ""], n: int) -> Bool[Array, "N bits"]:
        """Draws `n` strings of fair bits."""
        return jax.random.bernoulli(key, shape=(n, self.bits))

    def mutate(self, key: Key[Array, ""], genotype: Bool[Array, " bits"]) -> Bool[Array, " bits"]:
        """Flips one bit."""
        return genotype ^ (jnp.arange(self.bits) == jax.random.randint(key, (), 0, self.bits))

    def evaluate(self, key: Key[Array, ""], asked: Asked) -> Measured:
        """Share of ones, seen through noise; every query costs 1."""
        true = asked.genotypes.mean(-1, dtype=jnp.float32)
        seen = true + self.noise * jax.random.normal(key, true.shape)
        return Measured(jnp.clip(seen, 0.0, 1.0), jnp.ones_like(true), true)
