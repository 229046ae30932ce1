"""`jaxnas run optimizer_search`, as its users use it, on signals in the place of digits."""

import json
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnas.cli import main
from jaxnas.data.toy import waves
from jaxnas.formulas import tasks
from jaxnas.formulas.finals import Final
from jaxnas.formulas.mnistnet import mnistnet
from jaxnas.formulas.optax_rule import as_optax
from jaxnas.formulas.tape import parse, to_text
from jaxnas.formulas.update_rules import space
from jaxnas.recipes.optimizer_search import Config
from jaxnas.runs.store import open_run

RATES = (0.01, 0.1)
pytestmark = pytest.mark.usefixtures("quick_compile")
TINY = (
    "run",
    "optimizer_search",
    "--preset",
    "tiny",
    "--seeds",
    "2",
    "--set",
    "rounds=2",
    "--json",
)


@pytest.fixture(scope="module")
def signals():
    """One small task, judged by itself, so that few programs are compiled."""
    task = mnistnet(steps=10, hidden=(4,), batch=16, dataset=waves(length=8, n=120))
    task = task._replace(rates=RATES, seeds=2)
    kind = tasks.Kind(lambda *_: Final(task, task), lambda *_: {"long": Final(task, task)})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tasks.TASKS, "mnistnet", kind)
        yield


@pytest.fixture(scope="module")
def whole(signals, tmp_path_factory):
    folder = tmp_path_factory.mktemp("optimizers") / "run"
    main([*TINY, "--out", str(folder)])
    return open_run(folder)


def test_a_search_ends_in_rules_beside_hand_made_ones(whole):
    found = {
        kind: [r for r in whole.results() if r.kind == kind] for kind in ("found", "hand-made")
    }
    assert [r.seed for r in found["found"]] == [0, 1]
    assert [r.genotype for r in found["hand-made"]] == ["g", "adam"]
    rules = space("everything")
    for result in whole.results():
        assert to_text(rules, parse(rules, result.genotype)) == result.genotype
        assert set(result.metrics) == {"fitness", "long_std", "long_rate", "diverged"}
        assert -15 <= result.metrics["fitness"] < 0
        assert min(abs(result.metrics["long_rate"] - rate) for rate in RATES) < 1e-6
        assert {"tree", "latex"} == set(result.graph)


def test_the_ledger_holds_every_rule_that_was_asked_for_and_why_some_have_no_score(whole):
    rows = whole.candidates()
    assert rows
    for seed in (0, 1):
        ours = [row for row in rows if row.seed == seed]
        trained = [row for row in ours if row.fitness is not None]
        assert len({row.genotype for row in ours}) == len(ours)
        assert sum(row.cost for row in ours) == len(trained) <= 8
        assert all(row.genotype for row in ours)
    assert {row.failure for row in rows if row.fitness is None} <= {"no rate better than the bound"}
    last = {row.seed: row.metrics for row in whole.steps()}
    for seed in (0, 1):
        best = max(row.fitness for row in rows if row.seed == seed and row.fitness is not None)
        assert last[seed]["fitness"] == pytest.approx(best)


def test_what_was_found_is_the_best_of_what_was_trained(whole):
    for result in whole.results()[:2]:
        rows = [row for row in whole.candidates() if row.seed == result.seed]
        best = max((row for row in rows if row.fitness is not None), key=lambda row: row.fitness)
        assert result.genotype == best.genotype


def test_curves_of_training_are_stored_for_each_rule(whole):
    curves = {curve.name: curve for curve in whole.curves()}
    assert set(curves) == {f"training/{k}/{n}" for k in ("found", "hand-made") for n in (0, 1)}
    for curve in curves.values():
        mean, low, high = (np.asarray(curve.points[name]) for name in ("mean", "low", "high"))
        assert curve.points["x"] == list(range(1, 11))
        assert (low <= mean + 1e-6).all()
        assert (mean <= high + 1e-6).all()


