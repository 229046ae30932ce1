"""Random keys that cost less on a CPU and give the same numbers.

XLA compiles JAX's Threefry for CPUs as a loop over its twenty rounds, which compiles fast and runs
some ten times slower than the rounds written out. Inside a search that does little but draw random
numbers (evolution on a table) that is most of the time.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl
from jaxtyping import Array, Key, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


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


def rolled(data: UInt32[Array, "*S 2"]) -> Key[Array, "*S"]:
    """Keys of the same numbers with Threefry's rounds as a loop, whatever the device.

    For programs that are compiled for several kinds of devices at once and run rarely: JAX writes
    the rounds anew for each kind and each shape that is drawn.

    Args:
      data: of keys of JAX's default kind.
    """
    return jax.random.wrap_key_data(data, impl=_ROLLED)


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


@jax.jit  # compiled once a shape, however many draws have it
def _hash_in_loop(key: UInt32[Array, " 2"], high: Array, low: Array) -> tuple[Array, Array]:
    """The same as a loop over five groups of four rounds."""
    schedule = jnp.stack([key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA)])
    rotations = jnp.array(_ROTATIONS, jnp.uint32)

    def group(i: Array, ab: tuple[Array, Array]) -> tuple[Array, Array]:
        a, b = ab
        for r in range(4):
            rotation = rotations[i % 2, r]
            a = a + b
            b = a ^ ((b << rotation) | (b >> (32 - rotation)))
        later = (i + 2) % 3
        return a + schedule[(i + 1) % 3], b + schedule[later] + i.astype(jnp.uint32) + 1

    return jax.lax.fori_loop(0, 5, group, (high + schedule[0], low + schedule[1]))


def _seed(seed: Array) -> UInt32[Array, " 2"]:
    return jax.random.key_data(jax.random.key(seed))


def _counters(shape: tuple[int, ...]) -> tuple[Array, Array]:
    low = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    return jnp.zeros_like(low), low


def _kind(cipher: Callable[..., tuple[Array, Array]], name: str, tag: str) -> Any:
    """A kind of keys that draws with one way to write the hash."""

    def split(key: UInt32[Array, " 2"], shape: tuple[int, ...]) -> UInt32[Array, "*shape 2"]:
        return jnp.stack(cipher(key, *_counters(shape)), axis=-1)

    def fold_in(key: UInt32[Array, " 2"], data: Any) -> UInt32[Array, " 2"]:
        return jnp.stack(cipher(key, jnp.uint32(0), jnp.asarray(data, jnp.uint32)))

    def bits(key: UInt32[Array, " 2"], width: int, shape: tuple[int, ...]) -> Array:
        if width == 64:
            high, low = (x.astype(jnp.uint64) for x in cipher(key, *_counters(shape)))
            return (high << 32) | low
        a, b = cipher(key, *_counters(shape))
        return (a ^ b).astype({8: jnp.uint8, 16: jnp.uint16, 32: jnp.uint32}[width])

    return define_prng_impl(
        key_shape=(2,),
        seed=_seed,
        split=split,
        random_bits=bits,
        fold_in=fold_in,
        name=name,
        tag=tag,
    )


_UNROLLED = _kind(_hash, "threefry2x32_unrolled", "fry1")
_ROLLED = _kind(_hash_in_loop, "threefry2x32_rolled", "fry5")
