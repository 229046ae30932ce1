"""Meta-LSTM: the rest of a training curve, foretold from its beginning.

Rawal & Miikkulainen, 2018, arXiv:1803.04439. An encoder LSTM reads the validation losses of the
first epochs, a decoder LSTM goes on from its state and tells those of the others; both are trained
on curves that are complete. Curves are read relative to their last known value, and the decoder
tells changes, so that one that knows nothing foretells a level line.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxnas.core import Asked, Measured
from jaxnas.formulas.node_judge import NodeJudge


class Meta(NamedTuple):
    """A trained foreteller.

    Attributes:
      weights: of encoder, decoder and output.
      scale: spread of the curves it was trained on; it works in units of it.
      known: epochs that it reads, `k`.
      length: epochs of a whole curve, `E`.
      hidden: units.
    """

    weights: PyTree
    scale: Float[Array, ""]
    known: int
    length: int
    hidden: int


def fit(
    key: Key[Array, ""],
    curves: Float[np.ndarray, "N E"],
    known: int,
    *,
    hidden: int = 16,
    steps: int = 400,
    learning_rate: float = 1e-2,
) -> Meta:
    """Trains on complete curves.

    Args:
      key: for first weights.
      curves: `[N, E]` losses after each epoch; curves that are not finite are left out.
      known: epochs that will be known.
      hidden: units of both LSTMs.
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
    relative = whole - whole[:, known - 1 : known]
    scale = jnp.asarray(max(float(relative.std()), 1e-6), jnp.float32)
    relative = jnp.asarray(relative) / scale
    weights = _start(key, hidden)
    tx = optax.adam(learning_rate)

    def loss(weights: PyTree) -> Array:
        told = _tell(weights, relative[:, :known], curves.shape[1] - known, hidden)
        return jnp.square(told - relative[:, known:]).mean()

    def step(state: Any, _: Any) -> tuple[Any, None]:
        weights, moments = state
        updates, moments = tx.update(jax.grad(loss)(weights), moments)
        return (optax.apply_updates(weights, updates), moments), None

    train = jax.jit(lambda state: jax.lax.scan(step, state, None, length=steps)[0])
    weights, _ = train((weights, tx.init(weights)))
    return Meta(weights, scale, known, curves.shape[1], hidden)


def foretell(meta: Meta, begun: Float[np.ndarray, "N k"]) -> Float[Array, "N rest"]:
    """The losses after the known epochs."""
    curves = jnp.asarray(begun, jnp.float32)
    last = curves[:, -1:]
    told = _tell(meta.weights, (curves - last) / meta.scale, meta.length - meta.known, meta.hidden)
    return last + meta.scale * told


def _start(key: Key[Array, ""], hidden: int) -> PyTree:
    keys, cell = jax.random.split(key), nn.OptimizedLSTMCell(hidden)
    x = jnp.zeros((1, 1))
    reader, teller = (
        cell.init(one, cell.initialize_carry(one, x.shape), x)["params"] for one in keys
    )
    return {"reader": reader, "teller": teller, "out": jnp.zeros((hidden, 1))}


def _tell(
    weights: PyTree, begun: Float[Array, "N k"], rest: int, hidden: int
) -> Float[Array, "N rest"]:
    cell = nn.OptimizedLSTMCell(hidden)

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


class Foretold:
    """A judge that trains for the first epochs only and foretells the lowest loss of the rest.

    Its `extra` is that of the problem, in which `curve` holds what was measured and, from
    `meta.known` on, what was foretold. Cost is what was trained. A candidate whose `budget` reaches
    all epochs is trained for all of them, and nothing is foretold of it.

    Args:
      problem: what is measured; its curves must be as long as those that `meta` was trained on.
      meta: see `fit`.

    Raises:
      ValueError: if the lengths differ.
    """

    def __init__(self, problem: NodeJudge, meta: Meta) -> None:
        if problem.size.epochs != meta.length:
            raise ValueError(
                f"`problem` trains for {problem.size.epochs} epochs, but `meta` knows curves of "
                f"{meta.length}."
            )
        self.problem, self.meta, self.sample = problem, meta, problem.sample

    def evaluate(self, key: Key[Array, ""], asked: Asked) -> Measured:
        """Trains for `meta.known` epochs, where no more are asked for, and foretells."""
        known, seeds = self.meta.known, self.problem.seeds
        whole = np.asarray(asked.budget) >= self.meta.length * seeds
        budget: Int[np.ndarray, " N"] = np.where(whole, self.meta.length, known) * seeds
        measured = self.problem.evaluate(key, asked._replace(budget=jnp.asarray(budget)))
        told = measured.extra
        rows = np.flatnonzero(np.isfinite(measured.fitness) & ~whole)
        if not len(rows):
            return measured
        begun = told.curve[rows, :, :known]
        rest = foretell(self.meta, begun.reshape(-1, known)).reshape(len(rows), seeds, -1)
        told.curve[rows, :, known:] = rest
        told.scores[rows] = told.curve[rows].min(2)
        fitness = measured.fitness.at[rows].set(-told.scores[rows].mean(1))
        return measured._replace(fitness=fitness)
