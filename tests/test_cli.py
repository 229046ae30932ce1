"""The command line, used as its users use it: in this process, on stdout, stderr and exit codes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from jaxnas.cli import main
from jaxnas.cli.compilation_cache import _pruned
from jaxnas.recipes import RECIPES
from jaxnas.runs.store import open_run

CELL = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|"


def test_list_names_every_recipe(said):
    assert set(said("list")) == set(RECIPES)


def test_describe_gives_the_published_size_of_a_cell(said):
    facts = said("describe", "nas_bench_201", CELL, "--classes", "10")
    assert (facts["params"], facts["flops"]) == (802_426, 113_951_370)
    facts = said("describe", "nas_bench_201", CELL, "--classes", "100")
    assert facts["params"] == 808_276
    facts = said("describe", "nas_bench_201", CELL, "--classes", "120", "--size", "16")
    assert (facts["params"], facts["flops"]) == (809_576, 28_495_480)


def test_describe_reads_an_official_index(said, cell_table):
    assert said("describe", "nas_bench_201", "11", "--classes", "10")["genotype"] == CELL


def test_describe_gives_the_published_size_of_a_darts_cell_and_its_auxiliary_classifier(said):
    facts = said("describe", "darts", "DARTS_V2", "--auxiliary")
    assert (facts["params"], facts["auxiliary_params"]) == (3_349_342, 476_426)
    how = ("--channels", "16", "--layers", "8")
    assert facts["genotype"].startswith("Genotype(normal=[('sep_conv_3x3', 0)")
    assert said("describe", "darts", facts["genotype"], *how)["params"] == 246_106
    facts = said("describe", "nasnet", "AmoebaNet", *how)
    assert (facts["params"], facts["layers"], "auxiliary_params" in facts) == (326_330, 8, False)


def test_data_says_where_each_set_is_or_how_to_get_it(said):
    rows = said("data")
    assert rows["mnist1d"]["here"]
    assert all(row["here"] or row["how"] for row in rows.values())


def test_doctor_names_versions_and_devices(said):
    assert {"jax", "qdax", "devices", "compilation cache"} <= set(said("doctor"))


def test_cite_prints_bibtex(capsys):
    main(["cite", "aging_evolution"])
    assert capsys.readouterr().out.startswith("@inproceedings{real2019regularized")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("run", "random_serch"), ("Unknown recipe 'random_serch'", "'random_search'")),
        (("run", "random_search", "--preset", "huge"), ("Unknown preset 'huge'", "paper")),
        (("run", "random_search", "--set", "epoch=1"), ("no setting 'epoch'", "'epochs'")),
        (("run", "random_search", "--set", "epochs=many"), ("`epochs`", "int", "'many'")),
        (("run", "random_search", "--set", "epochs"), ("KEY=VALUE", "'epochs'")),
        (("run", "random_search", "--set", "problem=guess"), ("`problem`", "'guess'")),
        (("run", "random_search", "--seeds", "0"), ("`seeds`", "0")),
        (("run", "random_search", "--set", "evaluations=0"), ("`evaluations`",)),
        (("describe", "nas_bench_301", CELL), ("nas_bench_301",)),
        (("describe", "nas_bench_201", "|conv~0|"), ("3 nodes",)),
        (("describe", "nas_bench_201", CELL.replace("none", "nine")), ("'nine'", "'none'")),
        (("describe", "nas_bench_201", CELL, "--classes", "0"), ("`--classes`", "0")),
        (("describe", "darts", "DARTS_V9"), ("'DARTS_V9'", "DARTS_V1")),
        (("describe", "darts", "N[S3<2]"), ("character 3", "states 0 to 1", "'S3<2'")),
        (("describe", "nasnet", "NASNet", "--stem", "svhn"), ("`stem`", "'svhn'", "imagenet")),
        (("run", "random_search", "--seed", "0"), ("--seed 0", "--seeds (how", "--key (seed")),
        (("run", "random_search", "--pre", "tiny"), ("--pre tiny", "--preset (")),
        (("list", "--jso"), ("--jso", "--json (")),
        (("list", "everything"), ("unknown arguments everything.",)),
        (("--debu", "list"), ("--debu", "--debug (")),
        (("cite", "nobody"), ("nobody",)),
        (("resume", "nowhere"), ("nowhere",)),
        (("report", "nowhere"), ("nowhere",)),
    ],
    ids=lambda value: "-".join(value)[:40],
)
def test_wrong_input_is_refused_in_one_line_that_names_it(
    refused, argv, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    error = refused(*argv)
    assert error.startswith("jaxnas: ")
    assert "Traceback" not in error
    assert all(word in error for word in words), error
    assert not any(tmp_path.rglob("*"))


def test_wrong_numbers_of_a_table_are_refused(cell_table, refused):
    assert "`tournament`" in refused("run", "aging_evolution", "--set", "tournament=0")
    assert "99999" in refused("describe", "nas_bench_201", "99999")


def test_missing_data_are_named_with_the_way_to_get_them(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("JAXNAS_DATA", str(tmp_path))
    monkeypatch.setattr("jaxnas.data.dataset.data_folders", lambda: [tmp_path])
    error = refused("run", "random_search", "--out", str(tmp_path / "run"))
    assert "nas_bench_201.npz" in error
    assert "import_official" in error
    assert not (tmp_path / "run").exists()


def test_a_run_says_what_it_found_and_refuses_to_be_overwritten(
    said, refused, cell_table, tmp_path
):
    folder = tmp_path / "run"
    argv = ("run", "random_search", "--preset", "tiny", "--seeds", "3", "--out", str(folder))
    facts = said(*argv)
    wanted = ("recipe", "preset", "seeds", "best", "fitness", "evaluations", "seconds", "run")
    assert set(wanted) <= set(facts)
    assert (facts["recipe"], facts["seeds"], facts["evaluations"]) == ("random_search", 3, 60)
    rows = open_run(folder).candidates()
    best = max(rows, key=lambda row: row.fitness)
    assert (facts["best"], facts["fitness"]) == (best.genotype, pytest.approx(best.fitness))
    columns = dict(zip(map(tuple, cell_table.ops.tolist()), cell_table.valid[:, 0], strict=True))
    from jaxnas.cells.nas_bench_201 import from_text

    assert columns[tuple(from_text(best.genotype).tolist())] == pytest.approx(best.fitness)
    assert "validation" in facts["fitness_label"]
    assert "200 epochs" in facts["fitness_label"]
    assert (folder / "report.html").read_text().startswith("<!DOCTYPE html>")
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert "exists" in refused(*argv)
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_a_run_warns_of_cells_that_let_nothing_through(said, cell_table, tmp_path):
    """Of 150 searches of a single query some end in a dead cell: 2.2 % of all are."""
    facts = said(
        "run", "random_search", "--preset", "tiny", "--seeds", "150", "--out", str(tmp_path / "run"),
        "--set", "evaluations=1", "--set", "batch=1",
    )  # fmt: skip
    dead = [str(n) for n, cell in enumerate(facts["found"]) if cell["connected"] == 0]
    assert 0 < len(dead) < 20
    assert all(facts["found"][int(n)]["test"] == pytest.approx(10) for n in dead)
    (warning,) = [text for text in facts["warnings"] if "nothing reaches the output" in text]
    assert f"by seed {', '.join(dead)}:" in warning
    assert "nothing reaches the output" in (tmp_path / "run" / "report.html").read_text()


def test_the_same_key_finds_the_same_and_another_key_does_not(said, cell_table, tmp_path):
    def run(name, key):
        facts = said(
            "run",
            "aging_evolution",
            "--preset",
            "tiny",
            "--out",
            str(tmp_path / name),
            "--key",
            key,
        )
        return [row.genotype for row in open_run(facts["run"]).candidates()]

    assert run("a", "1") == run("b", "1") != run("c", "2")


def test_a_finished_run_resumes_to_the_same_answer(said, cell_table, tmp_path):
    folder = str(tmp_path / "run")
    first = said("run", "aging_evolution", "--preset", "tiny", "--out", folder)
    again = said("resume", folder)
    assert (first["best"], first["fitness"]) == (again["best"], again["fitness"])


def test_a_run_of_settings_that_are_gone_is_not_resumed(said, refused, cell_table, tmp_path):
    folder = tmp_path / "run"
    said("run", "random_search", "--preset", "tiny", "--out", str(folder))
    config = json.loads((folder / "config.json").read_text())
    config["config"]["colour"] = "red"
    (folder / "config.json").write_text(json.dumps(config))
    assert "colour" in refused("resume", str(folder))


def test_ctrl_c_leaves_a_run_that_resumes_to_the_uninterrupted_answer(said, cell_table, tmp_path):
    settings = ["--set", "evaluations=60", "--set", "population=10", "--set", "tournament=3"]
    train = ["--set", "problem=train", "--set", "data=waves", "--set", "epochs=1"]
    small = ["--set", "channels=4", "--set", "train_batch=32", "--set", "batch=2"]
    argv = ["run", "aging_evolution", *settings, *train, *small]
    env = os.environ | {"JAX_PLATFORMS": "cpu"}
    folder = tmp_path / "stopped"
    child = subprocess.Popen(
        [sys.executable, "-m", "jaxnas", *argv, "--out", str(folder)],
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.time() + 300
    while child.poll() is None and time.time() < deadline:
        if (folder / "config.json").exists() and len(open_run(folder).candidates()) >= 6:
            break
        time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    _, error = child.communicate(timeout=120)
    assert child.returncode == 130, error
    assert "jaxnas resume" in error
    done = len(open_run(folder).candidates())
    assert 6 <= done < 60
    resumed = said("resume", str(folder))
    whole = said(*argv, "--out", str(tmp_path / "whole"))
    assert resumed["best"] == whole["best"]
    rows = [open_run(run["run"]).candidates() for run in (resumed, whole)]
    assert [r.genotype for r in rows[0]] == [r.genotype for r in rows[1]]
    np.testing.assert_array_equal([r.fitness for r in rows[0]], [r.fitness for r in rows[1]])


def test_ctrl_c_that_a_library_loses_ends_the_run_with_the_next_step(monkeypatch, capsys, tmp_path):
    def start(*_, progress, **__):
        shown = progress(3, "steps")
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        shown.update(1)
        raise AssertionError("it went on")

    monkeypatch.setattr("jaxnas.recipes.conduct.start", start)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as end:
        main(["run", "random_search", "--out", str(tmp_path / "run")])
    assert end.value.code == 130
    assert "jaxnas resume" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before


def test_of_compiled_programs_the_oldest_go_beyond_a_limit(tmp_path):
    for age, name in enumerate(("new", "old", "oldest")):
        (tmp_path / f"{name}-cache").write_bytes(b"x" * 100)
        os.utime(tmp_path / f"{name}-cache", (1000 - age, 1000 - age))
    (tmp_path / "other").write_bytes(b"x" * 1000)
    _pruned(tmp_path, 300)
    assert len(list(tmp_path.iterdir())) == 4
    _pruned(tmp_path, 250)
    assert {f.name for f in tmp_path.iterdir()} == {"new-cache", "old-cache", "other"}
    _pruned(tmp_path / "none", 10)
