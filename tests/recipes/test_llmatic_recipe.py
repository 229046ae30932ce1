"""LLMatic as a command: a scripted endpoint, its recording, a server that dies in the middle."""

import hashlib
import json
import random
import re
from dataclasses import replace
from difflib import ndiff
from functools import partial

import pytest

from jaxnas.cli import main
from jaxnas.llm import ModelError, attempts, scripted
from jaxnas.programs import cell_replies
from jaxnas.programs.bench import Bench
from jaxnas.programs.cell_replies import line, read
from jaxnas.programs.judge import Score
from jaxnas.programs.llmatic import LEGACY
from jaxnas.programs.sandbox.verdict import Verdict
from jaxnas.recipes import conduct, llm, llmatic, programs
from jaxnas.recipes.llmatic import PRESETS, Config, build
from jaxnas.runs.store import open_run

pytestmark = pytest.mark.usefixtures("quick_compile", "cell_table")
SERVED = {"base_url": "http://127.0.0.1:9/v1", "model": "scripted"}
CODE = {"problem": "code", "data": "mnist1d", "proposer": "random"}


def speak(request):
    """One edge of the cell shown is changed; every sixth reply is prose."""
    if request.seed % 6 == 0:
        return "I would add a convolution."
    cell = read(request.messages[-1]["content"].splitlines()[0])
    edge = request.seed % 5
    cell[edge] = (cell[edge] + 1 + request.seed % 4) % 5
    return line(cell)


@pytest.fixture
def serve(monkeypatch):
    """Puts an endpoint in place that fails for good after some replies."""

    def start(replies=10_000):
        left = [replies]

        def answer(request):
            left[0] -= 1
            refusal = ModelError("refused", "the server is gone", status=404, free=True)
            return speak(request) if left[0] >= 0 else refusal

        def endpoint(url, model, **_):
            start.urls.append(url)
            return scripted(answer, model=model)

        monkeypatch.setattr(llm, "endpoint", endpoint)

    start.urls = []
    return start


def run(folder, **settings):
    config = conduct.configure("llmatic", "tiny", settings)
    return conduct.start("llmatic", config, folder, preset="tiny", key=5).run


def candidates(done):
    return [row[:] for row in done.candidates()]


def test_a_run_asks_the_model_and_a_recording_repeats_it_without(serve, tmp_path):
    serve()
    first = run(tmp_path / "first", init_networks="1", **SERVED)
    rows = first.candidates()
    assert len(rows) == 12
    assert {row.failure for row in rows} <= {None, "parse", "duplicate"}
    assert "parse" in {row.failure for row in rows}
    check_parents(rows)
    assert len(first.calls()) == 12
    meta = first.meta()
    assert meta["status"] == "finished"
    assert set(meta["archives"]) == {"networks", "prompts"}
    assert len(meta["archives"]["networks"]["centroids"]) == 9
    assert meta["archives"]["networks"]["axes"][0] == ["convolutions", 0, 6]
    kinds = [row.kind for row in first.results()]
    assert kinds.count("random search") == kinds.count("aging evolution") == 2
    assert [curve.name for curve in first.curves()] == ["random search, equal budget"]

    recording = tmp_path / "first" / "replies.jsonl"
    asked = [json.loads(text)["request"] for text in recording.read_text().splitlines()]
    assert len(asked) == 12
    assert {request["max_tokens"] for request in asked} == {60}
    again = run(tmp_path / "again", replay=str(recording), init_networks="1")
    assert candidates(again) == candidates(first)


def test_a_run_whose_server_died_goes_on_as_if_it_had_not(serve, tmp_path):
    serve()
    whole = run(tmp_path / "whole", **SERVED)
    serve(replies=6)
    with pytest.raises(ModelError, match="gone"):
        run(tmp_path / "cut", **SERVED)
    serve()
    resumed = conduct.resume(tmp_path / "cut").run
    assert candidates(resumed) == candidates(whole)
    assert [row.metrics for row in resumed.results()] == [row.metrics for row in whole.results()]


