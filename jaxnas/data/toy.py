"""Toy sets drawn from a seed: small, balanced, for tests, notebooks and first runs.

Every function draws twice as many examples as it trains on: `n` for training, half as many each
for validation and test. The same arguments give the same arrays.
"""

from collections.abc import Callable

import numpy as np

from jaxnas.data.dataset import Dataset, Split

LICENCE, SOURCE = "generated here", "jaxnas.data.toy"
WAVES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "sine": lambda turns: np.sin(2 * np.pi * turns),
    "square": lambda turns: np.sign(0.5 - turns % 1),
    "sawtooth": lambda turns: 2 * (turns % 1) - 1,
    "triangle": lambda turns: 4 * np.abs(turns % 1 - 0.5) - 1,
}
SHAPES = ("square", "circle", "rows", "columns")


def blobs(n: int = 256, classes: int = 3, features: int = 2, seed: int = 0) -> Dataset:
    """Gaussian clouds of unit width around random centres.

    Args:
        n: Training examples, at least 2.
        classes: How many clouds, at least 2.
        features: Dimensions.
        seed: Seed of every draw.

    Returns:
        Points float32 [N, features].

    Raises:
        ValueError: If `n` or `classes` is below 2.
    """
    if classes < 2:
        raise ValueError(f"`classes` must be at least 2, but is {classes}.")
    rng = np.random.default_rng(seed)
    y = _labels(rng, n, classes)
    centres = 4 * rng.standard_normal((classes, features))
    x = centres[y] + rng.standard_normal((len(y), features))
    return _signals("blobs", x, y, n, tuple(f"cloud {label}" for label in range(classes)))


def two_moons(n: int = 256, noise: float = 0.1, seed: int = 0) -> Dataset:
    """Two half circles, each reaching into the other: no line separates them.

    Args:
        n: Training examples, at least 2.
        noise: Standard deviation of the noise; the circles have radius 1.
        seed: Seed of every draw.

    Returns:
        Points float32 [N, 2].

    Raises:
        ValueError: If `n` is below 2.
    """
    rng = np.random.default_rng(seed)
    y = _labels(rng, n, 2)
    angle = np.pi * (rng.random(len(y)) + y)
    x = np.stack([np.cos(angle) + y, np.sin(angle) + 0.5 * y], axis=1)
    x = x + noise * rng.standard_normal(x.shape)
    return _signals("two_moons", x, y, n, ("upper", "lower"))


def waves(length: int = 40, n: int = 256, noise: float = 0.2, seed: int = 0) -> Dataset:
    """Sine, square, sawtooth and triangle waves of random frequency and phase.

    Args:
        length: Points a signal.
        n: Training examples, at least 2.
        noise: Standard deviation of the noise; the waves have amplitude 1.
        seed: Seed of every draw.

    Returns:
        Signals float32 [N, length].

    Raises:
        ValueError: If `n` is below 2.
    """
    rng = np.random.default_rng(seed)
    y = _labels(rng, n, len(WAVES))
    frequency, phase = rng.uniform(1, 3, (len(y), 1)), rng.random((len(y), 1))
    turns = frequency * np.linspace(0, 1, length, endpoint=False) + phase
    x = np.choose(y[:, None], [wave(turns) for wave in WAVES.values()])
    x = x + noise * rng.standard_normal(x.shape)
    return _signals("waves", x, y, n, tuple(WAVES))


def shapes(size: int = 8, n: int = 256, seed: int = 0) -> Dataset:
    """Squares, circles and stripes in a random colour on a darker background.

    Args:
        size: Pixels a side, at least 8.
        n: Training examples, at least 2.
        seed: Seed of every draw.

    Returns:
        Images uint8 [N, size, size, 3]; the colour says nothing about the class.

    Raises:
        ValueError: If `size` is below 8 or `n` below 2.
    """
    if size < 8:
        raise ValueError(f"`size` must be at least 8 to tell the shapes apart, but is {size}.")
    rng = np.random.default_rng(seed)
    y = _labels(rng, n, len(SHAPES))
    mask = _masks(rng, y, size)[..., None]
    ink, ground = (rng.uniform(*span, (len(y), 1, 1, 3)) for span in ((120, 256), (0, 80)))
    noise = 8 * rng.standard_normal((len(y), size, size, 3))
    x = np.clip(np.where(mask, ink, ground) + noise, 0, 255).astype(np.uint8)
    pixels = x[:n].astype(np.float64) / 255
    mean, std = pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))
    return _dataset("shapes", x, y, n, SHAPES, (tuple(mean.tolist()), tuple(std.tolist())))


def _masks(rng: np.random.Generator, y: np.ndarray, size: int) -> np.ndarray:
    """Where the ink is, bool [N, size, size]."""
    centre = (size - 1) / 2 + rng.uniform(-1, 1, (2, len(y), 1, 1)) * size / 8
    row, column = np.indices((size, size))
    across, down = np.abs(column - centre[0]), np.abs(row - centre[1])
    radius = size * rng.uniform(0.26, 0.36, (len(y), 1, 1))
    start = rng.integers(0, 4, (len(y), 1, 1))
    options = [
        np.maximum(across, down) <= radius,
        across**2 + down**2 <= (1.1 * radius) ** 2,
        np.broadcast_to((row + start) // 2 % 2 == 0, (len(y), size, size)),
        np.broadcast_to((column + start) // 2 % 2 == 0, (len(y), size, size)),
    ]
    return np.choose(y[:, None, None], options)


def _labels(rng: np.random.Generator, n: int, classes: int) -> np.ndarray:
    """Shuffled labels for training, validation and test, each class as often as the next."""
    if n < 2:
        raise ValueError(f"`n` must be at least 2, half as many are held out, but is {n}.")
    parts = [rng.permutation(np.arange(size) % classes) for size in (n, n // 2, n // 2)]
    return np.concatenate(parts).astype(np.int32)


def _signals(name: str, x: np.ndarray, y: np.ndarray, n: int, classes: tuple[str, ...]) -> Dataset:
    """A set of float32 points or signals, standardised by its training part."""
    x = (x - x[:n].mean()) / x[:n].std()
    return _dataset(name, x.astype(np.float32), y, n, classes, ((0.0,), (1.0,)))


def _dataset(
    name: str,
    x: np.ndarray,
    y: np.ndarray,
    n: int,
    classes: tuple[str, ...],
    scale: tuple[tuple[float, ...], tuple[float, ...]],
) -> Dataset:
    """The three splits, in the order they were drawn."""
    last = n + n // 2
    return Dataset(
        name=name,
        train=Split(x[:n], y[:n]),
        valid=Split(x[n:last], y[n:last]),
        test=Split(x[last:], y[last:]),
        classes=classes,
        mean=scale[0],
        std=scale[1],
        licence=LICENCE,
        source=SOURCE,
    )
