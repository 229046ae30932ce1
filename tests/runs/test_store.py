import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jaxnas.runs import (
    BrokenRunError,
    Candidate,
    Curve,
    Result,
    RunExistsError,
    RunLockedError,
    Snapshot,
    Step,
    create,
    open_run,
)

GRAPH = {"nodes": ["input", "1"], "edges": [[0, 1, "skip"]]}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def filled(folder: Path, steps: int = 30, seeds: int = 3):
    rng = np.random.default_rng(0)
    rows, tried = [], []
    for step in range(1, steps + 1):
        for seed in range(seeds):
            rows.append(Step(step, seed, {"fitness": rng.random()}))
            bad = rng.random() < 0.2
            score = -np.inf if bad else float(rng.integers(0, 8))
            why = ("non-finite", "timeout")[int(rng.integers(2))] if bad else None
            name = f"g{rng.integers(9)}"
            tried.append(Candidate(step, seed, 0, name, score, 1.0, why))
    run = create(folder, {"recipe": "toy"})
    with run:
        run.record(rows, [Snapshot(30, 0, "weights", [[0.5, 0.5]])], tried, {"seconds": 1.5})
    return run


def test_a_new_run_makes_missing_parents_and_keeps_its_config(tmp_path):
    config = {"recipe": "toy", "config": {"lr": 0.1, "ops": ["a", "b"], "bad": float("inf")}}
    create(tmp_path / "a" / "b", config)
    stored = json.loads((tmp_path / "a" / "b" / "config.json").read_text())
    assert stored == {"recipe": "toy", "config": {"lr": 0.1, "ops": ["a", "b"], "bad": None}}
    assert open_run(tmp_path / "a" / "b").config == stored


def test_an_empty_folder_may_become_a_run(tmp_path):
    (tmp_path / "new").mkdir()
    assert create(tmp_path / "new", {}).meta() == {"schema": 1}


@pytest.mark.parametrize("kind", ["run", "notes", "file"])
def test_an_existing_folder_is_refused_and_untouched(tmp_path, kind):
    folder = tmp_path / "taken"
    if kind == "run":
        filled(folder)
    elif kind == "notes":
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    else:
        folder.write_text("a file")
    before = contents(tmp_path)
    with pytest.raises(RunExistsError, match="`folder` must be new or empty"):
        create(folder, {"recipe": "other"})
    assert contents(tmp_path) == before


def test_what_is_no_run_folder_is_named(tmp_path):
    with pytest.raises(BrokenRunError, match=r"holds no config\.json"):
        open_run(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "[1]", "\x00"])
