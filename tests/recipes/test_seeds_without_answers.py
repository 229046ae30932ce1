"""A seed of which no candidate could be measured has no answer, and the others keep theirs."""

import pytest

from jaxnas.recipes import export_source
from jaxnas.runs import Candidate, Result, Step, create
from jaxnas.runs.store import Run

pytestmark = pytest.mark.usefixtures("quick_compile")


def test_the_rows_of_the_others_stay_as_they_are(monkeypatch, said, cell_table, tmp_path):
    tiny = ("run", "random_search", "--preset", "tiny", "--seeds", "3", "--out")
    whole = said(*tiny, str(tmp_path / "whole"))
    assert [cell["seed"] for cell in whole["found"]] == [0, 1, 2]
    monkeypatch.setattr(Run, "barren", lambda run: [1])
    less = said(*tiny, str(tmp_path / "less"))
    assert less["found"] == whole["found"][::2]
    assert "nothing was found by seed 1:" in less["warnings"][0]


def test_it_is_told_by_the_ledger(tmp_path):
    with create(tmp_path / "run", {"seeds": 3}) as run:
        assert run.barren() == [0, 1, 2]
        rows = [(0, None), (0, 1.0), (1, None), (2, None), (2, None)]
        told = [
            Candidate(1, seed, slot, "c", fitness, 1.0) for slot, (seed, fitness) in enumerate(rows)
        ]
        run.record([Step(1, seed, {}) for seed in range(3)], candidates=told)
        assert run.barren() == [1, 2]
        run.record([Step(2, 1, {})], candidates=[Candidate(2, 1, 0, "c", 2.0, 1.0)])
        assert run.barren() == [2]


def test_only_what_was_found_can_be_handed_on(tmp_path):
    with create(tmp_path / "run", {"seeds": 2}) as run:
        run.put_meta(status="ended early")
        with pytest.raises(ValueError, match="found nothing"):
            export_source.answers(run)
        run.record([Step(1, 0, {})])
        with pytest.raises(ValueError, match="is not finished"):  # and not judged either
            export_source.answers(run)
        row = Result("found", 1, "a", {"fitness": 1.0})
        run.put_results([row])
        assert export_source.answers(run) == [row]
        with pytest.raises(ValueError, match="found something, 1, but got 0"):
            export_source.answers(run, 0)
