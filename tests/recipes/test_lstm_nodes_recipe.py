"""`jaxnas run lstm_nodes`, with and without a Meta-LSTM, over curves that need no training."""

import jax
import numpy as np
import pytest
from reference.curves import power_laws

from jaxnas.cli import main
from jaxnas.formulas import node_judge
from jaxnas.formulas.recurrent import baseline, nodes
from jaxnas.formulas.sequence_nets import Trained
from jaxnas.formulas.tape import to_text
from jaxnas.recipes.lstm_nodes import PRESETS
from jaxnas.runs.store import open_run

pytestmark = pytest.mark.usefixtures("quick_compile")
SETTINGS = {
    "epochs": 3, "known_epochs": 1, "whole_curves": 4, "checked": 1, "generations": 3,
    "nodes": 16, "final_epochs": 1, "final_seeds": 1,
}  # fmt: skip
TINY = ["run", "lstm_nodes", "--preset", "tiny", "--json"]
FORETELLING = [*TINY, *(word for k, v in SETTINGS.items() for word in ("--set", f"{k}={v}"))]


def drawn(task, grammar, tapes, size, keys, *, test):
    """In the place of training: curves that depend on the node and the key alone."""
    del task, grammar, test
    seeds = np.asarray(jax.random.key_data(keys))[:, 1].tolist()
    curve = np.array(
        [[power_laws((seed, *np.abs(tape)), 1, size.epochs)[0] for seed in seeds] for tape in tapes]
    )
    return Trained(*map(jax.numpy.asarray, (curve, curve, curve[:, :, -1])))


@pytest.fixture(scope="module", autouse=True)
def without_training():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(node_judge, "train", drawn)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nodes") / "run"
    main([*FORETELLING, "--out", str(folder)])
    return open_run(folder)


def test_a_search_ends_in_a_node_beside_those_that_people_made(whole):
    results = {r.kind: r for r in whole.results()}
    assert set(results) == {"found", "LSTM", "GRU"}
    grammar = nodes(16)
    assert results["GRU"].genotype == to_text(grammar, baseline(grammar, "GRU"))
    assert all(r.metrics["fitness"] < 0 for r in results.values())


def test_the_ledger_tells_what_was_foretold_by_what_it_cost(whole):
    by_step = {}
    for row in whole.candidates():
        by_step.setdefault(row.step, []).append(row)
    costs = {step: sorted(row.cost for row in rows) for step, rows in by_step.items()}
    assert set(costs[1]) <= {0, 3}
    assert costs[1].count(3) == 4  # founders and random nodes, all of which see the input
    assert costs[2] == costs[3] == [1, 1, 1, 3]
    assert "foretold where the cost is 1, measured where it is 3" in whole.meta()["search_label"]
    (told,) = whole.meta()["meta_lstm"]
    assert told["curves"] >= 4
    assert told["curves"] - 4 == told["checked"]


def test_a_killed_search_resumes_to_the_uninterrupted_one(whole, tmp_path, killed):
    folder = tmp_path / "run"
    killed(*FORETELLING, "--out", str(folder), step=3)
    main(["resume", str(folder), "--json"])
    resumed = open_run(folder)
    assert resumed.candidates() == whole.candidates()
    assert resumed.steps() == whole.steps()
    assert resumed.results() == whole.results()
    assert resumed.meta()["meta_lstm"] == whole.meta()["meta_lstm"]


def test_without_one_nothing_is_foretold(said, tmp_path):
    folder = tmp_path / "run"
    said(*TINY[:-1], "--set", "searcher=random", "--out", str(folder))
    run = open_run(folder)
    assert {row.cost for row in run.candidates()} == {1}
    assert "meta_lstm" not in run.meta()
    assert "foretold" not in run.meta()["search_label"]


def test_what_cannot_be_foretold_is_refused(refused, tmp_path):
    argv = [*TINY[:-1], "--set", "known_epochs=1", "--out", str(tmp_path / "run")]
    assert "`known` must be in 1 ... 0" in refused(*argv)


def test_the_paper_reads_10_epochs_of_40_once_it_has_seen_1000_curves():
    paper = PRESETS["paper"]
    assert (paper.known_epochs, paper.epochs, paper.whole_curves) == (10, 40, 1000)
