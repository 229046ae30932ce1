"""MNIST-1D, generated from its constants: no file, a fifth of a second.

S. Greydanus and D. Kobak, Scaling Down Deep Learning with MNIST-1D, arXiv:2011.14439. Ten
hand-drawn signals of 12 points are padded, dilated, scaled, shifted, covered with noise and
sheared. In the paper a linear model reaches about 32 %, a convolutional one 94 %.

The random numbers are drawn sample by sample in the order of the published generator (numpy's
legacy stream, seed 42); the arithmetic is done on all samples at once and agrees with the
published procedure to 1e-12. As float32 it is bit for bit the frozen set.
"""

from typing import NamedTuple

import numpy as np

from jaxnas.data.dataset import Dataset, Split, hold_out

SAMPLES_PER_CLASS, TRAIN, HELD_OUT, SEED = 500, 4000, 500, 42
PADDING = (36, 60)
DILATED, LENGTH = 72, 40
SCALE, SHIFTS, SHEAR = 0.4, 48, 0.75
SMOOTH_NOISE, WHITE_NOISE, BLUR = 0.25, 0.02, 2
# Lifts the signal off exact zero: zero is how the padding is told from it later.
LIFT = 1e-8

TEMPLATES = (
    (5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5),
    (5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5),
    (5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5),
    (5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5),
    (5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5),
    (5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5),
    (5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5),
    (5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5),
    (5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5),
)


class _Draws(NamedTuple):
    """Every random number, one row a sample.

    Attributes:
        padding: Zeros appended, minus the least number, [N] int.
        scale: Factor on the amplitude, [N].
        shift: Circular shift to the right, [N] int.
        noise: Smooth and white noise before scaling, [N, 2, 72].
        shear: Slope taken off, [N].
        order: Shuffle of the samples, [N] int.
    """

    padding: np.ndarray
    scale: np.ndarray
    shift: np.ndarray
    noise: np.ndarray
    shear: np.ndarray
    order: np.ndarray


def mnist1d() -> Dataset:
    """MNIST-1D as a data set: 3,500 for training, the last 500 held out, 1,000 for test.

    Returns:
        Signals float32 [N, 40], standardised over the whole set by the generator.
    """
    x, y, x_test, y_test = generate()
    train, valid = hold_out(Split(x.astype(np.float32), y), HELD_OUT)
    return Dataset(
        name="mnist1d",
        train=train,
        valid=valid,
        test=Split(x_test.astype(np.float32), y_test),
        classes=tuple(str(digit) for digit in range(10)),
        mean=(0.0,),
        std=(1.0,),
        licence="generated here; the original generator is Apache-2.0",
        source="Greydanus and Kobak 2020, arXiv:2011.14439",
    )


def generate() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The published procedure in double precision.

    Pad with zeros, dilate to 72 points, scale, shift in a circle, put smooth noise where the
    signal is zero and white noise everywhere, shear, subsample to 40 points; then shuffle and
    standardise over all samples.

    Returns:
        `x_train` float64 [4000, 40], `y_train` int32 [4000], `x_test` [1000, 40], `y_test` [1000].
    """
    y = np.repeat(np.arange(10, dtype=np.int32), SAMPLES_PER_CLASS)
    draws = _draw(len(y))
    x = _dilated_templates()[y, draws.padding] * draws.scale[:, None]
    x = np.take_along_axis(x, (np.arange(DILATED) - draws.shift[:, None]) % DILATED, axis=1)
    smooth, white = SMOOTH_NOISE * draws.noise[:, 0], WHITE_NOISE * draws.noise[:, 1]
    x = np.where(x != 0, x, _blur(smooth)) + white
    x = x - draws.shear[:, None] * np.linspace(-0.5, 0.5, DILATED)
    x = (x @ _linear_weights(DILATED, LENGTH))[draws.order]
    x = (x - x.mean()) / x.std()
    y = y[draws.order]
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


def _draw(n: int) -> _Draws:
    """Draw sample by sample: the order of the calls is part of the data set."""
    rng = np.random.RandomState(SEED)
    least, most = PADDING
    rows = [
        (
            int(rng.rand() * (most - least + 1)),
            1 + SCALE * (rng.rand() - 0.5),
            rng.randint(SHIFTS),
            rng.randn(2, DILATED),
            SHEAR * (rng.rand() - 0.5),
        )
        for _ in range(n)
    ]
    return _Draws(*map(np.array, zip(*rows, strict=True)), order=rng.permutation(n))


def _dilated_templates() -> np.ndarray:
    """Each standardised template with each padding, stretched to 72 points, [10, 25, 72]."""
    raw = np.array(TEMPLATES)
    raw = (raw - raw.mean(1, keepdims=True)) / raw.std(1, keepdims=True)
    raw = (raw - raw[:, :1]) / 6 + LIFT
    widths = [raw.shape[1] + zeros for zeros in range(PADDING[0], PADDING[1] + 1)]
    padded = [np.pad(raw, ((0, 0), (0, width - raw.shape[1]))) for width in widths]
    return np.stack([_stretch(rows, DILATED) for rows in padded], axis=1)


def _stretch(rows: np.ndarray, length: int) -> np.ndarray:
    """Linear interpolation of each row to `length` points."""
    old, new = np.linspace(0, 1, rows.shape[1]), np.linspace(0, 1, length)
    return np.array([np.interp(new, old, row) for row in rows])


def _linear_weights(old: int, new: int) -> np.ndarray:
    """Linear interpolation as a matrix [old, new]."""
    return _stretch(np.eye(old), new)


def _blur(rows: np.ndarray) -> np.ndarray:
    """Gaussian filter cut at four deviations, the signal mirrored at both ends."""
    reach = 4 * BLUR
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / BLUR) ** 2)
    padded = np.pad(rows, ((0, 0), (reach, reach)), mode="symmetric")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=1)
    return windows @ (kernel / kernel.sum())
