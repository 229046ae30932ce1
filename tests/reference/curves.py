"""Curves of training that need no training."""

import numpy as np


def power_laws(seed, n, length):
    """`a + b t^-c` with different levels, heights and exponents, `[n, length]`."""
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(3, 5, n), rng.uniform(0.5, 3, n), rng.uniform(0.3, 1.2, n)
    t = np.arange(1, length + 1)
    return (a[:, None] + b[:, None] * t ** -c[:, None]).astype(np.float32)
