"""How good a supernet is under other mixing weights: the loss and accuracy of many at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from jaxnas.nn.network import cross_entropy
from jaxnas.oneshot.supernet import Mix, Supernet
from jaxnas.train.batches import Data, compute_dtype, take


def judge_mixes(
    net: Supernet, data: Data, batch: int
) -> Callable[..., tuple[Float[Array, " M"], Float[Array, " M"]]]:
    """Builds `(key, weights, mixes) -> (loss [M], accuracy [M] in %)`.

    All mixes, leaves `[M, ...]`, see the same batches side by side, in order and under batch
    statistics; what fills no batch is left out. Nothing is augmented.

    Args:
      net: the supernet.
      data: all of it is looked at.
      batch: examples at a time.
    """
    index = jnp.arange(data.y.shape[0] // batch * batch).reshape(-1, batch)

    def judge(
        key: Key[Array, ""], weights: PyTree, mixes: Mix
    ) -> tuple[Float[Array, " M"], Float[Array, " M"]]:
        def on_batch(at: Array) -> tuple[Array, Array]:
            x, y = take(data, at, compute_dtype())

            def under(mix: Mix) -> tuple[Array, Array]:
                logits = net.logits(weights, mix, x, key)
                return cross_entropy(logits, y), 100 * (logits.argmax(-1) == y).mean()

            return jax.vmap(under)(mixes)

        losses, accuracies = jax.lax.map(on_batch, index)
        return losses.mean(0), accuracies.mean(0)

    return judge


def without(mix: Mix, edge: Array, op: Array) -> Mix:
    """The mix with one weight set to zero and the others as they are."""
    return mix._replace(ops=mix.ops.at[edge, op].set(0.0))


def without_edge(mix: Mix, edge: Array) -> Mix:
    """The mix with all weights of an edge set to zero."""
    return mix._replace(ops=mix.ops.at[edge].set(0.0))
