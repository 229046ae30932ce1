"""An l-infinity attack: what is optimised is the perturbation of a batch of images.

Madry et al., ICLR 2018, arXiv:1706.06083 (PGD); as a task of optimizer search: Wang et al., NeurIPS
2022, arXiv:2209.13575, section 3.3.4. A rule moves perturbations against the loss `-cross-entropy`,
summed over the batch so that no image depends on the others; outside the rule they are projected
to the ball of radius 8/255 and the images to [0, 1]. PGD is the rule `sg`. The score is the share
of images that any of the points visited fools the network with.

Only images that the network classifies correctly are attacked. (The paper's table counts others as
successes.) A run's key draws its batch, so 25 seeds are 25 batches, which may overlap.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt8

from jaxnas.data.dataset import Split
from jaxnas.formulas.training import Task
from jaxnas.nn.network import cross_entropy

RATES = tuple(x * 10.0**n for n in range(-4, 0) for x in (1, 3, 6))
EPSILON = 8 / 255
BOUND = 0.12  # a success rate below is worth nothing


class Net(NamedTuple):
    """A classifier of images.

    Attributes:
      apply: `(variables, x) -> logits [B, K]`, `x` in [0, 1].
      variables: what it has learned.
    """

    apply: Callable[[PyTree, Float[Array, "B H W C"]], Float[Array, "B K"]]
    variables: PyTree


class Target(NamedTuple):
    """What is attacked.

    Attributes:
      net: the classifier.
      x: `[M, H, W, C]` images that it classifies correctly, 0 to 255.
      y: `[M]` their labels.
    """

    net: Net
    x: UInt8[Array, "M H W C"]
    y: Int[Array, " M"]

    def batch(self, index: Int[Array, " B"]) -> tuple[Float[Array, "B H W C"], Int[Array, " B"]]:
        """Images in [0, 1], and their labels."""
        return self.x[index].astype(jnp.float32) / 255, self.y[index]


class Progress(NamedTuple):
    """What is known of a batch under attack.

    Attributes:
      index: `[B]` which images of the target.
      fooled: `[B]` whether any point so far fooled the network.
    """

    index: Int[Array, " B"]
    fooled: Bool[Array, " B"]


def target(net: Net | tuple[Callable[..., Array], PyTree], images: Split) -> Target:
    """A network and those of some images that it classifies correctly.

    Args:
      net: apply function and variables, see `Net`.
      images: uint8 images and their labels.

    Raises:
      ValueError: if images are not uint8, or none is classified correctly.
    """
    net = Net(*net)
    if images.x.dtype != np.uint8:
        raise ValueError(f"`images` must be uint8, but got {images.x.dtype}.")
    predict = jax.jit(lambda variables, x: net.apply(variables, x.astype(jnp.float32) / 255))
    parts = [
        np.asarray(predict(net.variables, images.x[n : n + 500]).argmax(-1))
        for n in range(0, len(images.y), 500)
    ]
    right = np.concatenate(parts) == images.y
    if not right.any():
        raise ValueError("`net` must classify some of the `images` correctly, but it does none.")
    return Target(net, jnp.asarray(images.x[right]), jnp.asarray(images.y[right]))


def attack(
    on: Target,
    *,
    steps: int = 20,
    batch: int = 400,
    epsilon: float = EPSILON,
    bound: float = BOUND,
    label: str = "",
) -> Task:
    """The task.

    Args:
      on: what is attacked.
      steps: of the attack; the paper searches with 20 and evaluates with 100.
      batch: images of a run, or all of `on` where these are fewer.
      epsilon: radius of the ball, in units of [0, 1].
      bound: success rate that is worth nothing.
      label: what the images are, to be said beside the score.
    """
    batch = min(batch, len(on.y))

    def begin(key: Key[Array, ""]) -> tuple[Array, Progress]:
        return start(on, key, batch, epsilon)

    def look(delta: Array, progress: Progress) -> tuple[Array, Progress]:
        x, y = on.batch(progress.index)
        logits = on.net.apply(on.net.variables, x + delta)
        fooled = progress.fooled | (logits.argmax(-1) != y)
        return -batch * cross_entropy(logits, y), progress._replace(fooled=fooled)

    def score(losses: Array, delta: Array, progress: Progress) -> Array:
        del losses
        last = look(delta, progress)[1]  # nothing looked at where the last step went
        return jnp.maximum(last.fooled.mean(), bound)

    return Task(
        name="attack",
        start=begin,
        feed=lambda key: (),
        loss=lambda delta, progress, item, key: look(delta, progress),
        score=score,
        steps=steps,
        rates=RATES,
        seeds=25,
        bound=bound,
        space="adversarial",
        label=f"success rate after {steps} steps" + (f" on {label}" if label else ""),
        project=lambda delta, progress: projected(delta, on.batch(progress.index)[0], epsilon),
        side_by_side=False,
    )


def start(
    on: Target, key: Key[Array, ""], batch: int, epsilon: float = EPSILON
) -> tuple[Float[Array, "B H W C"], Progress]:
    """A batch drawn without replacement, and perturbations drawn evenly from its ball."""
    key_batch, key_delta = jax.random.split(key)
    index = jnp.argsort(jax.random.uniform(key_batch, on.y.shape))[:batch]
    shape = (batch, *on.x.shape[1:])
    delta = jax.random.uniform(key_delta, shape, jnp.float32, -epsilon, epsilon)
    delta = projected(delta, on.batch(index)[0], epsilon)
    return delta, Progress(index, jnp.zeros(batch, bool))


def projected(
    delta: Float[Array, "B H W C"], x: Float[Array, "B H W C"], epsilon: float
) -> Float[Array, "B H W C"]:
    """The nearest perturbations within the ball that keep images in [0, 1]."""
    return jnp.clip(delta, jnp.maximum(-epsilon, -x), jnp.minimum(epsilon, 1 - x))
