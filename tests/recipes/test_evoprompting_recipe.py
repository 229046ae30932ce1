"""`jaxnas run evoprompting`, with a scripted model and a bench without processes."""

import json
import random
from types import SimpleNamespace

import jax.numpy as jnp
import pytest
from reference.judging import Desk, source

from jaxnas.cli import main
from jaxnas.llm import scripted
from jaxnas.programs.bench import Bench
from jaxnas.programs.evoprompting import STUB
from jaxnas.programs.grammars import flax_class
from jaxnas.programs.soft_prompt import SoftPrompt, Tuning
from jaxnas.recipes import evoprompting as recipe, llm, program_subjects, programs
from jaxnas.recipes.evoprompting import PRESETS, Config, settled
from jaxnas.recipes.llm import is_constrained
from jaxnas.runs.store import open_run

pytestmark = pytest.mark.usefixtures("quick_compile")
SEEDS = {f"seed {n}": source(1000 * n, 40.0 + 10 * n, f"s{n}") for n in range(1, 5)}
TINY = ("run", "evoprompting", "--preset", "tiny", "--seeds", "2", "--json")
SERVED = ("--set", "base_url=http://h/v1", "--set", "model=m", "--set", "rounds=3")


def speak(request):
    dice = random.Random(request.seed)
    if dice.random() < 0.3:
        return dice.choice(["Sorry.", f"{STUB}\n    # fails shape\n    x = 1\n"])
    name = f"n{dice.randint(0, 30)}x"
    facts = random.Random(name)
    return source(facts.randint(100, 4000), facts.randint(300, 999) / 10, name)


@pytest.fixture(scope="module")
def desk():
    """Stands in for sandbox and trainer; counts what the model is asked."""
    served = []

    def endpoint(*_, **__):
        return scripted(lambda request: served.append(request) or speak(request), model="m")

    def bench(lesson, training, **_):
        desk = Desk()
        return Bench(desk.check, desk.train)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(programs, "bench", bench)
        patch.setattr(program_subjects, "MNIST1D", SEEDS)
        patch.setattr(llm, "endpoint", endpoint)
        yield served


@pytest.fixture(scope="module")
def whole(desk, tmp_path_factory):
    folder = tmp_path_factory.mktemp("evoprompting") / "run"
    desk.clear()
    main([*TINY, *SERVED, "--out", str(folder)])
    assert len(desk) == 2 * 3 * 4
    return open_run(folder)


