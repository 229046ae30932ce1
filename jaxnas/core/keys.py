"""Random keys that cost less: to draw from on a CPU, or to trace.

XLA compiles JAX's Threefry for CPUs as a loop over its twenty rounds, which compiles fast and runs
some ten times slower than the rounds written out. Inside a search that does little but draw random
numbers (evolution on a table) that is most of the time.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl
from jaxtyping import Array, Key, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_WORDS = {8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32, 64: jnp.uint64}


def unrolled(key: Key[Array, "*S"]) -> Key[Array, "*S"]:
    """The same key with Threefry's rounds written out.

    Everything drawn from it equals what JAX's default keys give, bit for bit (Salmon et al.,
    "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011).

    Args:
      key: one key or many, of JAX's default kind `threefry2x32`.

    Raises:
      ValueError: for keys of another kind.
    """
    if jax.random.key_impl(key) != "threefry2x32":
        raise ValueError(
            f"`key` must be of kind 'threefry2x32', but got {jax.random.key_impl(key)!r}."
        )
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_UNROLLED)


def generated(data: UInt32[Array, "*S 2"]) -> Key[Array, "*S"]:
    """Keys from which XLA draws by its one operation for random bits, the same on every device.

    For programs that are traced often and run once: JAX's own keys write Threefry's rounds anew for
    each shape that is drawn and each kind of device. The numbers are Threefry's too (Salmon et al.,
    SC 2011), but of other counters than JAX's.

    Args:
      data: of keys of JAX's default kind.
    """
    return jax.random.wrap_key_data(data, impl=_GENERATED)


def _hash(key: UInt32[Array, " 2"], high: Array, low: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds of the counters `(high, low)`."""
    schedule = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    a, b = high + schedule[0], low + schedule[1]
    for i in range(5):
        for r in _ROTATIONS[i % 2]:
            a = a + b
            b = a ^ ((b << r) | (b >> (32 - r)))
        a = a + schedule[(i + 1) % 3]
        b = b + schedule[(i + 2) % 3] + np.uint32(i + 1)
    return a, b


def _seed(seed: Array) -> UInt32[Array, " 2"]:
    return jax.random.key_data(jax.random.key(seed))


def _counters(shape: tuple[int, ...]) -> tuple[Array, Array]:
    low = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    return jnp.zeros_like(low), low


def _split(key: UInt32[Array, " 2"], shape: tuple[int, ...]) -> UInt32[Array, "*shape 2"]:
    return jnp.stack(_hash(key, *_counters(shape)), axis=-1)


def _fold_in(key: UInt32[Array, " 2"], data: Any) -> UInt32[Array, " 2"]:
    return jnp.stack(_hash(key, jnp.uint32(0), jnp.asarray(data, jnp.uint32)))


def _bits(key: UInt32[Array, " 2"], width: int, shape: tuple[int, ...]) -> Array:
    if width == 64:
        high, low = (x.astype(jnp.uint64) for x in _hash(key, *_counters(shape)))
        return (high << 32) | low
    a, b = _hash(key, *_counters(shape))
    return (a ^ b).astype(_WORDS[width])


_UNROLLED = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_bits,
    fold_in=_fold_in,
    name="threefry2x32_unrolled",
    tag="fry1",
)


def _drawn(key: UInt32[Array, " 2"], first: Any, use: int, shape: Any, dtype: Any) -> Array:
    """Bits of the counters from `first` on, of which every use has its own."""

    @jax.custom_batching.sequential_vmap  # of several keys at once XLA would take the first alone
    def draw(state: UInt32[Array, " 4"]) -> Array:
        algorithm = jax.lax.RandomAlgorithm.RNG_THREE_FRY
        return jax.lax.rng_bit_generator(state, shape, dtype, algorithm=algorithm)[1]

    counter = (jnp.asarray([word], jnp.uint32) for word in (first, use))
    return draw(jax.lax.concatenate([key, *counter], 0))


_GENERATED = define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=lambda key, shape: _drawn(key, 0, 0, (*shape, 2), jnp.uint32),
    random_bits=lambda key, width, shape: _drawn(key, 0, 1, shape, _WORDS[width]),
    fold_in=lambda key, data: _drawn(key, data, 2, (2,), jnp.uint32),
    name="threefry2x32_generated",
    tag="fry7",
)
