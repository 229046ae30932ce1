"""How sharp the validation loss is in the architecture: the dominant eigenvalue of its Hessian.

Zela, Elsken, Saikia, Marrakchi, Brox & Hutter, "Understanding and Robustifying Differentiable
Architecture Search", ICLR 2020, arXiv:1909.09656: where that eigenvalue grows, what is derived from
the mixture does badly. Found by Lanczos iteration on Hessian-vector products, so the Hessian
itself is never built.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key

from jaxnas.core import Leg
from jaxnas.nn.network import cross_entropy
from jaxnas.oneshot.bilevel import Relaxation, State
from jaxnas.oneshot.supernet import Supernet
from jaxnas.train.batches import Data, compute_dtype, take


def curvature(
    net: Supernet, valid: Data, relaxation: Relaxation, *, examples: int, iterations: int = 12
) -> Callable[[Key[Array, ""], State], Float[Array, ""]]:
    """Builds `(key, state) -> eigenvalue` of largest magnitude, with its sign.

    Args:
      net: the supernet.
      valid: the half that trains the architecture.
      relaxation: the method; a draw it makes is the same for all products.
      examples: how many are looked at, drawn anew at every call.
      iterations: Hessian-vector products; no more than there are parameters are made.

    Raises:
      ValueError: if there are fewer examples than are to be looked at.
    """
    if not 1 <= examples <= valid.y.shape[0]:
        raise ValueError(
            f"`curvature` examples to measure on must be between 1 and the {valid.y.shape[0]} "
            f"of the validation half, but got {examples}."
        )

    def measure(key: Key[Array, ""], state: State) -> Float[Array, ""]:
        key_batch, key_mix, key_net, key_start = jax.random.split(key, 4)
        index = jax.random.choice(key_batch, valid.y.shape[0], (examples,), replace=False)
        x, y = take(valid, index, compute_dtype())
        flat, tree = ravel_pytree(state.alphas)

        def loss(flat: Array) -> Array:
            mix = relaxation.mix(key_mix, tree(flat), state.mask)
            return cross_entropy(net.logits(state.weights, mix, x, key_net), y)

        def product(vector: Array) -> Array:
            return jax.jvp(jax.grad(loss), (flat,), (vector,))[1]

        return dominant(product, key_start, flat.size, iterations)

    return measure


def dominant(
    product: Callable[[Array], Array], key: Key[Array, ""], size: int, iterations: int
) -> Float[Array, ""]:
    """Eigenvalue of largest magnitude of a symmetric matrix, given as its product with a vector.

    Lanczos iteration from a random start, orthogonalised in full.
    """
    count = min(iterations, size)
    start = jax.random.normal(key, (size,))
    basis = jnp.zeros((count + 1, size)).at[0].set(start / jnp.linalg.norm(start))

    def extend(carry: tuple[Array, Array], n: Array) -> tuple[tuple[Array, Array], None]:
        basis, matrix = carry
        image = product(basis[n])
        row = basis @ image  # along every direction so far; zero where there is none yet
        rest = image - row @ basis
        rest = rest - (basis @ rest) @ basis
        length = jnp.linalg.norm(rest)
        # Where nothing is left the space is exhausted, and zero rows change no eigenvalue.
        following = jnp.where(length > 1e-6 * jnp.linalg.norm(image), rest / length, 0.0)
        return (basis.at[n + 1].set(following), matrix.at[n].set(row[:count])), None

    carry = (basis, jnp.zeros((count, count)))
    (_, matrix), _ = jax.lax.scan(extend, carry, jnp.arange(count))
    values = jnp.linalg.eigvalsh(jnp.tril(matrix) + jnp.tril(matrix, -1).T)
    return values[jnp.abs(values).argmax()]


def watched(legs: Sequence[Leg], every: int, measure: Callable[..., Array]) -> list[Leg]:
    """The same relay with a step that measures `curvature` after every so many others.

    Legs of a single step are no training and are passed on as they are.

    Args:
      legs: of gradient searches.
      every: steps between two measurements, an epoch.
      measure: from `curvature`.
    """

    def step(key: Key[Array, ""], state: State) -> tuple[State, dict[str, Any]]:
        return state, {"curvature": measure(key, state)}

    parts: list[Leg] = []
    for leg in legs:
        if leg.steps == 1:  # a decision or a measurement, no epoch
            parts.append(leg)
            continue
        look = Leg(leg.search._replace(step=step), 1)
        take_over = leg.take_over
        for start in range(0, leg.steps, every):
            parts += [Leg(leg.search, min(every, leg.steps - start), take_over), look]
            take_over = None
    return parts
