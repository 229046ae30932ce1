"""NAS-Bench-201 cells measured by training them, on whatever data set there is."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Key

from jaxnas.cells import nas_bench_201
from jaxnas.cells.nas_bench_201_net import any_network
from jaxnas.core import Asked, Measured
from jaxnas.data.dataset import Dataset
from jaxnas.train.fit import Fitted, Recipe, trainer


class Trained(NamedTuple):
    """A `Problem` over NAS-Bench-201 cells; cost is epochs of training.

    Attributes:
      fit_many: `(key, genotypes, epochs) -> Fitted`.
      label: what `fitness` is, in words.
      reported_label: what `extra["test"]` is, in words.
    """

    fit_many: Callable[..., Fitted]
    label: str
    reported_label: str

    def sample(self, key: Key[Array, ""], n: int) -> Int[Array, "N 6"]:
        """Draws `n` cells uniformly."""
        return nas_bench_201.sample(key, n)

    def evaluate(self, key: Key[Array, ""], asked: Asked) -> Measured:
        """Trains every cell for its budget of epochs (-1: the recipe's), all at once.

        `extra` holds `test` accuracy (%), the training `loss` of each epoch and the step at which
        a cell `diverged` (-1 if it did not). Runs on the host, see `core.run_host`.
        """
        fitted = self.fit_many(key, asked.genotypes, asked.budget)
        extra = {"test": fitted.test, "loss": fitted.loss, "diverged": fitted.diverged}
        return Measured(fitted.valid, fitted.epochs.astype(jnp.float32), extra)


def trained(
    dataset: Dataset,
    recipe: Recipe,
    *,
    channels: int = 16,
    layers: int = 5,
    execution: str = "auto",
) -> Trained:
    """The problem of training NAS-Bench-201 cells on a data set of images or sequences.

    Args:
      dataset: what is learned.
      recipe: how; every candidate alike.
      channels: channels of the first stage, `C`.
      layers: cells per stage, `N`.
      execution: see `train.plan.choose`.
    """
    make = partial(any_network, classes=len(dataset.classes), channels=channels, layers=layers)
    note = f"; {dataset.note}" if dataset.note else ""
    how = f"{recipe.epochs} epochs, C={channels} N={layers}{note}"
    return Trained(
        trainer(make, dataset, recipe, execution=execution),
        f"{dataset.name} validation accuracy, % ({how})",
        f"{dataset.name} test accuracy, % ({how})",
    )


def random_cells(key: Key[Array, ""], n: int) -> Int[Array, "N 6"]:
    """`n` cells that are all different, as a baseline to train beside what was found."""
    codes = jax.random.choice(key, nas_bench_201.SIZE, (n,), replace=False)
    return nas_bench_201.from_code(codes)
