"""The model a recipe asks: who answers, what is kept, what is counted."""

from dataclasses import replace
from functools import partial

import pytest

from jaxnas.llm import BudgetError, Completion, ModelError, ask_all, attempts, scripted
from jaxnas.recipes import llm
from jaxnas.recipes.llm import HOW, ModelConfig, connect
from jaxnas.runs import create

ASK = [{"role": "user", "content": "A network?"}]
SERVED = ModelConfig(base_url="http://127.0.0.1:9/v1", model="m")


@pytest.fixture
def server(monkeypatch):
    """An endpoint that numbers its replies, and what it was opened with."""
    opened, served = [], []

    def speak(request):
        served.append(request)
        return f"reply {len(served)}"

    def endpoint(base_url, model, **options):
        opened.append((base_url, model, options))
        return scripted(speak, model=model)

    monkeypatch.setattr(llm, "endpoint", endpoint)
    return opened, served


def say(line, **fields):
    (done,) = ask_all([line.client.complete(ASK, **fields)])
    return done.replies[0].text if isinstance(done, Completion) else done


def test_without_a_model_three_lines_say_how_to_give_one(monkeypatch):
    monkeypatch.setattr("jaxnas.data.gguf_files.PACKAGE", "no_such_package")
    for config in (ModelConfig(), ModelConfig(model="m"), ModelConfig(base_url="http://h/v1")):
        with pytest.raises(ValueError, match="No language model") as error:
            connect(config)
        assert str(error.value) == HOW
    assert len(HOW.splitlines()) == 4
    with pytest.raises(ValueError, match="no_such_package"):
        connect(ModelConfig(model="local"))
    assert all(word in HOW for word in ("base_url", "model", "jaxnas[local]", "replay"))


def test_an_endpoint_is_opened_by_its_settings_and_the_name_of_its_key(server):
    config = ModelConfig(base_url="http://h/v1", model="m", key_env="MY_KEY", timeout=7.0)
    assert say(connect(config)) == "reply 1"
    assert server[0] == [("http://h/v1", "m", {"key_env": "MY_KEY", "timeout": 7.0})]


def test_replies_and_calls_are_kept_in_the_run_and_not_asked_again(server, tmp_path):
    with create(tmp_path / "run", {}) as run:
        line = connect(SERVED)
        line.attach(run)
        assert [say(line, seed=1), say(line, seed=2)] == ["reply 1", "reply 2"]
        again = connect(SERVED)
        again.attach(run)
        assert say(again, seed=1) == "reply 1"
        assert [call.outcome for call in run.calls()] == ["ok"] * 2
    assert len(server[1]) == 2
    replayed = connect(ModelConfig(replay=str(tmp_path / "run" / "replies.jsonl")))
    assert replayed.client.model == "m"
    assert [say(replayed, seed=1), say(replayed, seed=2)] == ["reply 1", "reply 2"]
    assert len(server[1]) == 2


def test_a_recording_elsewhere_is_used_by_its_name(server, tmp_path):
    kept = tmp_path / "kept" / "all.jsonl"
    line = connect(ModelConfig(base_url="http://h/v1", model="m", record=str(kept)))
    with create(tmp_path / "run", {}) as run:
        line.attach(run)
        assert say(line) == "reply 1"
        assert not (run.folder / "replies.jsonl").exists()
    assert "reply 1" in kept.read_text()


def test_what_a_run_has_spent_counts_when_it_goes_on(server, tmp_path):
    config = ModelConfig(base_url="http://h/v1", model="m", requests=2)
    with create(tmp_path / "run", {}) as run:
        first = connect(config)
        first.attach(run)
        assert say(first, seed=1) == "reply 1"
        second = connect(config)
        second.attach(run)
        assert say(second, seed=2) == "reply 2"
        assert isinstance(say(second, seed=3), BudgetError)


def test_a_reply_that_was_kept_is_not_charged_again(server, tmp_path):
    """So a run that was killed and asks once more is stopped where it would have been."""
    config = ModelConfig(base_url="http://h/v1", model="m", requests=2)
    with create(tmp_path / "run", {}) as run:
        first = connect(config)
        first.attach(run)
        assert say(first, seed=1) == "reply 1"
        second = connect(config)
        second.attach(run)
        assert [say(second, seed=1), say(second, seed=2)] == ["reply 1", "reply 2"]
        assert isinstance(say(second, seed=3), BudgetError)
        assert say(second, seed=2) == "reply 2"
        assert len(run.calls()) == 2


def test_a_recording_knows_neither_budget_nor_retries(monkeypatch, tmp_path):
    """What was refused the first time and what came back at the second count as one."""
    broken = ModelError("server", "broke", status=500, retry_after=0.0)
    lines = iter(["one", broken, "two", broken, broken])
    monkeypatch.setattr(llm, "endpoint", lambda *_, **__: scripted(lambda request: next(lines)))
    monkeypatch.setattr(llm, "attempts", partial(attempts, backoff=0.0))
    config = replace(SERVED, requests=5)
    with create(tmp_path / "run", {}) as run:
        line = connect(config)
        line.attach(run)
        live = [say(line, seed=seed) for seed in range(3)]
    assert live[:2] == ["one", "two"]
    assert isinstance(live[2], BudgetError)
    path = str(tmp_path / "run" / "replies.jsonl")
    for requests in (0, 1, 5):
        with create(tmp_path / f"again{requests}", {}) as run:
            line = connect(ModelConfig(replay=path, requests=requests, money=1.0))
            line.attach(run)
            again = [say(line, seed=seed) for seed in range(3)]
            assert again[:2] == live[:2]
            assert str(again[2]) == str(live[2])
            assert [call.outcome for call in run.calls()] == ["ok", "ok"]


def test_money_needs_prices(server):
    spent = {"base_url": "http://h/v1", "model": "m", "money": 1e-6}
    with pytest.raises(ValueError, match="`prices`"):
        connect(ModelConfig(**spent))
    line = connect(ModelConfig(**spent, price_prompt=1.0, price_completion=2.0))
    assert isinstance(say(line), BudgetError)


def test_a_server_that_fails_is_asked_again(monkeypatch):
    lines = [ModelError("limited", "busy", status=429, retry_after=0.0), "here"]
    monkeypatch.setattr(llm, "endpoint", lambda *_, **__: scripted(lines))
    assert say(connect(SERVED)) == "here"


def test_the_local_model_is_taken_where_nothing_else_is_named(monkeypatch):
    asked = []

    def serve(model, *, batch):
        asked.append((model, batch))
        return scripted(["at home"], model="small")

    monkeypatch.setattr(llm, "load_model", lambda path: f"weights of {path}")
    monkeypatch.setattr(llm, "serve", serve)
    assert say(connect(ModelConfig(concurrency=3, money=1e-9))) == "at home"  # it costs nothing
    assert connect(ModelConfig(model="local", gguf="other.gguf")).client.model == "small"
    assert asked == [("weights of None", 3), ("weights of other.gguf", 4)]


def test_other_models_share_recording_and_budget(server, tmp_path):
    config = ModelConfig(base_url="http://h/v1", model="m", requests=2)
    with create(tmp_path / "run", {}) as run:
        line = connect(config)
        line.attach(run)
        tuned = line.around(scripted(["tuned"], model="m+1"))
        assert (say(line), say(line._replace(client=tuned))) == ("reply 1", "tuned")
        assert isinstance(say(line, seed=5), BudgetError)
    path = str(tmp_path / "run" / "replies.jsonl")
    again = connect(ModelConfig(replay=path, model="m"))
    assert say(again._replace(client=again.around(tuned))) == "tuned"
