"""What picking the best of `n` rows of a table gives on average, exactly."""

import numpy as np


def expected_pick(seen, told, n):
    """Mean of `told` of the best by `seen` among `n` rows without replacement, exactly."""
    group = np.unique(seen, return_inverse=True)[1]
    told = np.bincount(group, told) / np.bincount(group)  # of equals any may come first
    below = np.cumsum(np.bincount(group))
    total = len(seen)

    def none_above(rows):
        terms = np.where(np.arange(n) < rows[:, None], rows[:, None] - np.arange(n), 0.0)
        return (terms / (total - np.arange(n))).prod(1)

    return (np.diff(none_above(below), prepend=0.0) * told).sum()
