"""NAS-Bench-201 by its table: measuring a cell is a gather, so whole searches run inside `scan`.

Dong & Yang, arXiv:2001.00326. What a number means depends on data set, split and epochs; `label`
says it, and is printed beside every number.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxnas.cells import nas_bench_201
from jaxnas.core import Asked, Measured
from jaxnas.data.tables import Nasbench201Table

COLUMNS = {
    ("valid", 200): "valid",
    ("test", 200): "test",
    ("valid", 12): "valid_12",
    ("test", 12): "test_12",
    ("test_seed888", 200): "test_seed888",
}
SEEDS = {12: "the 12-epoch series", 200: "mean over the stored seeds"}
NAMES = {"valid": "validation", "test": "test", "test_seed888": "test"}


class Tabular(NamedTuple):
    """A `Problem` over NAS-Bench-201 cells; every query costs 1.

    Attributes:
      fitness: `[15625]` what the search sees, by `nas_bench_201.code`; %.
      reported: `[15625]` what is reported of a cell and comes back as `extra`; %.
      label: what `fitness` is, in words.
      reported_label: what `reported` is, in words.
    """

    fitness: Float[Array, " cells"]
    reported: Float[Array, " cells"]
    label: str
    reported_label: str

    def sample(self, key: Key[Array, ""], n: int) -> Int[Array, "N 6"]:
        """Draws `n` cells uniformly."""
        return nas_bench_201.sample(key, n)

    def evaluate(self, key: Key[Array, ""], asked: Asked) -> Measured:
        """Looks the cells up; budgets are not looked at, a query is a query."""
        del key
        code = nas_bench_201.code(asked.genotypes)
        cost = jnp.ones(code.shape, jnp.float32)
        return Measured(self.fitness[code], cost, self.reported[code])


def tabular(
    table: Nasbench201Table,
    *,
    dataset: str = "cifar10",
    split: str = "valid",
    epochs: int = 200,
    report: str = "test",
) -> Tabular:
    """The tabular problem for one data set, split and length of training.

    Args:
      table: from `data.tables.nas_bench_201()`.
      dataset: `cifar10`, `cifar100` or `ImageNet16-120`.
      split: what the search sees: `valid`, `test` or `test_seed888`.
      epochs: how long the networks in the table were trained, 12 or 200.
      report: split of the 200-epoch accuracy that is reported.

    Raises:
      ValueError: for a data set, split or length that the table does not have.
    """
    if dataset not in table.datasets:
        raise ValueError(
            f"`dataset` must be one of {', '.join(table.datasets)}, but got {dataset!r}."
        )
    column = table.datasets.index(dataset)

    def values(split: str, epochs: int) -> Float[Array, " cells"]:
        if (split, epochs) not in COLUMNS:
            known = ", ".join(f"{s} after {e}" for s, e in COLUMNS)
            raise ValueError(
                f"The table has no accuracy {split!r} after {epochs} epochs: set `split` and "
                f"`epochs` to one of {known}."
            )
        by_code = np.empty(nas_bench_201.SIZE, np.float32)
        accuracy = getattr(table, COLUMNS[split, epochs])[:, column]
        by_code[np.asarray(nas_bench_201.code(jnp.asarray(table.ops)))] = accuracy
        return jnp.asarray(by_code)

    return Tabular(
        values(split, epochs),
        values(report, 200),
        _label(dataset, split, epochs),
        _label(dataset, report, 200),
    )


def _label(dataset: str, split: str, epochs: int) -> str:
    seeds = "seed 888" if split == "test_seed888" else SEEDS[epochs]
    return f"{dataset} {NAMES[split]} accuracy, % (NAS-Bench-201, {epochs} epochs, {seeds})"


def official_index(table: Nasbench201Table, genotype: np.ndarray) -> int:
    """Row of a cell in the benchmark's own order, which only its table knows."""
    return int(np.flatnonzero((table.ops == np.asarray(genotype)).all(1))[0])


def from_official_index(table: Nasbench201Table, index: int) -> np.ndarray:
    """The cell at a row of the benchmark's own order.

    Raises:
      ValueError: if the row does not exist.
    """
    if not 0 <= index < len(table.ops):
        raise ValueError(f"`index` must be between 0 and {len(table.ops) - 1}, but got {index}.")
    return table.ops[index]
