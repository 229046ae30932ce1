"""Meta-LSTM: the rest of a training curve, foretold from its beginning.

Rawal & Miikkulainen, 2018, arXiv:1803.04439. An encoder LSTM reads the validation losses of the
first epochs, a decoder LSTM goes on from its state and tells those of the others; both are trained
on curves that are complete. Curves are read relative to their last known value, and the decoder
tells changes, so that one that knows nothing foretells a level line. `foretelling` uses it.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Key, PyTree


class Meta(NamedTuple):
    """A foreteller.

    Attributes:
      weights: of encoder, decoder and output.
      scale: spread of the curves it was trained on; it works in units of it.
    """

    weights: PyTree
    scale: Float[Array, ""]


def start(key: Key[Array, ""], hidden: int = 16) -> Meta:
    """One that foretells level lines; `hidden` are the units of both LSTMs."""
    keys, cell, x = jax.random.split(key), nn.OptimizedLSTMCell(hidden), jnp.zeros((1, 1))
    reader, teller = (
        cell.init(one, cell.initialize_carry(one, x.shape), x)["params"] for one in keys
    )
    weights = {"reader": reader, "teller": teller, "out": jnp.zeros((hidden, 1))}
    return Meta(weights, jnp.float32(1))


def fit(
    meta: Meta,
    curves: Float[Array, "N E"] | Float[np.ndarray, "N E"],
    known: int,
    *,
    steps: int = 400,
    learning_rate: float = 1e-2,
) -> Meta:
    """Goes on training on complete curves.

    Args:
      meta: where from.
      curves: `[N, E]` losses after each epoch; curves that are not finite are left out.
      known: epochs that will be known.
      steps: of Adam, each over all curves.
      learning_rate: of Adam.

    Raises:
      ValueError: if `known` leaves nothing to tell or to read, or fewer than two curves are finite.
    """
    whole = np.asarray(curves, np.float32)
    whole = whole[np.isfinite(whole).all(1)]
    if not 1 <= known < curves.shape[1] or len(whole) < 2:
        raise ValueError(
            f"`known` must be in 1 ... {curves.shape[1] - 1} and at least 2 curves finite, but got "
            f"{known} and {len(whole)}."
        )
    room = 1 << (len(whole) - 1).bit_length()  # few sizes, so few programs
    filled = np.resize(whole, (room, curves.shape[1]))
    there = jnp.arange(room) < len(whole)
    return _fitted(meta.weights, jnp.asarray(filled), there, known, steps, learning_rate)


@partial(jax.jit, static_argnums=(3, 4, 5))
def _fitted(
    weights: PyTree,
    curves: Float[Array, "N E"],
    whole: Bool[Array, " N"],
    known: int,
    steps: int,
    learning_rate: float,
) -> Meta:
    relative = curves - curves[:, known - 1 : known]
    scale = jnp.maximum(relative.std(where=whole[:, None]), 1e-6)
    begun, rest = jnp.split(relative / scale, [known], axis=1)
    tx = optax.adam(learning_rate)

    def loss(weights: PyTree) -> Array:
        errors = jnp.square(_tell(weights, begun, rest.shape[1]) - rest).mean(1)
        return errors.mean(where=whole)

    def step(state: Any, _: Any) -> tuple[Any, None]:
        weights, moments = state
        updates, moments = tx.update(jax.grad(loss)(weights), moments)
        return (optax.apply_updates(weights, updates), moments), None

    state, _ = jax.lax.scan(step, (weights, tx.init(weights)), None, length=steps)
    return Meta(state[0], scale)


@partial(jax.jit, static_argnums=2)
def foretell(meta: Meta, begun: Float[Array, "N k"], rest: int) -> Float[Array, "N rest"]:
    """The losses of so many epochs after the known ones."""
    last = begun[:, -1:]
    return last + meta.scale * _tell(meta.weights, (begun - last) / meta.scale, rest)


def _tell(weights: PyTree, begun: Float[Array, "N k"], rest: int) -> Float[Array, "N rest"]:
    cell = nn.OptimizedLSTMCell(weights["out"].shape[0])

    def read(carry: Any, x: Array) -> Any:
        return cell.apply({"params": weights["reader"]}, carry, x[:, None])

    def tell(state: Any, _: Any) -> tuple[Any, Array]:
        carry, value = state
        carry, h = cell.apply({"params": weights["teller"]}, carry, value[:, None])
        value = value + (h @ weights["out"])[:, 0]
        return (carry, value), value

    carry = cell.initialize_carry(jax.random.key(0), (len(begun), 1))
    carry, _ = jax.lax.scan(read, carry, begun.T)
    return jax.lax.scan(tell, (carry, begun[:, -1]), None, length=rest)[1].T