def test_the_page_shows_tree_training_and_traversal(whole):
    page = (whole.folder / "report.html").read_text()
    heads = re.findall(r"<h2>([^<]+)</h2>", page)
    assert [
        h for h in heads if h in ("Found rules", "Search", "Training of rules", "Traversal")
    ] == [
        "Found rules",
        "Search",
        "Training of rules",
        "Traversal",
    ]
    assert "in its shortest form" in page
    assert "hand-made" in page
    assert "A hole is written _." in page
    assert "rules trained" in page
    told = whole.meta()
    assert len(told["traversal"]) == len(told["roll_outs"]) == 2
    for way, drawn in zip(told["traversal"], told["roll_outs"], strict=True):
        assert way[0]["node"] == "_"
        assert all("_" in one["node"] for one in way)
        assert drawn["drawn"] > drawn["failed a test"] >= 0


def test_a_killed_search_resumes_to_the_uninterrupted_one(signals, whole, tmp_path, killed, capsys):
    folder = tmp_path / "run"
    killed(*TINY, "--out", str(folder), step=3)
    assert open_run(folder).last() == 3
    assert open_run(folder).results() == []
    capsys.readouterr()
    main(["resume", str(folder), "--json"])
    assert json.loads(capsys.readouterr().out)["recipe"] == "optimizer_search"
    resumed = open_run(folder)
    assert resumed.candidates() == whole.candidates()
    assert resumed.steps() == whole.steps()
    assert resumed.results() == whole.results()
    for name in ("traversal", "roll_outs"):
        assert resumed.meta()[name] == whole.meta()[name]


def test_the_exported_file_walks_in_a_plain_optax_loop_as_the_found_rule_does(
    whole, said, tmp_path
):
    file = tmp_path / "rule.py"
    assert said("export", str(whole.folder), "--out", str(file)) == {"rule.py": str(file)}
    names = {}
    exec(file.read_text(), names)
    best = max(whole.results()[:2], key=lambda r: r.metrics["fitness"])
    rules = space("everything")
    tape = parse(rules, best.genotype)
    theirs = as_optax(rules, tape, best.metrics["long_rate"], steps=10)
    target = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.float32(0.3)}
    ends = []
    for tx in (names["optimizer"](), theirs):
        w = jax.tree.map(jnp.ones_like, target)
        state = tx.init(w)
        for _ in range(10):
            gradient = jax.tree.map(lambda w, t: 2 * (w - t), w, target)
            updates, state = tx.update(gradient, state, w)
            w = optax.apply_updates(w, updates)
        ends.append(w)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-6), *ends)
    assert not np.allclose(ends[0]["w"], 1)


def test_random_search_goes_over_the_same_tapes(signals, said, tmp_path):
    facts = said(
        "run", "optimizer_search", "--preset", "tiny", "--out", str(tmp_path / "run"),
        "--set", "searcher=random", "--set", "baselines=none",
    )  # fmt: skip
    run = open_run(tmp_path / "run")
    rows = run.candidates()
    assert [row.kind for row in run.results()] == ["found"]
    assert len(rows) == 8
    assert facts["fitness"] == run.results()[0].metrics["fitness"]
    assert "traversal" not in run.meta()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("task=mnistnets", ("`task`", "mnistnet", "'mnistnets'")),
        ("space=cnn", ("conv-subset", "'cnn'")),
        ("searcher=bayes", ("`searcher`", "'bayes'")),
        ("baselines=SGD,Adams", ("`baselines`", "'Adams'")),
        ("nodes=0", ("`nodes`", "0")),
    ],
)
def test_settings_that_cannot_be_are_refused(signals, refused, setting, words, tmp_path):
    folder = tmp_path / "run"
    error = refused(
        "run", "optimizer_search", "--preset", "tiny", "--set", setting, "--out", str(folder)
    )
    assert error.startswith("jaxnas: ")
    assert all(word in error for word in words), error
    assert not folder.exists()


def test_the_paper_trains_128_rules():
    assert Config().samples * Config().levels == 128
    assert Config().nodes == 10
