"""A system that wants to know of its run is told, whenever the search starts or goes on."""

from types import SimpleNamespace

from jaxnas.recipes import conduct, random_search


def test_a_system_is_told_of_its_locked_run_before_each_start(tmp_path, monkeypatch):
    told = []

    def attach(run):
        run.put_meta(attached=len(told))  # raises unless the run is open for writing
        told.append((run.folder, run.last()))

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