def test_a_run_whose_budget_ends_is_judged_and_goes_on_with_more(serve, said, tmp_path):
    """Ten requests are two generations of four; what the third was answered is kept."""
    serve()
    whole = run(tmp_path / "whole", **SERVED)
    folder = tmp_path / "run"
    given = [word for name in SERVED for word in ("--set", f"{name}={SERVED[name]}")]
    tiny = ("run", "llmatic", "--preset", "tiny", "--key", "5", "--out", str(folder), *given)
    facts = said(*tiny, "--set", "requests=10")
    (warning,) = facts["warnings"]
    assert "after 2 of 3 steps" in warning
    assert "10 of `requests`=10 are used" in warning
    assert f"jaxnas resume {folder} --set" in warning
    cut = open_run(folder)
    assert candidates(cut) == candidates(whole)[:8]
    assert cut.meta()["status"] == "ended early"
    assert facts["best"] == max(cut.candidates(), key=lambda row: row.fitness or 0).genotype
    assert "Ended early, after 2 of 3 steps" in (folder / "report.html").read_text()

    assert said("resume", str(folder))["warnings"] == facts["warnings"]
    moved = ("--set", "base_url=http://moved/v1")
    more = said("resume", str(folder), "--set", "requests=20", *moved)
    assert serve.urls[-1] == "http://moved/v1"
    assert more["warnings"] == []
    resumed = open_run(folder)
    assert resumed.config["config"]["requests"] == 20
    assert candidates(resumed) == candidates(whole)
    assert resumed.results() == whole.results()
    assert len(resumed.calls()) == 12
    assert "Ended early" not in (folder / "report.html").read_text()


def test_a_replay_ends_where_a_budget_that_counted_retries_did(
    monkeypatch, said, refused, tmp_path
):
    """Three of twelve requests were turned down once: nine replies, the third generation is lost."""
    answered = set()

    def answer(request):
        if request.seed % 3 or request.seed in answered or len(answered) == 3:
            return speak(request)
        answered.add(request.seed)
        return ModelError("limited", "busy", status=429, free=True)

    monkeypatch.setattr(llm, "endpoint", lambda url, model, **_: scripted(answer, model=model))
    monkeypatch.setattr(llm, "attempts", partial(attempts, backoff=0.0))
    first = run(tmp_path / "first", requests="12", **SERVED)
    assert sum(call.outcome == "limited" for call in first.calls()) == 3
    assert first.meta()["status"] == "ended early"
    words = ("run", "llmatic", "--preset", "tiny", f"--set=replay={first.folder}/replies.jsonl")
    facts = said(*words, "--key", "5", "--out", str(tmp_path / "again"))
    again = open_run(tmp_path / "again")
    assert "12 of `requests`=12 are used" in facts["warnings"][0]
    assert candidates(again) == candidates(first)
    assert again.results() == first.results()
    assert {name: again.meta()[name] for name in ("status", "early")} == {
        name: first.meta()[name] for name in ("status", "early")
    }
    error = refused(*words, "--key", "6", "--out", str(tmp_path / "other"))
    assert "has no reply of 'scripted' to the request" in error


def test_settings_that_say_what_is_searched_stay_when_a_run_goes_on(serve, refused, tmp_path):
    serve()
    folder = run(tmp_path / "run", **SERVED, ablation="mutation", rivals="1").folder
    before = (folder / "config.json").read_text()
    error = refused("resume", str(folder), "--set", "ablation=none")
    assert "`ablation` of llmatic must stay" in error
    assert "requests" in error
    assert "Did you mean 'requests'" in refused("resume", str(folder), "--set", "request=2")
    error = refused("resume", str(folder), "--set", "base_url=")
    assert "`base_url` of llmatic may change from one to another" in error
    assert (folder / "config.json").read_text() == before


