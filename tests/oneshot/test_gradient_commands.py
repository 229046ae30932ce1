"""Gradient searches from the command line: what they end in, and what they refuse."""

import itertools
import math

import numpy as np
import pytest

from jaxnas.cells.nas_bench_201 import from_text
from jaxnas.recipes import conduct
from jaxnas.recipes.gradient import best_of_subsets
from jaxnas.runs.store import open_run

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("darts", "order=third"), ("`order`", "'third'")),
        (("darts", "data=nowhere"), ("nowhere",)),
        (("darts", "space=s9"), ("`space`", "'s9'", "s4")),
        (("darts", "warm_epochs=11"), ("`warm_epochs`", "11")),
        (("darts", "curvature=99999"), ("`curvature`", "99999")),
        (("darts", "robust=stop"), ("`robust`", "`curvature`", "'stop'")),
        (("darts", "examples=-5"), ("`examples`", "-5")),
        (("darts", "space=s2"), ("`layers`", "`judge_layers`", "normal cell")),
        (("darts", "whole=true"), ("`whole`", "`judge`")),
        (("darts_pt", "robust=stop"), ("`robust`", "darts_pt", "'stop'")),
        (("darts_pt", "tune_between=0"), ("`tune_between`", "0")),
        (("sgas", "warm_epochs=2"), ("`warm_epochs`", "sgas")),
        (("sgas", "epochs=4"), ("`epochs`", "8", "4")),
        (("drnas_progressive", "strengths=2"), ("`strengths`", "drnas_progressive")),
        (("drnas_progressive", "partials=2,4"), ("`partials`", "(2, 4)")),
        (("drnas", "regulariser=l1"), ("`regulariser`", "'l1'")),
        (("drnas", "batch=99999"), ("`batch`", "99999")),
        (("pc_darts", "channels=6"), ("`partial`", "6 channels", "by 4")),
        (("sdarts", "form=rs"), ("`form`", "'rs'")),
        (("sdarts", "epsilon=0.1"), ("`epsilon`", "(0.1,)")),
        (("sgas", "criterion=3"), ("`criterion`", "3")),
        (("drnas_progressive", "keeps=5"), ("`keeps`", "(5,)")),
        (("drnas_progressive", "keeps=5,many"), ("`keeps`", "int", "'many'")),
        (("drnas_progressive", "epochs=7"), ("`epochs`", "7")),
        (("darts_pt", "base=enas"), ("`base`", "'enas'")),
        (("darts_pt", "tune_epochs=3"), ("`epochs`", "3")),
    ],
    ids=lambda value: "-".join(value)[:40],
)
def test_settings_that_cannot_be_are_refused_before_a_folder_is_made(
    refused, argv, words, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    error = refused("run", argv[0], "--set", argv[1])
    assert error.startswith("jaxnas: ")
    assert all(word in error for word in words), error
    assert not any(tmp_path.rglob("*"))


def test_the_best_of_a_subset_is_that_of_all_subsets_counted_one_by_one():
    values = [3.0, 1.0, 4.0, 1.5, 5.0, 9.0, 2.0]
    for n in range(1, 8):
        best = sorted(max(chosen) for chosen in itertools.combinations(values, n))
        slow = [best[math.ceil(q * len(best)) - 1] for q in (0.25, 0.5, 0.75)]
        assert best_of_subsets(values, n) == slow
    assert best_of_subsets([float(v) for v in range(200)], 200) == [199.0] * 3


def test_the_paper_searches_on_halves_of_all_training_images():
    for name in ("darts", "pc_darts", "drnas_progressive", "darts_pt"):
        assert conduct.configure(name, "paper", {}).whole
        assert not conduct.configure(name, "default", {}).whole


def check_weights(run):
    weights = np.array([row.value for row in run.snapshots() if row.name == "weights"])
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)


def test_a_gradient_search_ends_in_trained_cells_beside_random_ones(said, tmp_path):
    facts = said(
        "run", "darts", "--preset", "tiny", "--seeds", "2", "--out", str(tmp_path / "run"),
        "--set", "data=waves", "--set", "batch=16", "--set", "judge_batch=32",
    )  # fmt: skip
    assert len(facts["found"]) == 2
    assert len(facts["random"]) == 1
    assert all(0 <= cell["fitness"] <= 100 for cell in facts["found"] + facts["random"])
    assert facts["fitness"] == max(cell["fitness"] for cell in facts["found"])
    run = open_run(tmp_path / "run")
    check_weights(run)
    assert [curve.name for curve in run.curves()] == ["random search"]


def test_what_a_gradient_search_finds_can_be_looked_up_in_the_table(said, cell_table, tmp_path):
    facts = said(
        "run", "drnas", "--preset", "tiny", "--seeds", "2", "--out", str(tmp_path / "run"),
        "--set", "data=waves", "--set", "batch=16", "--set", "judge=table", "--set", "judge_data=cifar10",
    )  # fmt: skip
    columns = dict(zip(map(tuple, cell_table.ops.tolist()), cell_table.valid[:, 0], strict=True))
    told = [columns[tuple(from_text(cell["genotype"]).tolist())] for cell in facts["found"]]
    assert [cell["fitness"] for cell in facts["found"]] == pytest.approx(told)
    assert len(told) == 2
    assert len(facts["random"]) == 1
    check_weights(open_run(tmp_path / "run"))
