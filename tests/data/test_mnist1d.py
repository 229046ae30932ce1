import numpy as np
import pytest

from jaxnas.data.mnist1d import TEMPLATES, generate, mnist1d


def _resample(signal, length):
    from scipy.interpolate import interp1d

    old = np.linspace(0, 1, len(signal))
    return interp1d(old, signal)(np.linspace(0, 1, length))


def _slow_sample(template, rng):
    """One sample, step by step, with scipy's own filter and interpolation."""
    from scipy.ndimage import gaussian_filter

    zeros = np.zeros(36 + int(rng.rand() * 25))
    signal = _resample(np.concatenate([template + 1e-8, zeros]), 72)
    signal = signal * (1 + 0.4 * (rng.rand() - 0.5))
    signal = np.roll(signal, rng.choice(48))
    empty = signal == 0
    smooth = gaussian_filter(0.25 * rng.randn(72), 2)
    signal = signal + empty * smooth
    signal = signal + 0.02 * rng.randn(72)
    signal = signal - 0.75 * (rng.rand() - 0.5) * np.linspace(-0.5, 0.5, 72)
    return _resample(signal, 40)


def _slow_mnist1d():
    rng = np.random.RandomState(42)
    samples = []
    for raw in TEMPLATES:
        template = (np.array(raw) - np.mean(raw)) / np.std(raw)
        template = (template - template[0]) / 6
        samples += [_slow_sample(template, rng) for _ in range(500)]
    order = rng.permutation(5000)
    x = np.array(samples)[order]
    return (x - x.mean()) / x.std(), np.repeat(np.arange(10), 500)[order]


@pytest.fixture(scope="module")
def generated():
    return generate()


def test_the_generator_equals_the_slow_procedure_to_1e_12(generated):
    pytest.importorskip("scipy")
    x, y, x_test, y_test = generated
    slow_x, slow_y = _slow_mnist1d()
    np.testing.assert_allclose(np.concatenate([x, x_test]), slow_x, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(np.concatenate([y, y_test]), slow_y)


def test_the_generator_equals_the_frozen_set_bit_for_bit(real, generated):
    frozen = np.load(real("mnist1d.npz"))
    for key, array in zip(("x", "y", "x_test", "y_test"), generated, strict=True):
        np.testing.assert_array_equal(array.astype(frozen[key].dtype), frozen[key])


def test_the_split_is_3500_500_1000_and_nothing_is_lost(generated):
    data = mnist1d()
    assert [len(split.y) for split in (data.train, data.valid, data.test)] == [3500, 500, 1000]
    assert {split.x.dtype for split in (data.train, data.valid, data.test)} == {np.dtype("f4")}
    joined = np.concatenate([data.train.x, data.valid.x])
    np.testing.assert_array_equal(joined, generated[0].astype(np.float32))


def test_the_golden_statistics_hold(generated):
    x, y, x_test, y_test = generated
    whole = np.concatenate([x, x_test])
    assert abs(whole.mean()) < 1e-12
    assert abs(whole.std() - 1) < 1e-12
    assert np.bincount(np.concatenate([y, y_test])).tolist() == [500] * 10
    assert y[:8].tolist() == [2, 6, 4, 5, 6, 6, 6, 0]
    assert y_test[:8].tolist() == [2, 6, 3, 9, 4, 3, 1, 9]
    np.testing.assert_allclose(x[0, :3], [-0.33200567, -0.47191037, -0.77869708], atol=1e-8)
    np.testing.assert_allclose(x[3999, 39], -1.650992856752066, atol=1e-12)


def test_generating_leaves_the_global_random_numbers_alone():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    generate()
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