@pytest.mark.parametrize("limit", ["0", "2"])
def test_where_no_reply_can_be_read_nothing_is_found(monkeypatch, said, capsys, tmp_path, limit):
    """Neither from prose nor from a budget that does not reach for a generation."""
    mute = scripted(lambda request: "I would rather not.", model="scripted")
    monkeypatch.setattr(llm, "endpoint", lambda url, model, **_: mute)
    folder = tmp_path / "run"
    words = [f"--set={name}={text}" for name, text in (SERVED | {"requests": limit}).items()]
    facts = said("run", "llmatic", "--preset", "tiny", "--out", str(folder), *words)
    assert (facts["best"], facts["fitness"], facts["found"]) == (None, None, [])
    assert any("nothing was found by seed 0" in text for text in facts["warnings"])
    done = open_run(folder)
    assert {row.kind for row in done.results()} == {"random search", "aging evolution"}
    assert "Nothing found: of seed 0" in (folder / "report.html").read_text()
    main(["resume", str(folder)])
    told = capsys.readouterr()
    assert "random search" in told.out
    assert "nothing was found by seed 0" in told.err
    with pytest.raises(ValueError, match="found nothing"):
        llmatic.export(done, tmp_path / "found.py")


@pytest.fixture
def opened(monkeypatch):
    """Sandbox and training stand in for themselves: sizes are those of the text."""

    def check(sources):
        return [
            Verdict(
                ok=not source.startswith("<no program"),
                failure="parse" if source.startswith("<no program") else None,
                params=len(source),
                flops=100.0 * len(source),
                depth=source.count("nn."),
                width=50,
                identity=hashlib.sha256(source.encode()).hexdigest(),
                programs={"init": source.encode()},
            )
            for source in sources
        ]

    def train(programs, steps):
        return [Score(len(one["init"]) % 97, 2.0, steps, curve=(1.0, 0.5)) for one in programs]

    opened = []

    def bench(lesson, training, **settings):
        opened.append((lesson.name, lesson.task.optimizer, lesson.task.batch, settings["level"]))
        opened.append((training.seed, training.runs))
        return Bench(check, train)

    monkeypatch.setattr(programs, "bench", bench)
    return opened


def test_code_is_searched_by_the_same_command_and_its_source_exported(opened, tmp_path):
    done = run(tmp_path / "run", problem="code", data="mnist1d", proposer="random", steps="9")
    place = ("mnist1d", "adamw", 128, "auto")
    assert opened == [place, (0, 1), place, (1, 3)]
    rows = done.candidates()
    assert len(rows) == 12
    assert all("class Model(nn.Module)" in row.genotype for row in rows)
    assert {row.failure for row in rows} <= {None, "duplicate"}
    assert {row.cost for row in rows} <= {0.0, 9.0}
    check_parents(rows)
    kinds = {row.kind: row.metrics for row in done.results()}
    assert set(kinds) == {"found", "hand-made"}
    assert kinds["found"]["fitness"] == max(row.fitness for row in rows if row.fitness is not None)
    assert set(kinds["found"]) >= {"test", "params", "flops", "depth", "width"}
    (file,) = llmatic.export(done, tmp_path / "found.py")
    assert "class Model(nn.Module)" in file.read_text()


def test_a_model_can_be_asked_for_one_edit_of_a_parent(opened, monkeypatch, tmp_path):
    forms = []

    def speak(request):
        forms.append(request.schema["properties"]["line"]["enum"])
        dice = random.Random(request.seed)
        layer = f"x = nn.Dense({dice.randint(1, 99)})(x)"
        edit = {"edit": "insert after", "line": dice.choice(forms[-1]), "layer": layer}
        return "Sorry." if dice.random() < 0.2 else json.dumps(edit)

    monkeypatch.setattr(llm, "endpoint", lambda *_, **__: scripted(speak, model="m"))
    settings = {"base_url": "http://h/v1", "model": "m", "edits": "true"}
    done = run(tmp_path / "run", problem="code", data="mnist1d", **settings)
    rows = done.candidates()
    spoilt = sum(row.failure == "parse" for row in rows)
    assert 0 < spoilt < len(rows) == 12
    assert len(done.calls()) == 12 + spoilt  # each had a second chance
    seed = next(row.genotype for row in done.results() if row.kind == "hand-made")
    for row in rows:
        if row.failure != "parse":
            parents = (
                [rows[int(n) - 1].genotype for n in row.parents.split()[:1]] if row.parents else []
            )
            (parent,) = parents or [seed]
            news = [
                line
                for line in ndiff(parent.splitlines(), row.genotype.splitlines())
                if line[0] != " "
            ]
            assert len(news) == 1
            assert re.fullmatch(r"\+ +x = nn\.Dense\(\d+\)\(x\)", news[0])


