"""Cutout and colours against slow loops: every hole by the published rule, every hue by colorsys."""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.data.toy import shapes, waves
from jaxnas.train.augment import cutout, jitter, recolour
from jaxnas.train.batches import on_device, take

pytestmark = pytest.mark.usefixtures("quick_compile")


def holes(height, width, size):
    """Every hole there is, by the pixel it is around: cut at the borders, end exclusive."""
    for row in range(height):
        for column in range(width):
            kept = np.ones((height, width))
            top, bottom = (np.clip(row + s * (size // 2), 0, height) for s in (-1, 1))
            left, right = (np.clip(column + s * (size // 2), 0, width) for s in (-1, 1))
            kept[top:bottom, left:right] = 0
            yield (row, column), kept


def test_cutout_zeroes_a_clipped_square_around_any_pixel_alike():
    height, width, size, n = 5, 4, 4, 4_000
    x = np.random.default_rng(0).uniform(1, 2, (height, width, 2)).astype(np.float32)
    cut = np.asarray(cutout(jax.random.key(0), jnp.broadcast_to(x, (n, *x.shape)), size))
    names = {}
    for centre, kept in holes(height, width, size):
        names.setdefault((x * kept[..., None]).astype(np.float32).tobytes(), []).append(centre)
    counts = dict.fromkeys(names, 0)
    for image in cut:
        counts[image.tobytes()] += 1  # a hole by another rule has no name
    for name, centres in names.items():
        wanted = n * len(centres) / (height * width)
        assert abs(counts[name] - wanted) < 5 * wanted**0.5


def test_cutout_of_32_pixels_cuts_16_by_16_inside_an_image():
    cut = np.asarray(cutout(jax.random.key(1), jnp.ones((200, 32, 32, 1)), 16))
    assert (cut == 0).sum((1, 2, 3)).max() == 256
    assert (cut == 0).sum((1, 2, 3)).min() >= 64  # around a corner a quarter is left


def recoloured(image, brightness, contrast, saturation, turns):
    """One image, pixel by pixel."""

    def grey(pixel):
        return 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]

    image = np.clip(image.astype(np.float64) * brightness, 0, 1)
    mean = np.mean([grey(p) for row in image for p in row])
    image = np.clip(contrast * image + (1 - contrast) * mean, 0, 1)
    out = np.empty_like(image)
    for at in np.ndindex(image.shape[:2]):
        pixel = np.clip(saturation * image[at] + (1 - saturation) * grey(image[at]), 0, 1)
        hue, s, value = colorsys.rgb_to_hsv(*pixel)
        out[at] = colorsys.hsv_to_rgb((hue + turns) % 1, s, value)
    return out


def test_colours_change_as_colorsys_and_loops_say():
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (6, 4, 5, 3)).astype(np.float32)
    x[0, 0] = 0.5  # grey has no hue
    by = rng.uniform([0.6, 0.6, 0.6, -0.2], [1.4, 1.4, 1.4, 0.2], (6, 4)).astype(np.float32)
    by[5] = 1, 1, 1, 0
    wanted = np.stack([recoloured(image, *row) for image, row in zip(x, by, strict=True)])
    got = np.asarray(recolour(jnp.asarray(x), jnp.asarray(by)))
    np.testing.assert_allclose(got, wanted, atol=2e-5)
    np.testing.assert_allclose(got[5], x[5], atol=1e-6)


def test_jitter_stays_within_its_strength_and_differs_from_image_to_image():
    grey = jnp.full((500, 1, 1, 3), 0.5)  # its only change is brightness
    values = np.asarray(jitter(jax.random.key(0), grey))[:, 0, 0]
    assert 0.3 - 1e-5 <= values.min() < 0.32
    assert 0.68 < values.max() <= 0.7 + 1e-5
    still = jitter(jax.random.key(0), jnp.full((4, 2, 2, 3), 0.25), (0.0, 0.0, 0.0, 0.0))
    np.testing.assert_allclose(still, 0.25, atol=1e-6)


def test_a_batch_is_cut_after_it_is_normalised_and_jittered_before():
    data = on_device(images := shapes(size=8, n=32), images.train)
    index, key = jnp.arange(32), jax.random.key(0)
    plain = np.asarray(take(data, index, augment=key)[0])
    cut = np.asarray(take(data, index, augment=key, hole=4)[0])
    zero = (cut == 0) & (plain != 0)
    assert zero.any()
    np.testing.assert_array_equal(cut[~zero], plain[~zero])  # the same crops and flips
    coloured = np.asarray(take(data, index, augment=key, colours=True)[0])
    assert not np.allclose(coloured, plain, atol=0.1)
    low, high = (-data.mean / data.std).min(), ((255 - data.mean) / data.std).max()
    assert low - 1e-4 <= coloured.min() <= coloured.max() <= high + 1e-4


def test_sequences_and_what_is_not_augmented_stay_as_they_are():
    data = on_device(signals := waves(n=8), signals.train)
    index = jnp.arange(8)
    changed = take(data, index, augment=jax.random.key(0), colours=True, hole=4)[0]
    np.testing.assert_array_equal(changed, take(data, index)[0])
