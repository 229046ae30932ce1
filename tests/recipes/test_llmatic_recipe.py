"""LLMatic as a command: a scripted endpoint, its recording, a server that dies in the middle."""

import hashlib
import json

import pytest

from jaxnas.llm import ModelError, scripted
from jaxnas.programs import cell_replies
from jaxnas.programs.bench import Bench
from jaxnas.programs.cell_replies import line, read
from jaxnas.programs.judge import Score
from jaxnas.programs.sandbox.verdict import Verdict
from jaxnas.recipes import conduct, llm, llmatic, programs
from jaxnas.recipes.llmatic import PRESETS, Config, build

pytestmark = pytest.mark.usefixtures("quick_compile", "cell_table")
SERVED = {"base_url": "http://127.0.0.1:9/v1", "model": "scripted"}


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

        monkeypatch.setattr(llm, "endpoint", lambda url, model, **_: scripted(answer, model=model))

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


def test_code_is_searched_by_the_same_command_and_its_source_exported(monkeypatch, tmp_path):
    """The sandbox and the training stand in for themselves: sizes are those of the text."""

    def check(sources):
        return [
            Verdict(
                ok=True,
                failure=None,
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
        ({"problem": "maze"}, "`problem` must be .* but got 'maze'"),
        ({"grammar": "latin"}, "`grammar` must be auto, yes or no, but got 'latin'"),
        ({"proposer": "monkey"}, "`proposer` must be llm or random, but got 'monkey'"),
        ({"proposer": "random", "ablation": "all"}, "`ablation` must be one of none"),
        ({"proposer": "random", "data": "mars"}, "`dataset` must be one of cifar10"),
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
