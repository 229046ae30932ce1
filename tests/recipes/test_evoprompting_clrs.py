"""`jaxnas run evoprompting --set data=clrs_bfs`: triplet functions in the place of networks."""

import hashlib
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import pytest
from reference import clrs_examples

from jaxnas.data import clrs as data
from jaxnas.llm import scripted
from jaxnas.programs import clrs_training, triplets
from jaxnas.programs.bench import Bench
from jaxnas.programs.judge import Score
from jaxnas.programs.sandbox.verdict import Verdict
from jaxnas.recipes import llm, programs
from jaxnas.recipes.evoprompting import PRESETS, Config, build, settled
from jaxnas.runs.store import open_run

pytestmark = pytest.mark.usefixtures("quick_compile")
TINY = ("run", "evoprompting", "--preset", "tiny", "--set", "data=clrs_bfs")
BODY = "    return nn.Dense(out_size + {})(edge_fts)\n"


@pytest.fixture
def drawn(monkeypatch):
    """Stands in for dm-clrs; counts what it is asked for."""
    asked = []

    def draw(algorithm, key, *, lengths, examples, test):
        asked.append((algorithm, lengths, examples, test))
        return clrs_examples.material(algorithm, ((3, 3),), examples, 64, test and (5, 3))

    monkeypatch.setattr(clrs_training, "draw", draw)
    return asked


@pytest.fixture
def desk(drawn, monkeypatch):
    """Stands in for sandbox and trainer: what a source scores is read off its hash."""
    opened = []

    def check(sources):
        names = [hashlib.sha256(one.encode()).hexdigest() for one in sources]
        return [
            Verdict(True, None, "", len(s), identity=n, programs={"step": n.encode()})
            for s, n in zip(sources, names, strict=True)
        ]

    def train(tested, programs, steps):
        scores = [int(one["step"][:4], 16) / 700 for one in programs]
        tests = [score - 1 if tested else float("nan") for score in scores]
        return [
            Score(score, test, steps, None, (2.0, 1.0))
            for score, test in zip(scores, tests, strict=True)
        ]

    def bench(lesson, training, **_):
        opened.append((lesson, training))
        return Bench(check, partial(train, training.tested))

    monkeypatch.setattr(programs, "bench", bench)
    return opened


def test_a_run_by_random_edits_begins_with_the_nine_seeds_and_stands_beside_them(
    desk, drawn, said, tmp_path
):
    facts = said(*TINY, "--set", "proposer=random", "--out", str(tmp_path / "run"))
    run = open_run(tmp_path / "run")
    rows, results = run.candidates(), run.results()
    seeds = [triplets.SOURCES[name] for name in triplets.SEEDS]
    assert [row.genotype for row in rows[:9]] == seeds
    assert len(rows) == 9 + 2 * 4
    assert all(triplets.STUB in row.genotype for row in rows)
    assert [r.genotype for r in results if r.kind == "Triplet-GMPNN"] == seeds[:1]
    assert [r.genotype for r in results if r.kind == "hand-made"] == seeds[1:]
    assert facts["fitness_label"] == (
        "best score of validation in 20 steps on CLRS-30 bfs, %, mean of 1"
    )
    assert all(r.metrics["test"] == pytest.approx(r.metrics["fitness"] - 1) for r in results)
    assert facts["metrics"]["test"] == pytest.approx(facts["metrics"]["fitness"] - 1)
    assert facts["metrics"]["size"] == len(facts["best"])
    assert run.meta()["front"]["handmade"] == 9
    assert drawn == [("bfs", (4,), 64, 8)]
    (lesson, training), (_, final) = desk
    assert (training.tested, final.tested) == (False, True)
    assert (lesson.task.test, lesson.final.test) == (None, (5, 3))
    assert (lesson.task.algorithm, lesson.task.batch, lesson.task.hidden) == ("bfs", 32, 8)
    assert (training.learning_rate, training.deadline) == (0.001, 7200)


def test_a_model_is_shown_functions_and_goes_on_with_one(desk, said, monkeypatch, tmp_path):
    seen = []

    def speak(request):
        seen.append(request)
        return BODY.format(len(seen))

    monkeypatch.setattr(llm, "endpoint", lambda *_, **__: scripted(speak, model="m"))
    model = ("--set", "base_url=http://h/v1", "--set", "model=m")
    said(*TINY, *model, "--out", str(tmp_path / "run"))
    rows = open_run(tmp_path / "run").candidates()
    assert len(seen) == 8
    talk = [message["content"] for message in seen[0].messages]
    assert "triplet function" in talk[0]
    assert talk[-1].endswith(f"`{triplets.STUB}`.")
    assert sum(message["role"] == "assistant" for message in seen[0].messages) == 2
    assert all(triplets.STUB in shown for shown in talk[2::2])
    assert seen[0].grammar is None
    written = {BODY.format(n) for n in range(1, 9)}
    head = f"import flax.linen as nn\n{triplets.STUB}\n"
    assert {row.genotype for row in rows[9:]} == {head + body for body in written}
    assert all("val_accuracy" in asked for asked in talk[1::2])


