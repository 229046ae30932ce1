"""An archive of elites in plain Python: a dict, filled one candidate after another."""

import math


def nearest(centroids, where):
    """The closest centroid by brute force; the first of several."""
    apart = [sum((a - b) ** 2 for a, b in zip(where, c, strict=True)) for c in centroids]
    return apart.index(min(apart))


def share(value, low, high):
    """A descriptor in the unit interval, or NaN."""
    if not math.isfinite(value):
        return math.nan
    return min(max((value - low) / (high - low), 0.0), 1.0)


class Elites:
    """`cells` maps a cell to name, fitness and descriptor of its elite."""

    def __init__(self, centroids):
        self.centroids, self.cells = centroids, {}

    def add(self, name, fitness, where):
        """Whether it is now the elite of its cell."""
        if not all(map(math.isfinite, [fitness, *where])):
            return False
        at = nearest(self.centroids, where)
        if at in self.cells and self.cells[at][1] >= fitness:
            return False
        self.cells[at] = (name, fitness, where)
        return True
