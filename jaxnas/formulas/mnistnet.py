"""MNISTNET: how fast a tiny network learns digits, the task of learned optimizers.

Andrychowicz et al., NeurIPS 2016, arXiv:1606.04474; as a search task: Wang et al., NeurIPS 2022,
arXiv:2209.13575, section 3.3.2. A sigmoid layer of 20 units, batches of 128, and the mean of the
training loss over 100 steps, on 24,000 digits: 80 % of one half of the training set.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from jaxnas.core.keys import unrolled
from jaxnas.data.catalog import load
from jaxnas.data.dataset import Dataset, on_everything
from jaxnas.formulas.training import Task
from jaxnas.nn.network import cross_entropy
from jaxnas.train.batches import epoch_orders

RATES = (6e-4, 1e-3, 3e-3, 6e-3, 0.01, 0.03, 0.06, 0.1, 0.3, 1.0)
WORST = 15.0  # a loss beyond counts as this


def mnistnet(
    *,
    steps: int = 100,
    hidden: tuple[int, ...] = (20,),
    relu: bool = False,
    batch: int = 128,
    examples: int = 0,
    dataset: Dataset | None = None,
) -> Task:
    """The task, and by its arguments the ones that found rules are transferred to.

    Args:
      steps: of training; the paper looks at 100, and at 1,000 in the end.
      hidden: units of each hidden layer: `(40,)` is the big network, `(20, 20)` the deep one.
      relu: whether units are rectified rather than sigmoid.
      batch: examples a step.
      examples: of the data that are used; 0 for all.
      dataset: images; `None` for MNIST.
    """
    data = load("mnist") if dataset is None else dataset
    x, y = on_everything(data).train
    order = np.random.default_rng(10).permutation(len(y))[: int(0.4 * len(y))]
    order = order[: examples or None]
    scaled = (x[order] / 255 - np.asarray(data.mean)) / np.asarray(data.std)
    x = jnp.asarray(scaled.reshape(len(order), -1), jnp.float32)
    y = jnp.asarray(y[order])
    sizes = (x.shape[1], *hidden, len(data.classes))
    act = jax.nn.relu if relu else jax.nn.sigmoid

    def start(key: Key[Array, ""]) -> tuple[Any, Any]:
        keys = jax.random.split(unrolled(key), len(sizes))
        return [_dense(k, a, b) for k, a, b in zip(keys, sizes[:-1], sizes[1:], strict=False)], ()

    def loss(params: Any, memory: Any, item: Array, key: Key[Array, ""]) -> tuple[Array, Any]:
        del key
        h = x[item]
        for n, (kernel, bias) in enumerate(params):
            h = h @ kernel + bias
            h = h if n == len(params) - 1 else act(h)
        return cross_entropy(h, y[item]), memory

    def score(losses: Array, params: Any, memory: Any) -> Array:
        del params, memory
        return -jnp.minimum(losses, WORST).mean()

    return Task(
        name="mnistnet",
        start=start,
        feed=lambda key: epoch_orders(key, len(y), batch, steps),
        loss=loss,
        score=score,
        steps=steps,
        rates=RATES,
        seeds=10,
        bound=-WORST,
        space="gnn",
        label=f"minus the mean training loss over {steps} steps",
    )


def _dense(key: Key[Array, ""], fan_in: int, fan_out: int) -> tuple[Array, Array]:
    """A layer as PyTorch starts it: weights and bias uniform within `1 / sqrt(fan-in)`."""
    bound = fan_in**-0.5
    draw = jax.random.uniform(key, (fan_in + 1, fan_out), jnp.float32, -bound, bound)
    return draw[:-1], draw[-1]
