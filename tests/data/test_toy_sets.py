import numpy as np
import pytest

from jaxnas.data import toy

MAKERS = [toy.blobs, toy.two_moons, toy.waves, toy.shapes]


@pytest.mark.parametrize("make", MAKERS)
def test_the_same_seed_gives_the_same_arrays_and_another_seed_others(make):
    one, same, other = make(seed=1), make(seed=1), make(seed=2)
    np.testing.assert_array_equal(one.test.x, same.test.x)
    assert not np.array_equal(one.test.x, other.test.x)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("n", [2, 33, 256])
def test_splits_have_the_promised_sizes_and_balanced_labels(make, n):
    data = make(n=n)
    assert [len(split.y) for split in (data.train, data.valid, data.test)] == [n, n // 2, n // 2]
    counts = np.bincount(data.train.y, minlength=len(data.classes))
    assert counts.max() - counts.min() <= 1
    assert data.train.y.dtype == np.int32


@pytest.mark.parametrize("make", [toy.blobs, toy.two_moons, toy.waves])
def test_points_and_signals_are_standardised_float32(make):
    x = make().train.x
    assert x.dtype == np.float32
    assert abs(x.mean()) < 1e-4
    assert abs(x.std() - 1) < 1e-4


def test_shapes_are_images_whose_statistics_are_those_of_training():
    data = toy.shapes(size=16)
    assert data.train.x.shape == (256, 16, 16, 3)
    assert data.train.x.dtype == np.uint8
    np.testing.assert_allclose(data.train.x.mean((0, 1, 2)) / 255, data.mean, rtol=1e-6)
    np.testing.assert_allclose(data.train.x.std((0, 1, 2)) / 255, data.std, rtol=1e-6)


def test_arguments_shape_the_data():
    assert toy.waves(length=24).train.x.shape == (256, 24)
    assert toy.blobs(classes=5, features=7).train.x.shape == (256, 7)
    assert toy.blobs(classes=5).train.y.max() == 4


def test_nearest_centre_solves_blobs_and_a_line_does_not_solve_moons():
    data = toy.blobs(seed=3)
    centres = np.stack([data.train.x[data.train.y == label].mean(0) for label in range(3)])
    nearest = np.argmin(np.square(data.test.x[:, None] - centres).sum(-1), axis=1)
    assert (nearest == data.test.y).mean() > 0.85
    moons = toy.two_moons(n=1000)
    inputs = np.c_[moons.train.x, np.ones(1000)]
    line = np.linalg.lstsq(inputs, 2.0 * moons.train.y - 1, rcond=None)[0]
    right = ((inputs @ line > 0) == moons.train.y).mean()
    assert 0.75 < right < 0.95


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: toy.shapes(size=7), "`size` must be at least 8"),
        (lambda: toy.blobs(classes=1), "`classes` must be at least 2"),
        (lambda: toy.waves(n=1), "`n` must be at least 2"),
    ],
)
def test_impossible_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
