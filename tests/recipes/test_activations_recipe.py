"""`jaxnas run activations`, as its users use it, at a tiny size."""

import re

import numpy as np
import pytest

from jaxnas.cli import main
from jaxnas.formulas.activations import BASELINES, activations
from jaxnas.formulas.tape import parse, to_text
from jaxnas.runs.store import open_run

pytestmark = pytest.mark.usefixtures("quick_compile")
TINY = ("run", "activations", "--preset", "tiny", "--json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("activations") / "run"
    main([*TINY, "--out", str(folder)])
    return open_run(folder)


def test_a_search_ends_in_a_function_beside_those_that_people_made(whole):
    kinds = [(r.kind, r.genotype) for r in whole.results()]
    assert [kind for kind, _ in kinds] == ["found", *["hand-made"] * len(BASELINES)]
    assert [text for _, text in kinds[1:]] == list(BASELINES.values())
    grammar = activations()
    assert to_text(grammar, parse(grammar, kinds[0][1])) == kinds[0][1]
    for result in whole.results():
        assert set(result.metrics) == {"fitness", "std"}
        assert 0 <= result.metrics["fitness"] <= 100
        assert set(result.graph) == {"tree", "latex", "shape"}


def test_the_ledger_holds_every_function_and_the_answer_is_the_best_of_them(whole):
    rows = whole.candidates()
    assert len(rows) == 8
    assert {row.failure for row in rows if row.fitness is None} <= {
        "never sees its input", "diverged",
    }  # fmt: skip
    assert all(row.cost == (row.failure != "never sees its input") for row in rows)
    best = max((row for row in rows if row.fitness is not None), key=lambda row: row.fitness)
    assert whole.results()[0].genotype == best.genotype


def test_shapes_and_curves_of_training_are_stored(whole):
    relu = next(r for r in whole.results() if r.genotype == "relu(x)").graph["shape"]
    np.testing.assert_allclose(relu["y"], np.maximum(relu["x"], 0))
    curves = {curve.name: curve for curve in whole.curves()}
    assert len(curves) == 1 + len(BASELINES)
    for curve in curves.values():
        assert curve.points["x"][-1] == 60
        assert len(curve.points["x"]) == len(curve.points["mean"]) == 50


def test_the_page_shows_formula_shape_and_training(whole):
    page = (whole.folder / "report.html").read_text()
    heads = re.findall(r"<h2>([^<]+)</h2>", page)
    wanted = ["Found functions", "Shapes of functions", "Search", "Training of functions"]
    assert [head for head in heads if head in wanted] == wanted
    assert "in its shortest form" in page
    found = whole.results()[0].graph["latex"]
    assert f"<code>{found}</code>" in page.replace("&amp;", "&")


def test_random_search_goes_over_the_same_grammar(said, tmp_path):
    folder = tmp_path / "run"
    said(*TINY[:-1], "--set", "searcher=random", "--set", "evaluations=4", "--out", str(folder))
    assert len(open_run(folder).candidates()) == 4


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("searcher=bayes", ("`searcher`", "'bayes'")),
        ("evaluations=6", ("`evaluations`", "6 with a batch of 4")),
        ("steps=0", ("steps", "0")),
        ("nodes=0", ("`nodes`", "0")),
        ("dataset=mnist2d", ("'mnist2d'",)),
        ("tournament=9", ("`tournament`", "9")),
    ],
)
def test_settings_that_cannot_be_are_refused(refused, setting, words, tmp_path):
    folder = tmp_path / "run"
    error = refused(*TINY[:-1], "--set", setting, "--out", str(folder))
    assert all(word in error for word in words), error
    assert not folder.exists()
