"""Tiny traces that must not change unnoticed, rounded to survive other CPUs and versions of JAX.

After a change that is meant to change them, write them anew and look at the difference:

    PYTHONPATH=tests .venv/bin/python tests/golden/test_golden.py && git diff tests/golden
"""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from reference.toy_supernet import toy_supernet

from jaxnas.cells import nas_bench_201 as nb
from jaxnas.cells.tabular import tabular
from jaxnas.core import close, run_scan
from jaxnas.data import dataset, tables
from jaxnas.data.toy import waves
from jaxnas.evolve.regularized import regularized_evolution
from jaxnas.oneshot.bilevel import Schedule, bilevel
from jaxnas.oneshot.darts import darts
from jaxnas.oneshot.nas_bench_201 import supernet
from jaxnas.train.batches import compute_dtype, halves, on_device

FOLDER, DIGITS, TOLERANCE = Path(__file__).parent, 4, 1e-3


def aging_evolution():
    problem = tabular(tables.nas_bench_201(), dataset="cifar100")
    search = close(regularized_evolution(nb.sample, nb.mutate, population=6, tournament=3), problem)
    state, info = run_scan(search, jax.random.key(201), 24)
    return {
        "cells": [nb.to_text(cell) for cell in np.asarray(info["asked"].genotypes)[:, 0]],
        "validation": info["measured"].fitness[:, 0],
        "best": info["fitness"],
        "answer": nb.to_text(search.best(state)),
    }


def darts_on_waves():
    """The machine on a supernet of a few matrices."""
    return darts_trace(toy_supernet())


def darts_on_cells():
    """The machine on the supernet of NAS-Bench-201."""
    return darts_trace(supernet(classes=4, channels=2, layers=1))


def darts_trace(net):
    data = waves(length=12, n=32)
    train, valid = halves(on_device(data, data.train))
    relaxation = darts(net.choices, learning_rate=0.01)
    schedule = Schedule(epochs=2, batch=8, learning_rate=0.02)
    search = bilevel(net, train, valid, relaxation, schedule)
    state, info = run_scan(search, jax.random.key(1), 4)
    names = ("train_loss", "valid_loss", "entropy", "skips")
    return {**{name: info[name] for name in names}, "alphas": state.alphas}


TRACES = {
    "aging_evolution": aging_evolution,
    "darts_on_waves": darts_on_waves,
    "darts_on_cells": darts_on_cells,
}
SLOW = ("darts_on_cells",)
NEEDS = {"aging_evolution": tables.FILE}
FLOAT32_ONLY = ("darts_on_waves", "darts_on_cells")  # accelerators compute in bfloat16


def written(trace):
    """Numbers rounded, texts as they are."""

    def one(value):
        if isinstance(value, str) or (isinstance(value, list) and isinstance(value[0], str)):
            return value
        return np.asarray(value, np.float64).round(DIGITS).tolist()

    return {name: one(value) for name, value in trace.items()}


def missing(name):
    return name in NEEDS and dataset.find(NEEDS[name]) is None


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in TRACES]
)
def test_a_trace_is_the_one_on_record(name):
    if missing(name):
        pytest.skip(f"{NEEDS[name]} is in none of the data folders")
    if name in FLOAT32_ONLY and jax.default_backend() != "cpu":
        pytest.skip(f"computed in {compute_dtype()} on {jax.default_backend()}")
    recorded = json.loads((FOLDER / f"{name}.json").read_text())
    trace = written(TRACES[name]())
    assert set(trace) == set(recorded)
    for field, value in recorded.items():
        if isinstance(value, str) or isinstance(value[0], str):
            assert trace[field] == value, field
        else:
            np.testing.assert_allclose(
                trace[field], value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=field
            )


if __name__ == "__main__":
    for name, make in TRACES.items():
        if not missing(name):
            text = json.dumps(written(make()), indent=1)
            (FOLDER / f"{name}.json").write_text(text + "\n")
