"""Data on the device: a split as arrays, shuffled epochs, normalised and augmented batches."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, Key, Num

from jaxnas.data.dataset import Dataset, Split
from jaxnas.train.augment import crop_flip, cutout, jitter


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


def epoch_orders(key: Key[Array, ""], size: int, batch: int, steps: int) -> Int[Array, "steps B"]:
    """The batches of so many steps, each epoch shuffled anew as `epoch_order` does.

    Raises:
      ValueError: if a batch is larger than the data.
    """
    if batch > size:
        raise ValueError(f"`batch` must be at most the {size} examples, but got {batch}.")
    keys = jax.random.split(key, -(-steps // (size // batch)))
    return jax.vmap(lambda key: epoch_order(key, size, batch))(keys).reshape(-1, batch)[:steps]


def take(
    data: Data,
    index: Int[Array, " B"],
    dtype: DTypeLike = jnp.float32,
    augment: Key[Array, ""] | None = None,
    *,
    colours: bool = False,
    hole: int = 0,
) -> tuple[Array, Array]:
    """A normalised batch `[B, *space, C]` and its labels `[B]`.

    Args:
      data: what is read.
      index: which examples.
      dtype: of the batch.
      augment: key under which images (not sequences) are cropped and flipped before they are
        normalised, so that what a crop adds is black; `None` takes them as they are.
      colours: whether augmented images, if they have three channels, are jittered.
      hole: edge of the square that is cut out of augmented images, in pixels; 0 for none.
    """
    x, y = data.x[index], data.y[index]
    if augment is None or x.ndim < 4:
        return _normalised(data, x).astype(dtype), y
    # A crop splits its key into children 0 and 1; the others follow.
    x = crop_flip(augment, x)
    if colours and x.shape[-1] == 3:
        unit = 255.0 if x.dtype == jnp.uint8 else 1.0
        x = unit * jitter(jax.random.fold_in(augment, 2), x.astype(jnp.float32) / unit)
    x = _normalised(data, x)
    if hole:
        x = cutout(jax.random.fold_in(augment, 3), x, hole)
    return x.astype(dtype), y


def _normalised(data: Data, x: Array) -> Float[Array, "B *space C"]:
    return (x.astype(jnp.float32) - data.mean) / data.std


def compute_dtype(backend: str | None = None) -> DTypeLike:
    """bfloat16 where the device computes it natively, else float32.

    Args:
      backend: `cpu`, `gpu` or `tpu`; `None` for the one in use.
    """
    return jnp.float32 if (backend or jax.default_backend()) == "cpu" else jnp.bfloat16