def test_that_there_is_no_grammar_may_be_said(drawn, monkeypatch):
    monkeypatch.setattr(llm, "endpoint", lambda *_, **__: scripted([], model="m"))
    served = {"data": "clrs_bfs", "base_url": "http://h/v1", "model": "m"}
    build(replace(PRESETS["tiny"], **served, grammar="no"))
    with pytest.raises(ValueError, match="`grammar` is a setting of networks"):
        build(replace(PRESETS["tiny"], **served, grammar="yes"))


def test_the_paper_s_protocol_follows_the_data():
    paper = settled(Config(**(vars(PRESETS["paper"]) | {"data": "clrs_graham_scan"})))
    assert (paper.steps, paper.train_batch, paper.learning_rate) == (2000, 32, 0.001)
    assert (paper.clrs_nodes, paper.clrs_hidden) == ((4, 7, 11, 13, 16), 128)
    assert paper.clrs_test_nodes == data.TEST_LENGTH == 64
    mine = settled(Config(data="clrs_bfs", steps=7, train_batch=3, learning_rate=0.5, deadline=1.0))
    assert (mine.steps, mine.train_batch, mine.learning_rate, mine.deadline) == (7, 3, 0.5, 1.0)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("data=clrs_a_star", ("`data`", "clrs_", "kmp_matcher", "'clrs_a_star'")),
        ("grammar=yes", ("`grammar` is a setting of networks", "'yes'", "a set of signals")),
        ("edits=yes", ("`edits` is a setting of networks", "leave out `edits` = True")),
        ("weight_decay=0.1", ("`weight_decay` is a setting of networks", "0.1")),
        ("clrs_examples=8", ("`clrs_examples` must be at least 32", "(`train_batch`)", "got 8")),
        ("clrs_nodes=1", ("`clrs_nodes`", "(1,)")),
        ("clrs_hidden=0", ("`clrs_hidden` must be at least 1", "got 0")),
        ("clrs_test_nodes=1", ("`clrs_test_nodes` must be at least 2 for bfs", "got 1")),
        ("train_batch=-1", ("`train_batch` must be at least 1", "got -1")),
    ],
)
def test_settings_of_clrs_that_cannot_be_are_refused(drawn, refused, setting, words, tmp_path):
    how = ("--set", "proposer=random", "--set", setting, "--out", str(tmp_path / "run"))
    error = refused(*TINY, *how)
    assert all(word in error for word in words), error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", PRESETS)
def test_settings_of_clrs_are_refused_where_nothing_of_it_is_learned(preset):
    """As far as they are not those of a preset."""
    networks = replace(PRESETS[preset], proposer="random", data="none such")
    with pytest.raises(ValueError, match="`data` must be a known data set, but is 'none such'"):
        build(networks)  # it is not their fault
    with pytest.raises(ValueError, match="`data` must be a known data set"):
        build(replace(networks, clrs_test_nodes=Config.clrs_test_nodes))  # as of an older run
    given = {"clrs_nodes": (5,), "clrs_test_nodes": 9, "clrs_hidden": 5, "clrs_examples": 77}
    for name, value in given.items():
        wrong = replace(networks, **{name: value})
        with pytest.raises(ValueError, match=f"`{name}` is a setting of CLRS-30") as error:
            build(wrong)
        assert f"leave out `{name}` = {value!r}, or set `data` to clrs_ALGORITHM." in str(
            error.value
        )
    with pytest.raises(ValueError, match="`clrs_hidden` = 5, `clrs_examples` = 77"):
        build(replace(networks, clrs_hidden=5, clrs_examples=77))


def test_without_dm_clrs_a_run_is_not_begun_and_it_is_said_how_to_get_it(
    refused, monkeypatch, tmp_path
):
    def absent():
        raise data.DataError("dm-clrs", "this package is not installed", data.REMEDY)

    monkeypatch.setattr(data, "_samplers", absent)
    out = ("--out", str(tmp_path / "run"))
    assert "pip install --no-deps dm-clrs" in refused(*TINY, "--set", "proposer=random", *out)
    assert not (tmp_path / "run").exists()
    (tmp_path / "one.py").write_text(triplets.SOURCES["v1"])
    checked = refused("sandbox", str(tmp_path / "one.py"), "--task", "clrs_bfs")
    assert "pip install --no-deps dm-clrs" in checked


def test_the_command_checks_a_triplet_function_in_the_published_network(drawn, said, tmp_path):
    (tmp_path / "one.py").write_text(triplets.SOURCES["v8"])
    facts = said("sandbox", str(tmp_path / "one.py"), "--task", "clrs_bfs")
    assert (facts["ok"], facts["failure"]) == (True, None)
    assert facts["params"] == 523_963 + 21_448  # as published, by the paper's size of this one
    assert drawn == [("bfs", data.LENGTHS, 32, None)]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("clrs") is None, reason="dm-clrs draws the examples of this run")
def test_a_whole_run_trains_what_its_sandbox_lets_through(said, monkeypatch, tmp_path):
    monkeypatch.setattr(triplets, "SEEDS", {n: triplets.SEEDS[n] for n in ("v8", "v7")})
    few = ("rounds=1", "samples=1", "steps=4", "workers=1", "proposer=random")
    settings = [part for one in few for part in ("--set", one)]
    said(*TINY, *settings, "--out", str(tmp_path / "run"))
    rows = open_run(tmp_path / "run").candidates()
    assert len(rows) == 3
    assert [row.failure for row in rows[:2]] == [None, None]
    assert all(0 <= row.fitness <= 100 for row in rows[:2])
