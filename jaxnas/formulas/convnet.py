"""The two-layer ConvNet: how well a small network classifies images after five epochs.

Bello et al., "Neural Optimizer Search with Reinforcement Learning", ICML 2017; as a task of
optimizer search: Wang et al., NeurIPS 2022, arXiv:2209.13575, section 3.3.3. Two layers of 32
convolutions, each rectified, pooled and normalised, 1,024 rectified units, and a linear classifier;
batches of 100, no augmentation. The rate is chosen after one epoch, the score is the validation
accuracy after five, and in the end the test accuracy after five epochs on all training images.

Where we differ: the decays end with the last step (in the published code the loader has more steps
than they were told, so that the linear one turns negative), and biases start at zero.
"""

from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from jaxnas.data.catalog import load
from jaxnas.data.dataset import Dataset, Split, on_everything
from jaxnas.formulas.training import Task
from jaxnas.nn.network import cross_entropy, from_linen
from jaxnas.nn.ops import Conv, Norm, max_pool
from jaxnas.train.batches import epoch_orders, on_device, take
from jaxnas.train.update import State, accuracy

RATES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)
BOUND = 0.2  # an accuracy below is worth nothing


class ConvNet(nn.Module):
    """The network; see the module.

    Attributes:
      classes: number of outputs.
    """

    classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B K"]:
        """Logits of a batch."""
        for n in range(2):
            x = Conv(32, 3)(x) + self.param(f"bias_{n}", nn.initializers.zeros, (32,))
            x = Norm()(max_pool(nn.relu(x), 2, 2), train)
        x = nn.relu(nn.Dense(1024)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes)(x)


def convnet(
    *,
    epochs: int = 5,
    steps: int = 0,
    batch: int = 100,
    examples: int = 0,
    final: bool = False,
    dataset: Dataset | None = None,
) -> Task:
    """The task, and by its arguments the shorter one on which rates are chosen.

    Args:
      epochs: of training.
      steps: of training in place of whole epochs; 0 for these.
      batch: examples a step.
      examples: of the training images, and at most as many to score on; 0 for all. A CPU needs it.
      final: whether the network trains on all training images and is scored on the test images;
        otherwise validation images are held out.
      dataset: images; `None` for CIFAR-10.
    """
    data = load("cifar10") if dataset is None else dataset
    split, held = (on_everything(data).train, data.test) if final else (data.train, data.valid)
    train, judge = (on_device(data, _first(one, examples)) for one in (split, held))
    size = len(train.y)
    total = steps or epochs * (size // batch)
    network = from_linen(ConvNet(len(data.classes)))

    def start(key: Key[Array, ""]) -> tuple[Any, Any]:
        variables = network.init(key, take(train, jnp.arange(1))[0])
        return variables["params"], {"batch_stats": variables["batch_stats"]}

    def loss(params: Any, memory: Any, item: Array, key: Key[Array, ""]) -> tuple[Array, Any]:
        del key
        x, y = take(train, item)
        logits, after = network.apply({"params": params, **memory}, x, True)
        return cross_entropy(logits, y), {"batch_stats": after["batch_stats"]}

    def score(losses: Array, params: Any, memory: Any) -> Array:
        del losses
        state = State({"params": params, **memory}, (), jnp.int32(0), jnp.int32(-1))
        return jnp.maximum(accuracy(network, state, judge, jnp.float32) / 100, BOUND)

    return Task(
        name="convnet",
        start=start,
        feed=lambda key: epoch_orders(key, size, batch, total),
        loss=loss,
        score=score,
        steps=total,
        rates=RATES,
        seeds=4,
        bound=BOUND,
        space="conv-subset",
        label=_label(data, total, size, final),
        side_by_side=False,
    )


def _first(split: Split, examples: int) -> Split:
    return Split(split.x[: examples or None], split.y[: examples or None])


def _label(data: Dataset, steps: int, size: int, final: bool) -> str:
    where = "test" if final else "validation"
    note = f" ({data.note})" if data.note else ""
    return f"{where} accuracy after {steps} steps on {size:,} images of {data.name}{note}"
