"""Random changes of training images: crop, flip, colour jitter, cutout.

All take a batch `[B, H, W, C]` and draw for each image anew. As torchvision's pipelines have it,
colours change before an image is normalised and cutout comes after.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num

# Largest change of brightness, contrast and saturation (as a factor) and of hue (in turns).
JITTER = (0.4, 0.4, 0.4, 0.2)
_GREY = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


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


def cutout(key: Key[Array, ""], x: Float[Array, "B H W C"], size: int) -> Float[Array, "B H W C"]:
    """Zeros in a square around a random pixel, as much of it as lies inside the image.

    DeVries & Taylor, arXiv:1708.04552; on normalised images, so that zero is the mean colour.

    Args:
      key: random key.
      x: normalised images.
      size: edge of the square in pixels; it reaches from `size // 2` before the pixel to
        `size // 2 - 1` behind it.
    """
    _, height, width, _ = x.shape

    def near(key: Key[Array, ""], length: int) -> Array:
        centre = jax.random.randint(key, (x.shape[0], 1), 0, length)
        offset = jnp.arange(length) - centre
        return (-(size // 2) <= offset) & (offset < size // 2)

    key_row, key_column = jax.random.split(key)
    hole = near(key_row, height)[:, :, None] & near(key_column, width)[:, None, :]
    return jnp.where(hole[..., None], 0, x)


def jitter(
    key: Key[Array, ""],
    x: Float[Array, "B H W 3"],
    strength: tuple[float, float, float, float] = JITTER,
) -> Float[Array, "B H W 3"]:
    """Random brightness, contrast, saturation and hue, in this order.

    Torchvision's `ColorJitter`, which shuffles the order for every image; here it is fixed.

    Args:
      key: random key.
      x: colours in `[0, 1]`.
      strength: largest change of each, see `JITTER`.
    """
    low = jnp.array([*(1 - s for s in strength[:3]), -strength[3]])
    high = jnp.array([*(1 + s for s in strength[:3]), strength[3]])
    return recolour(x, jax.random.uniform(key, (x.shape[0], 4), minval=low, maxval=high))


def recolour(x: Float[Array, "B H W 3"], by: Float[Array, "B 4"]) -> Float[Array, "B H W 3"]:
    """Images of other colours.

    Args:
      x: colours in `[0, 1]`.
      by: factors of brightness, contrast and saturation (1 changes nothing), and turns of hue.
    """
    brightness, contrast, saturation, turns = (by[:, i, None, None, None] for i in range(4))
    x = jnp.clip(x * brightness, 0, 1)
    x = _blend(x, (x @ _GREY).mean((1, 2))[:, None, None, None], contrast)
    x = _blend(x, (x @ _GREY)[..., None], saturation)
    return turn_hue(x, turns[..., 0])


def _blend(x: Array, grey: Array, share: Array) -> Array:
    return jnp.clip(share * x + (1 - share) * grey, 0, 1)


def turn_hue(x: Float[Array, "B H W 3"], turns: Float[Array, "B 1 1"]) -> Float[Array, "B H W 3"]:
    """Turns the hue of colours in `[0, 1]`, at constant HSV saturation and value."""
    red, green, blue = x[..., 0], x[..., 1], x[..., 2]
    value = x.max(-1)
    chroma = value - x.min(-1)
    safe = jnp.where(chroma > 0, chroma, 1)
    sixth = jnp.where(
        value == red,
        (green - blue) / safe,
        jnp.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    # How far each primary is from its own sector tells how much of the chroma it lacks.
    at = (jnp.array([5.0, 3.0, 1.0]) + (sixth + 6 * turns)[..., None]) % 6
    return value[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(at, 4 - at), 0, 1)
