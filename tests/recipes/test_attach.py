"""A system that wants to know of its run is told, whenever the search starts or goes on."""

from types import SimpleNamespace

from jaxnas.llm import Attempt, Prices, Usage
from jaxnas.recipes import conduct, random_search
from jaxnas.recipes.calls import to_ledger, used

ANSWERED = Attempt("k", 1, "m", "ok", None, 1.0, None, Usage(100, 20), "")


def test_a_system_is_told_of_its_locked_run_before_each_start(cell_table, tmp_path, monkeypatch):
    told = []

    def attach(run):
        run.put_meta(attached=len(told))  # raises unless the run is open for writing
        told.append((run.folder, run.last()))
        to_ledger(run, Prices(0, 0))(ANSWERED)

    def build(config):
        return random_search.build(config)._replace(attach=attach)

    module = SimpleNamespace(build=build, Config=random_search.Config)
    monkeypatch.setattr(conduct, "load", lambda name: module)
    config = random_search.PRESETS["tiny"]
    outcome = conduct.start("random_search", config, tmp_path / "run")
    assert told == [(tmp_path / "run", 0)]
    conduct.resume(tmp_path / "run")
    assert told[1:] == [(tmp_path / "run", outcome.run.last())]
    assert outcome.run.meta()["attached"] == 1
    assert [call.step for call in outcome.run.calls()] == [1, outcome.run.last() + 1]
    assert used(outcome.run) == (2, 240, 0.0)