def test_a_broken_config_is_named(tmp_path, text):
    filled(tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(text)
    with pytest.raises(BrokenRunError, match=r"config\.json"):
        open_run(tmp_path / "run")


@pytest.mark.parametrize("damage", ["garbage", "half", "empty", "missing"])
def test_a_corrupt_ledger_is_named(tmp_path, damage):
    path = filled(tmp_path / "run").folder / "run.sqlite"
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        parts = {"garbage": b"\x5a" * len(whole), "half": whole[: len(whole) // 2], "empty": b""}
        path.write_bytes(parts[damage])
    with pytest.raises(BrokenRunError, match=r"run\.sqlite"):
        open_run(tmp_path / "run")


def test_a_ledger_of_another_version_is_refused(tmp_path):
    path = filled(tmp_path / "run").folder / "run.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '99' WHERE name = 'schema'")
    with pytest.raises(BrokenRunError, match="has schema 99"):
        open_run(tmp_path / "run")


def test_a_second_writer_is_refused_but_readers_are_welcome(tmp_path):
    run = filled(tmp_path / "run")
    code = "import sys; from jaxnas.runs import open_run\nwith open_run(sys.argv[1]) as run: pass"
    command = [sys.executable, "-c", code, str(run.folder)]
    with run:
        second = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "RunLockedError" in second.stderr
        assert "is being written by another process" in second.stderr
        assert len(open_run(run.folder).steps()) == 90
        copy = shutil.copytree(run.folder, tmp_path / "copy")
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert open_run(copy).candidates() == run.candidates()


def test_writing_without_the_lock_is_refused(tmp_path):
    run = create(tmp_path / "run", {})
    with pytest.raises(RunLockedError, match="inside `with run:`"):
        run.put_meta(status="running")
    assert "status" not in run.meta()


def test_everything_written_comes_back_and_non_finite_numbers_become_null(tmp_path):
    nan, inf = float("nan"), float("inf")
    with create(tmp_path / "run", {}) as run:
        run.record(
            [Step(1, 0, {"a": nan, "b": np.float32(0.1), "c": np.int64(3)})],
            [Snapshot(1, 0, "w", [[inf, 1.0], [-0.0, 2.0]])],
            [Candidate(1, 0, 0, "g", -inf, nan, "x", "p", "s"), Candidate(1, 0, 1, "h", 1.5, 2.0)],
        )
        run.put_results([Result("found", 0, "g", {"fitness": -inf, "n": 3}, GRAPH)])
        run.put_results([Result("found", 0, "g2", {"fitness": 1.0}, None)])
        run.put_curve(Curve("random", {"x": np.arange(2), "mean": [nan, 1.0]}, "note"))
        run.put_meta(operations=("none", "skip"), steps=5)
    run = open_run(tmp_path / "run")
    assert run.steps() == [Step(1, 0, {"a": None, "b": float(np.float32(0.1)), "c": 3})]
    assert run.snapshots() == [Snapshot(1, 0, "w", [[None, 1.0], [-0.0, 2.0]])]
    assert run.candidates() == [
        Candidate(1, 0, 0, "g", None, None, "x", "p", "s"),
        Candidate(1, 0, 1, "h", 1.5, 2.0),
    ]
    assert run.results() == [Result("found", 0, "g2", {"fitness": 1.0}, None)]
    assert run.curves() == [Curve("random", {"x": [0, 1], "mean": [None, 1.0]}, "note")]
    assert run.meta() == {"schema": 1, "operations": ["none", "skip"], "steps": 5}


def test_a_chunk_that_fails_halfway_leaves_nothing_behind(tmp_path):
    run = filled(tmp_path / "run")
    before = run.steps(), run.snapshots(), run.candidates(), run.meta()

    def breaking():
        yield Candidate(31, 0, 0, "g", 1.0, 1.0)
        raise KeyboardInterrupt

    with run, pytest.raises(KeyboardInterrupt):
        run.record([Step(31, 0, {})], candidates=breaking(), meta={"seconds": 9.0})
    assert (run.steps(), run.snapshots(), run.candidates(), run.meta()) == before


def test_recording_a_step_twice_is_an_error_and_changes_nothing(tmp_path):
    run = filled(tmp_path / "run")
    before = run.steps()
    with run, pytest.raises(sqlite3.IntegrityError):
        run.record([Step(31, 0, {}), Step(30, 0, {"fitness": 5.0})])
    assert run.steps() == before


def test_rewinding_forgets_later_steps_only(tmp_path):
    run = filled(tmp_path / "run")
    steps, tried = run.steps(), run.candidates()
    with run:
        run.rewind(12)
    assert run.steps() == [row for row in steps if row.step <= 12] != []
    assert run.candidates() == [row for row in tried if row.step <= 12] != []
    assert run.snapshots() == []


def test_summaries_agree_with_counting_by_hand(tmp_path):
    run = filled(tmp_path / "run")
    tried = run.candidates()
    good = [row for row in tried if row.fitness is not None]
    best: dict[str, Candidate] = {}
    for row in good:
        if row.genotype not in best or row.fitness > best[row.genotype].fitness:
            best[row.genotype] = row
    top = run.top(4)
    order = sorted((row.fitness for row in best.values()), reverse=True)
    assert [row.fitness for row, _ in top] == order[:4]
    for row, times in top:
        assert row in good
        assert row.fitness == best[row.genotype].fitness
        assert times == sum(other.genotype == row.genotype for other in good)
    bad = [row for row in tried if row.fitness is None]
    assert run.failed(5) == bad[::-1][:5]
    assert run.failures() == {
        why: sum(row.failure == why for row in bad) for why in ("non-finite", "timeout")
    }
    assert run.totals() == (len(tried), len({row.genotype for row in tried}))


def test_a_full_disk_is_named_and_keeps_what_was_there(tmp_path, full_disk):
    run = filled(tmp_path / "run")
    before = run.steps()
    size = (run.folder / "run.sqlite").stat().st_size
    with run:
        with full_disk(size + 4096), pytest.raises(OSError, match="cannot be written"):
            run.record(Step(31 + i, 0, {"note": "x" * 999}) for i in range(999))
        assert run.steps() == before
        run.record([Step(31, 0, {})])
    assert run.steps() == [*before, Step(31, 0, {})]


def test_the_ledger_needs_neither_jax_nor_numpy():
    code = "import sys, jaxnas.runs.store as s; print({'jax', 'numpy', 'orbax'} & {*sys.modules})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"
