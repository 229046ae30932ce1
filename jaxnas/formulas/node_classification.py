"""Training a graph attention network, as in Wang et al., arXiv:2209.13575, section 3.3.5.

The network of Velickovic et al., ICLR 2018: two layers, 8 heads of 8 units, dropout 0.6, weight decay
5e-4. After each step the validation loss is looked at; training ends once it has not fallen for 100
steps, and what counts is the accuracy at its lowest point. All is one graph, so a step is an epoch.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.sparse import BCOO
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxnas.data.graphs import Graph, row_normalise
from jaxnas.formulas.training import Task
from jaxnas.nn.gat import GAT
from jaxnas.nn.network import cross_entropy

RATES = (6e-4, 1e-3, 3e-3, 6e-3, 0.01, 0.03, 0.06)
PATIENCE = 100


class Best(NamedTuple):
    """The lowest point of the validation loss.

    Attributes:
      loss: validation loss there.
      valid: validation accuracy there, %.
      test: test accuracy there, %.
      waited: steps since; at the patience the run is over.
    """

    loss: Float[Array, ""]
    valid: Float[Array, ""]
    test: Float[Array, ""]
    waited: Int[Array, ""]


def node_classification(
    graph: Graph,
    *,
    steps: int = 1000,
    hidden: int = 8,
    heads: int = 8,
    final: bool = False,
    weight_decay: float = 5e-4,
) -> Task:
    """A task of one graph whose nodes have one label each.

    Args:
      graph: such as `data.graphs.cora()`.
      steps: most steps.
      hidden: units of a head.
      heads: of the hidden layer.
      final: whether the score is test accuracy, which a search must not see, not validation.
      weight_decay: of all weights.
    """
    x = BCOO.fromdense(jnp.asarray(row_normalise(graph.features)))  # bags of words are almost empty
    edges, y = jnp.asarray(graph.edges), jnp.asarray(graph.labels)
    parts = {name: jnp.flatnonzero(getattr(graph, name)) for name in ("train", "valid", "test")}
    module = GAT(len(graph.classes), hidden=hidden, heads=heads)

    def start(key: Key[Array, ""]) -> tuple[PyTree, Best]:
        params = module.init(key, x, edges, train=False)["params"]
        worst = jnp.float32(jnp.inf), jnp.float32(0), jnp.float32(0), jnp.int32(0)
        return params, Best(*worst)

    def logits(params: Any, rngs: Any = None) -> Array:
        out: Any = module.apply({"params": params}, x, edges, train=rngs is not None, rngs=rngs)
        return out

    def loss(params: Any, best: Best, item: Any, key: Key[Array, ""]) -> tuple[Array, Best]:
        del item
        out = logits(params, {"dropout": key})
        value = cross_entropy(out[parts["train"]], y[parts["train"]])
        return value, look(jax.lax.stop_gradient(params), best)

    def look(params: Any, best: Best) -> Best:
        out = logits(params)
        now = cross_entropy(out[parts["valid"]], y[parts["valid"]])
        right = 100 * (out.argmax(1) == y)
        better = (now < best.loss) & (best.waited < PATIENCE)
        found = Best(now, right[parts["valid"]].mean(), right[parts["test"]].mean(), jnp.int32(0))
        return jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            found,
            best._replace(waited=best.waited + 1),
        )

    def score(losses: Array, params: Any, best: Best) -> Array:
        del losses
        best = look(params, best)
        return best.test if final else best.valid

    split = "test" if final else "validation"
    return Task(
        name=graph.name,
        start=start,
        feed=lambda key: jnp.zeros(steps),
        loss=loss,
        score=score,
        steps=steps,
        rates=RATES,
        seeds=4,
        bound=20.0,
        space="gnn",
        label=f"{split} accuracy, %, of a GAT of {heads} x {hidden} within {steps} epochs",
        decay=weight_decay,
        side_by_side=False,
    )
