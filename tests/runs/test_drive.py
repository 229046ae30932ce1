import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_search
from jax.experimental.compilation_cache import compilation_cache
from toy_search import EVERY, SEEDS, STEPS, bits, fresh, go, keys_of, resumed, rows, text

from jaxnas.core import (
    Asked,
    Leg,
    Measured,
    Search,
    legs_over_seeds,
    over_seeds,
    run_chunks,
)
from jaxnas.runs import BrokenRunError, Candidate, Snapshot, Step, create, open_run
from jaxnas.runs.checkpoint import Checkpoints
from jaxnas.runs.drive import drive
from jaxnas.runs.unstack import unstack

pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("quick_compile"),
]
SCRIPT = Path(toy_search.__file__)
MOMENTS = (
    "inside the transaction",
    "between ledger and checkpoint",
    "while the checkpoint is being written",
)


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Lets all runs here, child processes included, share three compiled programs."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for values in (options, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is options:
            yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, fresh(folder)


def child(folder, moment):
    shared = {
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    command = [sys.executable, str(SCRIPT), str(folder), moment]
    return subprocess.Popen(command, env={**os.environ, **shared}, stderr=subprocess.PIPE)


def until_saved(process, folder):
    while sum(path.name.isdigit() for path in folder.glob("state/*")) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def killed(folder, moment):
    process = child(folder, moment)
    said = process.communicate()[1]
    assert process.returncode == -signal.SIGKILL, said


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_continues_as_if_nothing_had_happened(tmp_path, whole, moment):
    killed(tmp_path / "run", moment)
    run = open_run(tmp_path / "run")
    assert run.meta()["status"] == "running"
    recorded = {row.step for row in run.steps()}
    assert recorded == set(range(1, 1 + EVERY * (2 if moment == MOMENTS[0] else 3)))
    with Checkpoints(tmp_path / "run" / "state") as checkpoints:
        assert 0 < checkpoints.latest() < STEPS
    done = resumed(tmp_path / "run")
    assert bits(done.state) == bits(whole[1].state)
    assert rows(tmp_path / "run") == rows(whole[0])
    assert run.meta()["status"] == "finished"


def test_a_run_killed_from_outside_at_any_time_continues_too(tmp_path):
    folder = tmp_path / "run"
    process = child(folder, "never")
    until_saved(process, folder)
    process.kill()
    process.communicate()
    with Checkpoints(folder / "state") as checkpoints:
        end = EVERY * (checkpoints.latest() // EVERY + 3)
    done, other = resumed(folder, steps=end), fresh(tmp_path / "other", steps=end)
    assert bits(done.state) == bits(other.state)
    assert rows(folder) == rows(tmp_path / "other")


def test_an_interrupt_signal_ends_a_run_that_continues_the_same(tmp_path):
    folder = tmp_path / "run"
    process = child(folder, "never")
    until_saved(process, folder)
    process.send_signal(signal.SIGINT)
    assert b"KeyboardInterrupt" in process.communicate()[1]
    run = open_run(folder)
    assert run.meta()["status"] == "interrupted"
    end = EVERY * (run.last() // EVERY + 2)
    done, other = resumed(folder, steps=end), fresh(tmp_path / "other", steps=end)
    assert bits(done.state) == bits(other.state)
    assert rows(folder) == rows(tmp_path / "other")


def test_with_the_newest_checkpoint_truncated_the_run_still_ends_the_same(tmp_path, whole):
    fresh(tmp_path / "run", steps=12)
    newest = tmp_path / "run" / "state" / "12"
    for path in [path for path in newest.rglob("*") if path.is_file()]:
        path.write_bytes(path.read_bytes()[:10])
    done = resumed(tmp_path / "run")
    assert bits(done.state) == bits(whole[1].state)
    assert rows(tmp_path / "run") == rows(whole[0])


class Interrupting:
    """Presses Ctrl-C after a step."""

    def __init__(self, at):
        self.at, self.seen = at, []

    def update(self, step, best=None):
        self.seen.append((step, best))
        if step == self.at:
            raise KeyboardInterrupt


def test_ctrl_c_leaves_a_consistent_run_and_is_raised_again(tmp_path, whole):
    folder, display = tmp_path / "run", Interrupting(12)
    with pytest.raises(KeyboardInterrupt):
        fresh(folder, progress=display)
    assert [step for step, _ in display.seen] == [0, 4, 8, 12]
    run = open_run(folder)
    assert run.meta()["status"] == "interrupted"
    assert {row.step for row in run.steps()} == set(range(1, 13))
    assert display.seen[-1][1] == max(row.metrics["fitness"] for row in run.steps())
    seconds = run.meta()["seconds"]
    done = resumed(folder)
    assert bits(done.state) == bits(whole[1].state)
    assert rows(folder) == rows(whole[0])
    assert done.seconds > seconds > 0
    assert run.meta()["ms_per_step"] == done.ms_per_step > 0


@pytest.mark.parametrize("moment", ["before", "after"])
def test_ctrl_c_around_a_checkpoint_never_leaves_the_ledger_behind_it(
    tmp_path, whole, monkeypatch, moment
):
    save = Checkpoints.save

    def interrupted(self, step, state):
        if moment == "after" or step < 12:
            save(self, step, state)
        if step == 12:
            monkeypatch.setattr(Checkpoints, "wait", lambda self: 1 / 0)  # Orbax was hit as well
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoints, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fresh(tmp_path / "run")
    monkeypatch.undo()
    run = open_run(tmp_path / "run")
    assert run.meta()["status"] == "interrupted"
    with Checkpoints(tmp_path / "run" / "state") as checkpoints:
        assert checkpoints.latest() == (12 if moment == "after" else 8)
    assert run.last() == 12
    assert bits(resumed(tmp_path / "run").state) == bits(whole[1].state)
    assert rows(tmp_path / "run") == rows(whole[0])


def test_a_ledger_older_than_the_state_is_refused(tmp_path):
    folder = tmp_path / "run"
    fresh(folder, steps=8)
    with open_run(folder) as run:
        run.rewind(4)
    with pytest.raises(BrokenRunError, match="a state of step 8, but its ledger ends at 4"):
        resumed(folder)
    assert open_run(folder).last() == 4


def test_a_full_disk_stops_the_run_and_it_continues_once_there_is_space(
    tmp_path, whole, monkeypatch
):
    save = Checkpoints.save

    def full(self, step, state):
        if step == 12:
            raise OSError("No space left on device")
        save(self, step, state)

    monkeypatch.setattr(Checkpoints, "save", full)
    with pytest.raises(OSError, match="No space left"):
        fresh(tmp_path / "run")
    monkeypatch.undo()
    assert open_run(tmp_path / "run").meta()["status"] == "interrupted"
    assert bits(resumed(tmp_path / "run").state) == bits(whole[1].state)
    assert rows(tmp_path / "run") == rows(whole[0])


def test_a_finished_run_is_left_alone_and_can_be_made_longer(tmp_path, whole):
    folder = tmp_path / "run"
    fresh(folder, steps=8)
    before = rows(folder)
    again = resumed(folder, steps=8)
    assert (again.step, rows(folder)) == (8, before)
    assert bits(resumed(folder).state) == bits(whole[1].state)
    assert rows(folder) == rows(whole[0])


def test_the_state_of_another_configuration_is_refused_and_nothing_changes(tmp_path):
    folder = tmp_path / "run"
    fresh(folder, steps=8)
    before = rows(folder)
    legs = legs_over_seeds([Leg(toy_search.SEARCH, STEPS)])
    with open_run(folder) as run, pytest.raises(ValueError, match="the configuration differs"):
        drive(run, legs, keys_of(SEEDS + 1), every=EVERY, to_text=text)
    assert rows(folder) == before
    assert open_run(folder).meta()["status"] == "finished"


@pytest.mark.parametrize("mode", ["step", "host"])
def test_step_by_step_continues_and_records_the_same_candidates_as_a_scan(tmp_path, whole, mode):
    fresh(tmp_path / "run", mode=mode, steps=8)
    resumed(tmp_path / "run", mode=mode)
    candidates = rows(tmp_path / "run")[2]
    assert [c.genotype for c in candidates] == [c.genotype for c in rows(whole[0])[2]]


def test_the_ledger_holds_what_the_search_said(tmp_path):
    """The rows of a run, against plain loops over the same search."""
    search = over_seeds(toy_search.SEARCH)
    fresh(tmp_path / "run", steps=10)
    steps, snapshots, candidates = [], [], []
    for last, _, info in run_chunks(search, keys_of(SEEDS), 10, every=EVERY):
        info = jax.tree.map(np.asarray, info)
        count = len(info["fitness"])
        for t in range(count):
            for s in range(SEEDS):
                values = {
                    "fitness": info["fitness"][t, s],
                    "loss/skips": info["loss"]["skips"][t, s],
                    "loss/train": info["loss"]["train"][t, s],
                }
                plain = {k: v.item() if np.isfinite(v) else None for k, v in values.items()}
                steps.append(Step(last - count + 1 + t, s, plain))
                for n in range(2):
                    genotype = text(info["asked"].genotypes[t, s, n])
                    fitness = float(info["measured"].fitness[t, s, n])
                    ok = np.isfinite(fitness)
                    row = last - count + 1 + t, s, n, genotype, fitness if ok else None, 1.0
                    candidates.append(Candidate(*row, None if ok else "non-finite"))
        weights = info["weights"][-1].tolist()
        snapshots += [Snapshot(last, s, "weights", weights[s]) for s in range(SEEDS)]
    found = rows(tmp_path / "run")
    assert [row.step for row in found[1]] == [4] * 3 + [8] * 3 + [10] * 3
    assert found == (steps, sorted(snapshots), candidates)
    assert any(row.metrics["loss/train"] is None for row in found[0])
    assert {row.failure for row in found[2]} == {None, "non-finite"}


def test_a_search_without_candidates_or_scalars_is_recorded_too():
    rows = unstack({"w": np.ones((2, 3, 4))}, 10, str)
    assert rows.steps == [Step(step, seed, {}) for step in (9, 10) for seed in range(3)]
    assert [row.step for row in rows.snapshots] == [10, 10, 10]
    assert rows.candidates == []


def test_genotypes_of_several_leaves_reach_to_text_whole():
    genotypes = {"a": np.arange(12).reshape(2, 3, 2), "b": np.arange(24).reshape(2, 3, 2, 2)}
    asked = Asked(genotypes, np.zeros((2, 3, 2)))
    measured = Measured(np.zeros((2, 3, 2)), np.ones((2, 3, 2)))
    say = lambda g: f"{g['a']}:{g['b'].tolist()}"  # noqa: E731
    found = unstack({"asked": asked, "measured": measured}, 2, say).candidates
    assert found[7] == Candidate(2, 0, 1, "7:[14, 15]", 0.0, 1.0)


def test_parents_are_recorded_as_the_numbers_that_are_not_zero():
    parents = np.array([[[[0, 0]], [[0, 0]]], [[[1, 0]], [[2, 17]]]])  # two steps, two seeds
    asked = Asked(np.zeros((2, 2, 1)), np.zeros((2, 2, 1)), parents)
    measured = Measured(np.array([[[1.0], [1.0]], [[1.0], [-np.inf]]]), np.ones((2, 2, 1)))
    found = unstack({"asked": asked, "measured": measured}, 2, str, ("", "time")).candidates
    assert [row.parents for row in found] == [None, None, "1", "2 17"]
    assert [row.failure for row in found] == [None, None, None, "non-finite"]


def test_recording_many_seeds_takes_seconds_not_minutes():
    shape = (50, 1000, 1)
    genotypes = np.random.default_rng(0).integers(0, 5, (*shape, 6)).astype(np.int8)
    info = {
        "fitness": np.random.default_rng(1).random(shape[:2]).astype(np.float32),
        "asked": Asked(genotypes, np.zeros(shape)),
        "measured": Measured(np.ones(shape), np.ones(shape)),
    }
    began = time.process_time()
    assert len(unstack(info, 50, lambda g: g.tobytes().hex()).candidates) == 50_000
    assert time.process_time() - began < 5


def test_a_chunk_is_one_row_of_means_and_of_the_last_of_what_is_counted():
    info = {
        "loss": np.array([[1.0, 5.0], [2.0, np.nan], [6.0, 1.0]], np.float32),
        "diverged": np.array([[-1, -1], [-1, 8], [-1, 8]], np.int32),
        "weights": np.arange(12.0).reshape(3, 2, 2),
    }
    rows = unstack(info, 10, str, averaged=True)
    told = [{"loss": 3.0, "diverged": -1}, {"loss": None, "diverged": 8}]
    assert rows.steps == [Step(10, seed, metrics) for seed, metrics in enumerate(told)]
    assert rows.snapshots == unstack(info, 10, str).snapshots


def test_a_run_that_was_not_locked_is_not_driven(tmp_path):
    with pytest.raises(ValueError, match="inside `with run:`"):
        go(create(tmp_path / "run", {}))


@pytest.mark.parametrize(("argument", "more"), [("legs", {"steps": 0}), ("every", {"every": 0})])
def test_bad_numbers_are_named(tmp_path, argument, more):
    with pytest.raises(ValueError, match=f"`{argument}` must .*at least 1"):
        fresh(tmp_path / "run", **more)


def grown(key, state):
    """Takes over a state and makes its position longer."""
    del key
    x = state.position["x"]
    return state._replace(position={"x": jnp.concatenate([x, x + 0.1])})


def longer(key):
    return grown(key, toy_search.init(key))


def relayed(folder, display=None):
    second = Search(longer, toy_search.step, toy_search.SEARCH.best)
    legs = [Leg(toy_search.SEARCH, 6), Leg(second, 5, grown), Leg(second, 4)]
    opened = open_run(folder) if folder.exists() else create(folder, {"recipe": "toy"})
    with opened as run:
        return drive(
            run,
            legs_over_seeds(legs),
            keys_of(SEEDS),
            every=EVERY,
            to_text=text,
            progress=display,
        )


@pytest.mark.parametrize("at", [4, 6, 10, 11, 15])
def test_a_relay_of_states_of_different_shape_continues_at_any_checkpoint(tmp_path, at):
    """Stopped inside a leg, at the end of one, and at the very end."""
    whole = relayed(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        relayed(tmp_path / "run", Interrupting(at))
    done = relayed(tmp_path / "run")
    assert whole.step == done.step == 15
    assert bits(done.state) == bits(whole.state)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    assert done.state.position["x"].shape == (SEEDS, 4, 3)
