"""Cells measured by training them, on whatever data set there is."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key, PyTree

from jaxnas.cells import darts_net, darts_space, nas_bench_201
from jaxnas.cells.nas_bench_201_net import any_network
from jaxnas.core import Asked, Measured
from jaxnas.data.dataset import Dataset
from jaxnas.train.fit import Fitted, join, trainer
from jaxnas.train.recipe import Recipe


class Trained(NamedTuple):
    """A `Problem` over cells; cost is epochs of training.

    Attributes:
      draw: `(key, n) -> genotypes`, uniformly from the space.
      fit_many: `(key, genotypes, epochs) -> Fitted`.
      label: what `fitness` is, in words.
      reported_label: what `extra["test"]` is, in words.
    """

    draw: Callable[[Key[Array, ""], int], PyTree]
    fit_many: Callable[..., Fitted]
    label: str
    reported_label: str

    def sample(self, key: Key[Array, ""], n: int) -> PyTree:
        """Draws `n` cells uniformly."""
        return self.draw(key, n)

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
    fit_many = trainer(make, dataset, recipe, execution=execution)
    return Trained(nas_bench_201.sample, fit_many, *_labels(dataset, recipe, channels, layers))


def trained_pairs(
    dataset: Dataset,
    recipe: Recipe,
    *,
    channels: int = 16,
    layers: int = 8,
    space: str = "darts",
) -> Trained:
    """The problem of training pairs of cells of the DARTS space, `[2, 8, 2]`.

    Their networks share no program: each different genotype is compiled and trained on its own.

    Args:
      dataset: what is learned.
      recipe: how; every candidate alike, without drop-path and auxiliary head.
      channels: channels of the first cells, `C`.
      layers: number of cells, `L`.
      space: name in `darts_space.SPACES`.
    """
    sizes: dict[str, Any] = {"classes": len(dataset.classes), "channels": channels}

    def fit_many(
        key: Key[Array, ""], genotypes: Int[Array, "N 2 8 2"], epochs: Int[Array, " N"]
    ) -> Fitted:
        @cache
        def fit(text: str, epochs: int) -> Fitted:
            network = darts_net.network(darts_space.from_text(text), layers=layers, **sizes)
            fit_one = trainer(lambda _: network, dataset, recipe)
            fitted = fit_one(key, jnp.zeros(1), jnp.array([epochs]))
            return fitted._replace(variables=())

        texts = map(darts_space.to_text, np.asarray(genotypes))
        return join([fit(t, int(e)) for t, e in zip(texts, epochs, strict=True)])

    draw = partial(darts_space.sample, space=space)
    return Trained(draw, fit_many, *_labels(dataset, recipe, channels, layers))


def _labels(dataset: Dataset, recipe: Recipe, channels: int, layers: int) -> tuple[str, str]:
    note = f"; {dataset.note}" if dataset.note else ""
    how = f"{recipe.epochs} epochs, C={channels} N={layers}{note}"
    return (
        f"{dataset.name} validation accuracy, % ({how})",
        f"{dataset.name} test accuracy, % ({how})",
    )


def random_cells(key: Key[Array, ""], n: int) -> Int[Array, "N 6"]:
    """`n` NAS-Bench-201 cells that are all different, to train beside what was found."""
    codes = jax.random.choice(key, nas_bench_201.SIZE, (n,), replace=False)
    return nas_bench_201.from_code(codes)