def check_parents(rows):
    named = [(n, row.parents) for n, row in enumerate(rows, 1) if row.parents]
    assert named
    for n, parents in named:
        for serial in map(int, parents.split()):
            assert serial <= (n - 1) // 4 * 4, "a parent of its own generation"
            assert rows[serial - 1].failure is None


def test_without_a_model_it_is_said_how_to_give_one(monkeypatch):
    def absent(gguf):
        raise ValueError("the extra is not installed")

    monkeypatch.setattr(llm, "load_model", absent)
    with pytest.raises(ValueError, match="No language model") as error:
        build(PRESETS["default"])
    assert len(str(error.value).splitlines()) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluations": 7, "batch": 2}, "`evaluations` must be a positive multiple of `batch`"),
        ({"batch": 0}, "`batch` must be at least 1, but got 0"),
        ({"cells": 0}, "`cells` must be at least 1, but got 0"),
        ({"rivals": -1}, "`rivals` must be at least 0, but got -1"),
        ({"max_tokens": -1}, "`max_tokens` must be at least 0, but got -1"),
        ({"init_networks": -1}, "`init_networks` must be at least 1, but got -1"),
        ({"edits": True}, "`edits` is a setting of code, but `problem` is table; leave out"),
        ({"learning_rate": 0.5}, "`learning_rate` is a setting of code"),
        ({**CODE, "rivals": 9}, "`rivals` is a setting of the table, but `problem` is code"),
        ({"problem": "maze"}, "`problem` must be .* but got 'maze'"),
        ({"grammar": "latin"}, "`grammar` must be auto, yes or no, but got 'latin'"),
        ({"proposer": "monkey"}, "`proposer` must be llm or random, but got 'monkey'"),
        ({"proposer": "random", "ablation": "all"}, "`ablation` must be one of none"),
        ({"proposer": "random", "mutation": 2.0}, "`mutation` must be from 0 to 1, but got 2.0"),
        (
            {**CODE, "flops_low": 1e9},
            r"`flops_low` must be below `flops_high`, .* 1e\+09 and 1e\+06",
        ),
        ({**CODE, "ratio_high": -1.0}, "`ratio_high` must be positive, but got -1"),
        ({**CODE, "train_batch": 0}, "`train_batch` must be from 1 to the"),
        ({**CODE, "optimizer": "adam"}, "`optimizer` must be one of adamw, sgd, but got 'adam'"),
        ({"proposer": "random", "data": "mars"}, "`data` must be one of cifar10"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        build(Config(**settings))


@pytest.mark.parametrize(("grammar", "held"), [("auto", False), ("no", False), ("yes", True)])
def test_replies_of_an_endpoint_are_held_to_a_grammar_where_asked_for(
    serve, monkeypatch, grammar, held
):
    serve()
    given = []

    def from_client(client, **settings):
        given.append(settings)
        return lambda proposals: []

    monkeypatch.setattr(cell_replies, "from_client", from_client)
    build(Config(**SERVED, grammar=grammar))
    wanted = cell_replies.grammar() if held else None
    assert given == [{"max_tokens": 60, "grammar": wanted}]


def test_presets_have_the_published_numbers():
    assert (PRESETS["paper"].evaluations, PRESETS["paper"].batch) == (2000, 100)
    assert PRESETS["paper"].mutation == 0.7
    legacy = PRESETS["legacy"]
    assert (legacy.evaluations // legacy.batch, legacy.batch) == (200, 40)
    assert (legacy.mutation, legacy.init_prompts, legacy.published) == (0.85, 20, True)
    assert llmatic._rules(legacy) == LEGACY


def test_a_run_that_asks_nobody_refuses_settings_of_a_model():
    """As far as they were changed: of the tokens of a reply the default is this recipe's own."""
    nobody = Config(proposer="random")
    build(nobody)
    for name, value in {"base_url": "http://h/v1", "max_tokens": 9, "grammar": "yes"}.items():
        with pytest.raises(ValueError, match=f"`{name}` is a setting of a language model") as error:
            build(replace(nobody, **{name: value}))
        assert "set `proposer` to llm" in str(error.value)
