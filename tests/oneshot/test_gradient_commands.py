"""Gradient searches from the command line: what they end in, and what they refuse."""

import numpy as np
import pytest

from jaxnas.runs.store import open_run


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("darts", "order=third"), ("`order`", "'third'")),
        (("darts", "data=nowhere"), ("nowhere",)),
        (("darts", "space=s9"), ("`space`", "'s9'", "s4")),
        (("darts", "warm_epochs=11"), ("`warm_epochs`", "11")),
        (("darts", "curvature=99999"), ("`examples`", "99999")),
        (("darts", "robust=stop"), ("`robust`", "`curvature`", "'stop'")),
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


@pytest.mark.parametrize("recipe", ["darts", "drnas"])
def test_a_gradient_search_ends_in_trained_cells_beside_random_ones(said, recipe, tmp_path):
    facts = said(
        "run", recipe, "--preset", "tiny", "--seeds", "2", "--out", str(tmp_path / "run"),
        "--set", "data=waves", "--set", "batch=16", "--set", "judge_batch=32",
    )  # fmt: skip
    assert len(facts["found"]) == 2
    assert len(facts["random"]) == 1
    assert all(0 <= cell["fitness"] <= 100 for cell in facts["found"] + facts["random"])
    assert facts["fitness"] == max(cell["fitness"] for cell in facts["found"])
    run = open_run(tmp_path / "run")
    weights = np.array([row.value for row in run.snapshots() if row.name == "weights"])
    np.testing.assert_allclose(weights.sum(-1), 1.0, rtol=1e-5)
    assert [curve.name for curve in run.curves()] == ["random search"]
