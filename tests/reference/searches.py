"""Every search there is, small, each with the problem that judges its answer."""

from functools import partial

import jax
import jax.numpy as jnp
from reference.toy_supernet import CHOICES, toy_supernet

from jaxnas.cells import nas_bench_201 as nb
from jaxnas.cells.tabular import Tabular, tabular
from jaxnas.core import close
from jaxnas.data import dataset, tables
from jaxnas.data.toy import waves
from jaxnas.evolve.archive import Axis, grid
from jaxnas.evolve.bit_string import BitString
from jaxnas.evolve.map_elites import map_elites
from jaxnas.evolve.random_search import random_search
from jaxnas.evolve.regularized import regularized_evolution
from jaxnas.oneshot.bilevel import Schedule, bilevel
from jaxnas.oneshot.darts import darts
from jaxnas.oneshot.drnas import drnas
from jaxnas.oneshot.pc_darts import pc_darts
from jaxnas.oneshot.sdarts import sdarts
from jaxnas.oneshot.sgas import sgas
from jaxnas.train.batches import halves, on_device


def cells():
    """NAS-Bench-201 by its table, or by one of random numbers where there is none."""
    if dataset.find(tables.FILE) is not None:
        return tabular(tables.nas_bench_201())
    values = jax.random.uniform(jax.random.key(0), (nb.SIZE,), jnp.float32, 0.0, 100.0)
    return Tabular(values, values, "random", "random")


def evolution(problem, **settings):
    space = nb if isinstance(problem, Tabular) else problem
    return close(regularized_evolution(problem.sample, space.mutate, **settings), problem), problem


def sampling():
    problem = cells()
    return close(random_search(problem.sample, batch=3), problem), problem


def elites():
    problem = cells()
    searcher = map_elites(
        problem.sample,
        lambda key, elite, _: nb.mutate(key, elite),
        lambda asked, measured: asked.genotypes[:, :2].astype(jnp.float32),
        axes=(Axis("first edge", 0, 4), Axis("second edge", 0, 4)),
        centroids=grid(2, 2),
        batch=3,
        founders=6,
    )
    return close(searcher, problem), problem


def gradient(relaxation, **schedule):
    data = waves(length=12, n=48)
    train, valid = halves(on_device(data, data.train))
    schedule = Schedule(epochs=3, batch=8, learning_rate=0.1, **schedule)
    return bilevel(toy_supernet(), train, valid, relaxation, schedule), cells()


RATE = {"learning_rate": 0.01}
SEARCHES = {
    "random search": sampling,
    "aging evolution": lambda: evolution(cells(), population=4, tournament=2),
    "aging evolution in batches": lambda: evolution(cells(), population=6, tournament=3, batch=3),
    "aging evolution of bits": lambda: evolution(BitString(9), population=4, tournament=2, batch=2),
    "MAP-Elites": elites,
    "DARTS first order": lambda: gradient(darts(CHOICES, **RATE)),
    "DARTS second order": lambda: gradient(darts(CHOICES, **RATE), order="second"),
    "DARTS exact order": lambda: gradient(darts(CHOICES, **RATE), order="exact"),
    "DrNAS l2": lambda: gradient(drnas(CHOICES, **RATE)),
    "PC-DARTS": lambda: gradient(pc_darts(CHOICES, **RATE)),
    "SDARTS random": lambda: gradient(sdarts(darts(CHOICES, **RATE))),
    "SDARTS adversarial": lambda: gradient(sdarts(darts(CHOICES, **RATE), form="adversarial")),
    "SGAS": lambda: gradient(sgas(CHOICES, per_epoch=2, first=0, every=1, **RATE)),
    "DrNAS kl": lambda: gradient(drnas(CHOICES, **RATE, regulariser="kl", strength=0.1)),
}


def plain(leaf):
    """A leaf as numpy; a key as its data."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    return jax.device_get(leaf)


def compare(ours, theirs, tolerance):
    """Integers exactly, floats within a tolerance (0: bit for bit), types and shapes always."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(partial(compare_leaf, tolerance=tolerance), ours, theirs)


def compare_leaf(ours, theirs, tolerance):
    import numpy as np

    ours, theirs = plain(ours), plain(theirs)
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    if tolerance and np.issubdtype(ours.dtype, np.floating):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    else:
        np.testing.assert_array_equal(ours, theirs)
