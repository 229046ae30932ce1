"""The best program of a run as a file, and as a line of the terminal."""

import ast
from types import SimpleNamespace

import pytest

from jaxnas import cli, recipes
from jaxnas.recipes import conduct, export_source
from jaxnas.runs import Result, create

PROGRAM = "import flax.linen as nn\n\n\nclass Model(nn.Module):\n    width: int = {}\n"


def finished(folder, *, status="finished", command="jaxnas run llmatic", programs=None):
    config = {"recipe": "llmatic", "preset": "tiny", "seeds": 3, "key": 5, "jaxnas": "0.9"}
    run = create(folder, config | {"command": command})
    with run:
        for seed, text in enumerate(programs or map(PROGRAM.format, (1, 2, 3))):
            fitness = (50.0, 75.25, None)[seed]
            run.put_results([Result("found", seed, text, {"fitness": fitness, "params": 5210})])
        run.put_meta(status=status, fitness_label="validation\naccuracy, %")
    return run


@pytest.fixture
def exporting(monkeypatch):
    """The command line, with a recipe whose programs can be exported."""
    monkeypatch.setattr(recipes, "load", lambda name: export_source)
    return lambda *argv: cli.main(["export", *map(str, argv), "--json"])


def test_the_best_program_is_written_below_what_it_scored(tmp_path, exporting):
    run = finished(tmp_path / "run", command="jaxnas run llmatic\nimport os")
    exporting(run.folder, "--out", tmp_path / "deep" / "best.py")
    written = (tmp_path / "deep" / "best.py").read_text()
    assert written.endswith("\n" + PROGRAM.format(2))
    comments = written.split("\n\n")[0].splitlines()
    assert all(line.startswith("# ") for line in comments)
    head = " ".join(comments)
    assert "found by jaxnas 0.9 in the run run (llmatic, preset tiny, key 5, seed 1)" in head
    assert "Scores: fitness 75.25, params 5210." in head
    assert "Fitness is validation accuracy, %." in head
    names = [node for node in ast.walk(ast.parse(written)) if isinstance(node, ast.Import)]
    assert [alias.name for node in names for alias in node.names] == ["flax.linen"]


def test_another_seed_and_a_folder_can_be_chosen(tmp_path, exporting):
    run = finished(tmp_path / "run")
    exporting(run.folder, "--seed", 0)
    assert (run.folder / "program.py").read_text().endswith(PROGRAM.format(1))
    exporting(run.folder, "--seed", 2)
    assert "params 5210" in (run.folder / "program.py").read_text()


@pytest.mark.parametrize(
    ("how", "seed", "words"),
    [
        ({"status": "interrupted"}, None, "is not finished"),
        ({}, 3, "`seed` must be one that found something, 0, 1, 2, but got 3"),
        ({"programs": ["|a~0|", "|b~0|"]}, None, "found no program"),
    ],
)
def test_what_cannot_be_exported_is_explained(tmp_path, how, seed, words):
    with pytest.raises(ValueError, match=words):
        export_source.export(finished(tmp_path / "run", **how), tmp_path, seed)


def test_the_terminal_names_programs_and_says_where_their_source_is(tmp_path, monkeypatch, capsys):
    run = finished(tmp_path / "run")
    found = run.results()[:2]
    outcome = conduct.Outcome(run, found, [], None, 12, 3.0)
    monkeypatch.setattr(conduct, "configure", lambda *given: SimpleNamespace())
    monkeypatch.setattr(conduct, "start", lambda *given, **more: outcome)
    cli.main(["run", "random_search", "--out", str(tmp_path / "new")])
    said = capsys.readouterr().out
    assert "import flax" not in said
    assert said.count("Model ") == 2
    assert f"jaxnas export {run.folder} --out best.py" in said.replace("\n", "")
