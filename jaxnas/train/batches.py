"""Data on the device: a split as arrays, shuffled epochs, normalised and augmented batches."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, Num

from jaxnas.data.dataset import Dataset, Split


class Data(NamedTuple):
    """One split on the device, stored as it came and normalised as it is read.

    Attributes:
      x: `[M, *space, C]` uint8 images or float32 sequences.
      y: `[M]` labels.
      mean: `[C]` in the units of `x`.
      std: `[C]` in the units of `x`.
    """

    x: Num[Array, "M *space C"]
    y: Int[Array, " M"]
    mean: Float[Array, " C"]
    std: Float[Array, " C"]


def on_device(dataset: Dataset, split: Split) -> Data:
    """Puts a split of a data set on the device; a sequence gets its channel axis."""
    x = split.x if split.x.ndim > 2 else split.x[..., None]
    unit = 255.0 if x.dtype == np.uint8 else 1.0
    mean, std = (jnp.asarray(v, jnp.float32) * unit for v in (dataset.mean, dataset.std))
    return Data(jnp.asarray(x), jnp.asarray(split.y, jnp.int32), mean, std)


def halves(data: Data) -> tuple[Data, Data]:
    """The first and the second half, as gradient searches split what they train on."""
    middle = data.y.shape[0] // 2
    first = data._replace(x=data.x[:middle], y=data.y[:middle])
    return first, data._replace(x=data.x[middle : 2 * middle], y=data.y[middle : 2 * middle])


def epoch_order(key: Key[Array, ""], size: int, batch: int) -> Int[Array, "steps B"]:
    """A shuffled epoch as full batches of indices; the rest that fills no batch sits out."""
    steps = size // batch
    return jax.random.permutation(key, size)[: steps * batch].reshape(steps, batch)


def take(
    data: Data,
    index: Int[Array, " B"],
    dtype: DTypeLike = jnp.float32,
    augment: Key[Array, ""] | None = None,
) -> tuple[Array, Array]:
    """A normalised batch `[B, *space, C]` and its labels `[B]`.

    Args:
      data: what is read.
      index: which examples.
      dtype: of the batch.
      augment: key under which images (not sequences) are cropped and flipped before they are
        normalised, so that what a crop adds is black; `None` takes them as they are.
    """
    x = data.x[index]
    if augment is not None and x.ndim == 4:
        x = crop_flip(augment, x)
    x = (x.astype(jnp.float32) - data.mean) / data.std
    return x.astype(dtype), data.y[index]


def crop_flip(key: Key[Array, ""], x: Num[Array, "B H W C"], pad: int = 4) -> Array:
    """Random crop from a zero-padded image, and a horizontal flip for every second one."""
    key_crop, key_flip = jax.random.split(key)
    padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    corner = jax.random.randint(key_crop, (x.shape[0], 2), 0, 2 * pad + 1)

    def crop(image: Array, at: Array) -> Array:
        return jax.lax.dynamic_slice(image, (at[0], at[1], 0), x.shape[1:])

    cropped = jax.vmap(crop)(padded, corner)
    flip = jax.random.bernoulli(key_flip, shape=(x.shape[0], 1, 1, 1))
    return jnp.where(flip, cropped[:, :, ::-1], cropped)


def compute_dtype() -> DTypeLike:
    """bfloat16 where the device computes it natively, else float32."""
    return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
