"""How good a supernet is under other mixing weights, and what each operation is worth by that.

Wang, Cheng, Chen, Tang & Hsieh, "Rethinking Architecture Selection in Differentiable NAS", ICLR
2021, arXiv:2108.04392, section 3: the strength of an operation on an edge is the accuracy of the
supernet once the edge is cut down to it and the rest has been tuned.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree

from jaxnas.core import Search, run_scan
from jaxnas.nn.network import cross_entropy
from jaxnas.oneshot.supernet import Mix, Supernet, one_hot
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
    """The mix with nothing left of an edge, what goes around its operations included."""
    return Mix(mix.ops.at[edge].set(0.0), mix.edges.at[edge].set(0.0))


def strengths(
    search: Search,
    steps: int,
    strength: Callable[[PyTree, Array], Mix],
    judge: Callable[..., tuple[Array, Array]],
    shape: tuple[int, int],
    count: int,
) -> Search:
    """A search whose one step measures the strength of every operation on some edges.

    Its state stays as it is; its `info` holds `strength`: the `edge` `[M]`, the mixing `weight` of
    every operation there and its `accuracy` in %, `[M, K]`. Candidates are tuned one after another.

    Args:
      search: tunes a supernet, its architecture fixed.
      steps: for so long; the schedule is counted from zero. 0 judges at once.
      strength: of the relaxation.
      judge: from `judge_mixes`.
      shape: `(E, K)` of the choices.
      count: edges looked at, spread evenly over all, `M`.
    """
    edges, ops = shape
    some = jnp.asarray(np.linspace(0, edges - 1, min(count, edges)).round().astype(np.int32))

    def step(key: Key[Array, ""], state: Any) -> tuple[Any, dict[str, Any]]:
        def accuracy(edge: Array, op: Array) -> Array:
            cut = state._replace(mask=state.mask.at[edge].set(one_hot(op, ops)), step=jnp.int32(0))
            tuned = run_scan(search, key, steps, cut)[0] if steps else cut
            mix = strength(tuned.alphas, tuned.mask)
            return judge(key, tuned.weights, jax.tree.map(lambda leaf: leaf[None], mix))[1][0]

        pairs = jnp.repeat(some, ops), jnp.tile(jnp.arange(ops), len(some))
        accuracies = jax.lax.map(lambda pair: accuracy(*pair), pairs).reshape(-1, ops)
        weight = strength(state.alphas, state.mask).ops[some]
        return state, {"strength": {"edge": some, "weight": weight, "accuracy": accuracies}}

    return search._replace(step=step)