def test_every_program_is_in_the_ledger_with_its_parents_and_its_reason(whole):
    for seed in (0, 1):
        rows = [row for row in whole.candidates() if row.seed == seed]
        assert len(rows) == 4 + 3 * 4
        assert [row.genotype for row in rows[:4]] == list(SEEDS.values())
        assert all(row.parents is None for row in rows[:4])
        for place, row in enumerate(rows[4:]):
            parents = [int(serial) for serial in row.parents.split()]
            assert len(parents) == 2
            assert all(1 <= parent <= 4 + place // 4 * 4 for parent in parents)
            assert all(rows[parent - 1].fitness is not None for parent in parents)
    assert {"parse", "shape"} <= set(whole.failures()) <= {"parse", "shape", "duplicate"}


def test_what_is_found_has_the_best_score_and_stands_beside_the_seeds(whole):
    found = [row for row in whole.results() if row.kind == "found"]
    seeds = [row for row in whole.results() if row.kind == "hand-made"]
    assert [row.genotype for row in seeds] == list(SEEDS.values())
    assert [row.metrics["size"] for row in seeds] == [1000, 2000, 3000, 4000]
    assert [row.metrics["error"] for row in seeds] == pytest.approx([50, 40, 30, 20])
    fronts = whole.meta()["front"]
    for row, one in zip(found, fronts["searches"], strict=True):
        product = min(size * error for _, size, error in one["measured"])
        assert row.metrics["size"] * row.metrics["error"] == pytest.approx(product)
        assert row.metrics["score"] == pytest.approx(-product / 100)
        assert row.metrics["fitness"] == pytest.approx(100 - row.metrics["error"])
        assert row.metrics["test"] == pytest.approx(row.metrics["fitness"] - 1)


def test_the_front_holds_what_nothing_beats_in_size_and_error(whole):
    fronts = whole.meta()["front"]
    assert fronts["handmade"] == 4
    for seed, one in enumerate(fronts["searches"]):
        rows = [row for row in whole.candidates() if row.seed == seed]
        told = {serial: (size, error) for serial, size, error in one["measured"]}
        assert {s: pytest.approx(100 - rows[s - 1].fitness, abs=1e-4) for s in told} == {
            s: error for s, (_, error) in told.items()
        }
        assert len(told) == sum(row.fitness is not None for row in rows)
        free = [
            s
            for s, (a, b) in told.items()
            if not any(c <= a and d <= b and (c, d) != (a, b) for c, d in told.values())
        ]
        assert sorted(one["best"]) == sorted(free)


def test_the_course_of_a_search_is_recorded(whole):
    for seed in (0, 1):
        steps = [row.metrics for row in whole.steps() if row.seed == seed]
        assert len(steps) == 4
        scores = [step["score"] for step in steps]
        assert scores == sorted(scores)
        assert scores[0] == pytest.approx(-500)  # the smallest seed
        assert all(s["score"] == pytest.approx(-s["size"] * s["error"] / 100) for s in steps)


def test_calls_are_in_the_ledger_and_replies_in_the_folder(whole):
    assert [call.outcome for call in whole.calls()] == ["ok"] * 24
    assert len((whole.folder / "replies.jsonl").read_text().splitlines()) == 24
    assert (whole.folder / "report.html").exists()


def test_a_run_is_repeated_by_its_recording_without_a_model(whole, desk, tmp_path):
    desk.clear()
    replay = f"replay={whole.folder / 'replies.jsonl'}"
    main([*TINY, "--set", replay, "--set", "rounds=3", "--out", str(tmp_path / "run")])
    again = open_run(tmp_path / "run")
    assert not desk
    assert again.candidates() == whole.candidates()
    assert again.results() == whole.results()


def test_a_killed_run_resumes_to_the_uninterrupted_one(whole, desk, tmp_path, killed, capsys):
    folder = tmp_path / "run"
    killed(*TINY, *SERVED, "--out", str(folder), step=3)
    capsys.readouterr()
    desk.clear()
    main(["resume", str(folder), "--json"])
    assert json.loads(capsys.readouterr().out)["recipe"] == "evoprompting"
    assert len(desk) == 2 * 4  # the replies of the step that was lost were kept
    resumed = open_run(folder)
    assert resumed.candidates() == whole.candidates()
    assert resumed.steps() == whole.steps()
    assert resumed.results() == whole.results()
    assert resumed.meta()["front"] == whole.meta()["front"]


def test_a_run_whose_budget_ends_answers_with_what_it_has_and_goes_on(whole, desk, said, tmp_path):
    """Fourteen requests are the first round of two seeds and six of the second."""
    folder = tmp_path / "run"
    facts = said(*TINY[:-1], *SERVED, "--set", "requests=14", "--out", str(folder))
    assert "after 2 of 4 steps" in facts["warnings"][0]
    cut = open_run(folder)
    assert cut.candidates() == [row for row in whole.candidates() if row.step <= 2]
    for seed, found in enumerate(facts["found"]):
        (last,) = [row.metrics for row in cut.steps() if (row.step, row.seed) == (2, seed)]
        assert found["score"] == pytest.approx(last["score"])
    assert len(cut.meta()["front"]["searches"]) == 2
    desk.clear()
    assert said("resume", str(folder), "--set", "requests=24")["warnings"] == []
    assert len(desk) == 24 - 14
    resumed = open_run(folder)
    assert resumed.candidates() == whole.candidates()
    assert resumed.results() == whole.results()
    assert resumed.meta()["front"] == whole.meta()["front"]


@pytest.mark.parametrize("setting", ["baseline=few_shot", "baseline=random_parents"])
def test_baselines_are_settings(setting, desk, said, tmp_path):
    out = ("--out", str(tmp_path / "run"))
    said("run", "evoprompting", "--preset", "tiny", *SERVED, "--set", setting, *out)
    rows = open_run(tmp_path / "run").candidates()
    parents = {int(serial) for row in rows[4:] for serial in row.parents.split()}
    assert (parents <= {1, 2, 3, 4}) == (setting == "baseline=few_shot")


def test_random_edits_take_the_place_of_a_model(desk, said, tmp_path):
    desk.clear()
    out = ("--out", str(tmp_path / "run"))
    said("run", "evoprompting", "--preset", "tiny", "--set", "proposer=random", *out)
    run = open_run(tmp_path / "run")
    assert not desk
    assert len(run.candidates()) == 4 + 2 * 4
    assert run.calls() == []
    assert not (run.folder / "replies.jsonl").exists()


def test_the_best_program_can_be_written_to_a_file(whole, tmp_path, capsys):
    main(["export", str(whole.folder), "--out", str(tmp_path / "best.py"), "--json"])
    written = (tmp_path / "best.py").read_text()
    found = [row for row in whole.results() if row.kind == "found"]
    best = max(found, key=lambda row: row.metrics["fitness"])
    assert written.endswith(best.genotype)


def test_a_soft_prompt_is_tuned_between_rounds_on_what_became_no_parent(
    desk, said, monkeypatch, tmp_path
):
    told, served = [], []

    def tune(state, key, sources):
        told.append(sources)
        return SoftPrompt(state.vectors + 1, 10.0 * len(told) - jnp.arange(5.0))

    def serve(model, *, batch=8, soft_prompt=None):
        served.append(None if soft_prompt is None else float(soft_prompt[0, 0]))
        return scripted(speak, model=f"small+{served[-1]}")

    def start(key):
        return SoftPrompt(jnp.zeros((2, 3)), jnp.full(5, jnp.nan))

    monkeypatch.setattr(recipe, "load_model", lambda path: SimpleNamespace(name="small"))
    monkeypatch.setattr(recipe, "serve", serve)
    monkeypatch.setattr(recipe, "soft_prompt", lambda model, messages: Tuning(start, tune))
    settings = ("--set", "tune=soft_prompt", "--set", "rounds=3", "--set", "survivors=1")
    said("run", "evoprompting", "--preset", "tiny", *settings, "--out", str(tmp_path / "run"))
    run = open_run(tmp_path / "run")
    assert served == [None, 0, 1, 2]
    names = list(dict.fromkeys(call.model for call in run.calls()))
    assert len(names) == 3
    assert all(name.startswith("small+") for name in names)
    rows = run.candidates()
    for number, sources in enumerate(told):
        mine = rows[4 + 4 * number : 8 + 4 * number]
        following = {int(s) for s in rows[8 + 4 * number].parents.split()}
        measured = [r.genotype for r in mine if r.fitness is not None]
        chosen = {rows[serial - 1].genotype for serial in following}
        assert sources == [one for one in measured if one not in chosen]
    course = [
        tuple(step.metrics[f"tuning_loss_{n}"] for n in ("first", "last")) for step in run.steps()
    ]
    assert list(dict.fromkeys(course)) == [(None, None), (10, 6), (20, 16)]
    replay = ("--set", f"replay={run.folder / 'replies.jsonl'}")
    said(
        "run", "evoprompting", "--preset", "tiny", *settings, *replay, "--out", str(tmp_path / "2")
    )
    assert open_run(tmp_path / "2").candidates() == rows


def test_the_local_model_is_held_to_a_grammar_unless_told_otherwise(
    desk, said, monkeypatch, tmp_path
):
    asked = []

    def speaking(request):
        asked.append(request.grammar)
        return speak(request)

    monkeypatch.setattr(llm, "load_model", lambda path: None)
    monkeypatch.setattr(llm, "serve", lambda *_, **__: scripted(speaking, model="small"))
    for number, word in enumerate(["auto", "no"]):
        out = ("--out", str(tmp_path / str(number)))
        said("run", "evoprompting", "--preset", "tiny", "--set", f"grammar={word}", *out)
    assert asked == [flax_class((40,), 10)] * 8 + [None] * 8
    for number in ("0", "1"):
        recording = str(tmp_path / number / "replies.jsonl")
        assert is_constrained(Config(replay=recording)) == (number == "0")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("data=shapes", ("`data`", "signals")),
        ("baseline=all", ("`baseline`", "few_shot", "'all'")),
        ("style=poem", ("`style`", "chat", "'poem'")),
        ("proposer=me", ("`proposer`", "'me'")),
        ("tune=lora", ("`tune`", "'lora'")),
        ("tune=soft_prompt", ("`tune`", "local model")),
        ("edits=maybe", ("edits", "maybe")),
        ("grammar=some", ("`grammar`", "'some'")),
        ("samples=0", ("`samples`", "0")),
        ("temperatures=0.5,-1", ("`temperatures`", "not negative", "-1")),
        ("threshold=nan", ("`threshold`", "up to 1", "nan")),
        ("threshold=50", ("`threshold`", "up to 1", "50")),
        ("max_tokens=0", ("`max_tokens`", "at least 1", "0")),
        ("timeout=0", ("`timeout`", "positive", "0")),
        (f"replay={__file__}", ("`path` must be a recording", "test_evoprompting_recipe.py")),
    ],
)
def test_settings_that_cannot_be_are_refused(desk, refused, setting, words, tmp_path):
    folder = tmp_path / "run"
    error = refused(*TINY, *SERVED, "--set", setting, "--out", str(folder))
    assert all(word in error for word in words), error
    assert not folder.exists()


