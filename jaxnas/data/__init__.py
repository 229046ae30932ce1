"""Data sets and benchmark tables as arrays.

`load("mnist1d")` returns a `Dataset`: three splits of numpy arrays with class names, statistics,
licence and source. Some sets are generated, the others are read from files the user has; nothing
is downloaded. `jaxnas.data.catalog` lists them all, `jaxnas.data.tables` reads NAS-Bench-201.
"""

from jaxnas.data.catalog import load
from jaxnas.data.dataset import DataError, Dataset, Split

__all__ = ["DataError", "Dataset", "Split", "load"]
