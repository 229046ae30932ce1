"""A small network that is trained against attacks, as something worth attacking.

Madry et al., "Towards Deep Learning Models Resistant to Adversarial Attacks", ICLR 2018,
arXiv:1706.06083: each step attacks its batch by seven steps of PGD from a random start and follows
the gradient there. Their networks are wide residual ones; ours has two convolutions, so that a CPU
can train it, and is far less accurate. `attack.target` takes any other network.
"""

import contextlib
import hashlib
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Key, PyTree

from jaxnas.core import compiled
from jaxnas.data.dataset import DataError, Dataset, cache_folder
from jaxnas.data.files import read_npz, write_atomic
from jaxnas.formulas.attack import EPSILON, Net, projected
from jaxnas.nn.network import cross_entropy, fill
from jaxnas.nn.ops import Conv, max_pool
from jaxnas.train.batches import epoch_order

VERSION = 1  # of what is trained; part of the name of the cached file
INNER, INNER_RATE = 7, 2 / 255
MOMENTUM, DECAY = 0.9, 2e-4


class SmallNet(nn.Module):
    """Two convolutions, each rectified and pooled, 128 rectified units, a linear classifier.

    Attributes:
      classes: number of outputs.
      width: channels of the first convolution; the second has twice as many.
    """

    classes: int
    width: int = 32

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"]) -> Float[Array, "B K"]:
        """Logits of images in [0, 1]."""
        x = 4 * (x - 0.5)
        for n in (1, 2):
            x = max_pool(nn.relu(Conv(n * self.width, 3)(x)), 2, 2)
        x = nn.relu(nn.Dense(128)(x.reshape(x.shape[0], -1)))
        return nn.Dense(self.classes)(x)


def robust_net(
    key: Key[Array, ""],
    dataset: Dataset,
    *,
    width: int = 32,
    epochs: int = 20,
    batch: int = 128,
    rate: float = 0.05,
    examples: int = 0,
    epsilon: float = EPSILON,
) -> Net:
    """Trains the network, or reads it from the user's cache if it was trained before.

    Args:
      key: draws weights, batches and starts of attacks.
      dataset: uint8 images.
      width: channels of the first convolution.
      epochs: passes over the training images.
      batch: images a step.
      rate: learning rate at first; it falls to zero by half a cosine.
      examples: of the training images; 0 for all.
      epsilon: radius of the ball that attacks stay in.

    Raises:
      ValueError: if a batch is larger than the data.
    """
    x, y = dataset.train.x[: examples or None], dataset.train.y[: examples or None]
    if batch > len(y):
        raise ValueError(f"`batch` must be at most the {len(y)} images, but got {batch}.")
    network = SmallNet(len(dataset.classes), width)
    shapes = jax.eval_shape(network.init, key, jnp.zeros(x[:1].shape, jnp.float32))
    settings = (
        VERSION,
        shapes,
        width,
        epochs,
        batch,
        rate,
        epsilon,
        np.asarray(jax.random.key_data(key)),
    )
    path = _path(x, y, settings)
    variables = _stored(path, shapes)

    def apply(variables: PyTree, x: Array) -> Array:
        logits: Any = network.apply(variables, x)
        return logits

    if variables is None:
        variables = _trained(key, apply, shapes, x, y, (epochs, batch, rate, epsilon))
        leaves: dict[str, Any] = {
            str(n): np.asarray(leaf) for n, leaf in enumerate(jax.tree.leaves(variables))
        }
        with contextlib.suppress(OSError):  # nowhere to keep it: it is trained again next time
            write_atomic(path, lambda file: np.savez(file, **leaves))
    return Net(apply, variables)


def _path(x: np.ndarray, y: np.ndarray, settings: tuple[Any, ...]) -> Path:
    """A file of its own for everything that the weights depend on."""
    name = hashlib.sha256(repr((settings, x.shape)).encode())
    name.update(x.tobytes())
    name.update(y.tobytes())
    return cache_folder() / "robust_nets" / f"{name.hexdigest()[:24]}.npz"


def _stored(path: Path, shapes: PyTree) -> PyTree | None:
    if not path.exists():
        return None
    leaves, tree = jax.tree.flatten(shapes)
    names = [str(n) for n in range(len(leaves))]
    try:
        arrays = read_npz(path, names, "It is trained again.")
        if any(arrays[n].shape != leaf.shape for n, leaf in zip(names, leaves, strict=True)):
            raise DataError(path, "its arrays have other shapes", "It is trained again.")
    except DataError as error:
        warnings.warn(str(error), stacklevel=3)
        return None
    return jax.tree.unflatten(tree, [jnp.asarray(arrays[n]) for n in names])


def _trained(
    key: Key[Array, ""],
    apply: Any,
    shapes: PyTree,
    x: np.ndarray,
    y: np.ndarray,
    how: tuple[int, int, float, float],
) -> PyTree:
    epochs, batch, rate, epsilon = how
    falls = optax.cosine_decay_schedule(rate, epochs * (len(y) // batch))
    optimizer = optax.chain(
        optax.add_decayed_weights(DECAY), optax.sgd(falls, momentum=MOMENTUM, nesterov=False)
    )
    images, labels = jnp.asarray(x), jnp.asarray(y)

    def loss(variables: PyTree, x: Array, y: Array) -> Array:
        return cross_entropy(apply(variables, x), y)

    def step(carry: Any, at: Any) -> tuple[Any, None]:
        variables, memory = carry
        key, index = at
        clean = images[index].astype(jnp.float32) / 255
        x = attacked(key, lambda x: loss(variables, x, labels[index]), clean, epsilon)
        gradient = jax.grad(loss)(variables, x, labels[index])
        updates, memory = optimizer.update(gradient, memory, variables)
        return (optax.apply_updates(variables, updates), memory), None

    def epoch(carry: Any, key: Key[Array, ""]) -> Any:
        key_order, key_attack = jax.random.split(key)
        order = epoch_order(key_order, len(y), batch)
        return jax.lax.scan(step, carry, (jax.random.split(key_attack, len(order)), order))[0]

    variables = fill(jax.random.fold_in(key, 0), shapes)
    carry, run = (variables, optimizer.init(variables)), compiled(epoch)
    for n in range(epochs):
        carry = run(carry, jax.random.fold_in(key, n + 1))
    return carry[0]


def attacked(
    key: Key[Array, ""], loss: Any, x: Float[Array, "B H W C"], epsilon: float
) -> Float[Array, "B H W C"]:
    """Images after a few steps of PGD up the loss, from a random start in the ball."""
    delta = jax.random.uniform(key, x.shape, x.dtype, -epsilon, epsilon)

    def up(_: Any, delta: Array) -> Array:
        return projected(delta + INNER_RATE * jnp.sign(jax.grad(loss)(x + delta)), x, epsilon)

    return x + jax.lax.fori_loop(0, INNER, up, projected(delta, x, epsilon))