def test_settings_of_a_model_do_not_go_with_random_edits(desk, refused, tmp_path):
    settings = ("--set", "proposer=random", "--set", "concurrency=9", *SERVED)
    error = refused(*TINY, *settings, "--out", str(tmp_path / "run"))
    given = "`model` = 'm', `base_url` = 'http://h/v1', `concurrency` = 9"
    assert f"leave out {given}, or set `proposer` to llm" in error
    assert not (tmp_path / "run").exists()


def test_random_edits_are_not_tuned(desk, refused, tmp_path):
    settings = ("--set", "proposer=random", "--set", "tune=soft_prompt")
    error = refused(*TINY, *settings, "--out", str(tmp_path / "run"))
    assert "`tune`" in error
    assert "`proposer`" in error


def test_a_soft_prompt_of_whole_classes_is_not_tuned_for_edits(desk, refused, tmp_path):
    settings = ("--set", "edits=true", "--set", "tune=soft_prompt")
    error = refused(*TINY, *settings, "--out", str(tmp_path / "run"))
    assert "`tune`" in error
    assert "`edits`" in error


def test_without_a_model_it_says_how_to_give_one(desk, refused, monkeypatch, tmp_path):
    monkeypatch.setattr("jaxnas.data.gguf_files.PACKAGE", "no_such_package")
    error = refused(*TINY, "--out", str(tmp_path / "run"))
    assert "base_url=" in error
    assert "replay=" in error
    assert not (tmp_path / "run").exists()


def test_the_paper_asks_for_1600_programs():
    paper = settled(PRESETS["paper"])
    assert paper.rounds * paper.prompts * paper.samples == 1600
    assert (paper.steps, paper.learning_rate, paper.train_batch) == (8000, 0.01, 128)
    assert (paper.examples, paper.survivors, paper.threshold) == (2, 10, 0.5)
    assert isinstance(paper, Config)
