"""Batches: every example at most once an epoch, crops that only move content."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.data.toy import shapes, waves
from jaxnas.train.augment import crop_flip
from jaxnas.train.batches import epoch_order, halves, on_device, take


@pytest.mark.parametrize(("size", "batch"), [(10, 3), (12, 4), (5, 5), (7, 1)])
def test_an_epoch_visits_every_example_at_most_once(size, batch):
    order = np.asarray(epoch_order(jax.random.key(0), size, batch))
    assert order.shape == (size // batch, batch)
    seen = np.sort(order.ravel())
    assert len(np.unique(seen)) == len(seen)
    assert seen.min() >= 0
    assert seen.max() < size


def test_who_sits_out_an_epoch_changes_and_all_are_equally_likely_to():
    keys = jax.random.split(jax.random.key(1), 4_000)
    orders = jax.vmap(lambda key: epoch_order(key, 7, 3))(keys)
    out = 21 - np.asarray(orders).sum((1, 2))  # 0 + ... + 6 less those seen
    counts = np.bincount(out, minlength=7)
    assert np.abs(counts - 4_000 / 7).max() < 5 * (4_000 / 7 * 6 / 7) ** 0.5


def moves_of(image, pad):
    """Every crop of the zero-padded image, and its mirror image, by slicing."""
    height, width, channels = image.shape
    padded = np.zeros((height + 2 * pad, width + 2 * pad, channels), image.dtype)
    padded[pad : pad + height, pad : pad + width] = image
    for top in range(2 * pad + 1):
        for left in range(2 * pad + 1):
            crop = padded[top : top + height, left : left + width]
            yield (top, left, 0), crop
            yield (top, left, 1), crop[:, ::-1]


def test_crops_only_move_content_and_every_move_is_as_likely_as_the_next():
    image = np.random.default_rng(0).normal(size=(4, 5, 2)).astype(np.float32)
    batch = jnp.broadcast_to(image, (3_600, 4, 5, 2))
    moved = np.asarray(crop_flip(jax.random.key(0), batch, pad=1))
    allowed = {crop.tobytes(): name for name, crop in moves_of(image, 1)}
    assert len(allowed) == 18
    names, counts = np.unique([allowed[m.tobytes()] for m in moved], axis=0, return_counts=True)
    assert len(names) == 18
    assert np.abs(counts - 200).max() < 5 * (200 * 17 / 18) ** 0.5


def test_images_of_a_batch_move_independently_and_by_key():
    batch = jax.random.normal(jax.random.key(3), (16, 8, 8, 3))
    a, b, c = (crop_flip(jax.random.key(k), batch) for k in (0, 0, 1))
    assert a.shape == batch.shape
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
    names = []
    for before, after in zip(np.asarray(batch), np.asarray(a), strict=True):
        moves = {crop.tobytes(): name for name, crop in moves_of(before, 4)}
        names.append(moves[after.tobytes()])
    assert len(set(names)) > 8


def test_images_are_normalised_as_they_are_read():
    data = shapes(size=8, n=32)
    device = on_device(data, data.train)
    assert device.x.dtype == jnp.uint8
    index = jnp.array([3, 0, 31])
    x, y = take(device, index)
    raw = data.train.x[np.asarray(index)].astype(np.float64) / 255
    np.testing.assert_allclose(x, (raw - np.array(data.mean)) / np.array(data.std), atol=1e-5)
    assert y.tolist() == data.train.y[np.asarray(index)].tolist()
    assert take(device, index, jnp.bfloat16)[0].dtype == jnp.bfloat16
    every = take(device, jnp.arange(32))[0]
    np.testing.assert_allclose(every.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(every.std((0, 1, 2)), 1, atol=1e-5)


def test_what_a_crop_adds_is_black():
    """As torchvision crops: before the image is normalised, so that zeros stay zeros."""
    data = shapes(size=8, n=32)
    device = on_device(data, data.train)._replace(x=jnp.full((32, 8, 8, 3), 200, jnp.uint8))
    mean, std = (np.array(v) for v in (data.mean, data.std))
    moved, _ = take(device, jnp.arange(32), augment=jax.random.key(0))
    black, light = -mean / std, (200 / 255 - mean) / std
    near = [np.isclose(moved, value, atol=1e-4).all(-1) for value in (black, light)]
    assert (near[0] | near[1]).all()
    assert near[0].any()


def test_sequences_get_a_channel_axis_and_halves_share_nothing():
    data = waves(length=12, n=33)
    device = on_device(data, data.train)
    assert device.x.shape == (33, 12, 1)
    first, second = halves(device)
    assert first.y.shape == second.y.shape == (16,)
    np.testing.assert_array_equal(np.concatenate([first.x, second.x])[..., 0], data.train.x[:32])
    np.testing.assert_array_equal(np.concatenate([first.y, second.y]), data.train.y[:32])
