"""Whole searches driven by what a real model once said: Qwen2.5-Coder-0.5B-Instruct, Q4_K_M.

The replies are the model's; cells are looked up, sources go through the sandbox. Training alone is
replaced by a score of the program's size, since the model is told accuracies, which differ in the
last digit from machine to machine. To record anew, serve a model and look at the difference:

    PYTHONPATH=tests .venv/bin/python tests/recipes/test_recorded_runs.py URL MODEL
"""

import json
import sys
from collections import Counter
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.cells import nas_bench_201 as nb
from jaxnas.cells.tabular import tabular
from jaxnas.programs.bench import Bench, bench
from jaxnas.programs.judge import Score
from jaxnas.recipes import evoprompting, llmatic, programs
from jaxnas.recipes.conduct import start
from jaxnas.runs.store import Run

FOLDER = Path(__file__).with_name("recordings")
LLMATIC = llmatic.Config(
    evaluations=48, batch=8, cells=25, init_networks=4, init_prompts=4, rivals=1
)
EVOPROMPTING = evoprompting.Config(
    rounds=2, prompts=2, samples=3, survivors=2, threshold=1.0, steps=8, runs=1, max_tokens=400
)
# Accuracy of the programs that came up, by their parameters.
SCORES = {4810: 61.0, 5210: 73.0, 15210: 68.0, 91082: 70.0, 1612810: 74.0}


def sized(lesson, training, **settings):
    """A bench that checks for real and scores a program by its number of parameters."""
    desk, sizes = bench(lesson, training, **settings), {}

    def check(sources):
        verdicts = desk.check(sources)
        sizes.update({v.programs["step"]: v.params for v in verdicts if v.ok})
        return verdicts

    def train(programs, steps):
        scores = [SCORES.get(sizes[one["step"]], 60.0) for one in programs]
        return [Score(score, 50.0, steps, curve=(1.0, 0.5)) for score in scores]

    return Bench(check, train)


def searched(name, folder, **changes):
    """A run of one of the two recipes."""
    module, config = {"llmatic": (llmatic, LLMATIC), "evoprompting": (evoprompting, EVOPROMPTING)}[
        name
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "bench", sized)
        done = start(name, module.Config(**(vars(config) | changes)), folder)
    return done


@pytest.fixture(scope="module")
def replayed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recorded")
    return lambda name: searched(name, folder / name, replay=str(FOLDER / f"{name}.jsonl"))


def told(run: Run) -> dict[str, int]:
    return dict(Counter(row.failure or "measured" for row in run.candidates()))


def golden(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


def test_llmatic_searches_cells_by_recorded_replies(cell_table, replayed):
    done = replayed("llmatic")
    rows = done.run.candidates()
    assert len(rows) == LLMATIC.evaluations
    assert told(done.run) == golden("llmatic")
    table = tabular(cell_table, dataset="cifar10", split="valid")
    fitness = np.asarray(table.fitness)
    for row in rows:
        if row.fitness is not None:
            code = int(nb.code(jnp.asarray(nb.from_text(row.genotype))))
            assert row.fitness == pytest.approx(float(fitness[code]))
    assert done.best.metrics["fitness"] == max(row.fitness or 0 for row in rows)
    assert not any(call.outcome != "ok" for call in done.run.calls())


def test_evoprompting_searches_programs_by_recorded_replies(replayed):
    done = replayed("evoprompting")
    rows = done.run.candidates()
    assert len(rows) == 4 + 12
    assert told(done.run) == golden("evoprompting")
    parents = {n for row in rows for n in map(int, (row.parents or "").split())}
    assert parents
    assert max(parents) > 4, "a child became a parent"
    assert all(rows[n - 1].failure is None for n in parents)


if __name__ == "__main__":
    url, model = sys.argv[1:]
    FOLDER.mkdir(exist_ok=True)
    import tempfile

    for name in ("llmatic", "evoprompting"):
        file = FOLDER / f"{name}.jsonl"
        file.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            done = searched(name, Path(folder) / "run", base_url=url, model=model, record=str(file))
            (FOLDER / f"{name}.json").write_text(json.dumps(told(done.run)) + "\n")
