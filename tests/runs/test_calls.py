"""Calls of language models in the ledger of a run."""

import sqlite3
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxnas.llm import (
    Client,
    Completion,
    ModelError,
    Prices,
    Reply,
    Usage,
    ask_all,
    attempts,
    scripted,
)
from jaxnas.llm.attempts import Attempt
from jaxnas.recipes.calls import row, to_ledger, used
from jaxnas.runs import Call, RunLockedError, Step, create, open_run, spent

OK = Call(1, "a" * 64, 1, "m", "ok", None, 2.0, 100, 20, 0.5)
UNTOLD = OK._replace(request="b" * 64, prompt=None, completion=None, money=None)
BOUND = OK._replace(request="d" * 64, completion=10, forced=4)
BUSY = Call(2, "c" * 64, 1, "m", "limited", 429, 0.5, None, None, None, "too many requests")


def tables(run):
    with sqlite3.connect(run.folder / "run.sqlite") as db:
        return {name for (name,) in db.execute("SELECT name FROM sqlite_master")}


def test_calls_come_back_as_they_were_and_in_their_order(tmp_path):
    run = create(tmp_path / "run", {})
    with run:
        run.put_calls([BUSY, OK])
        run.put_calls([UNTOLD])
    assert open_run(run.folder).calls() == [BUSY, OK, UNTOLD]


def test_a_run_that_asked_no_model_has_no_table_and_no_calls(tmp_path):
    """Nor has a ledger of a version that knew none; both can be written to later."""
    run = create(tmp_path / "run", {})
    assert "calls" not in tables(run)
    assert run.calls() == []
    with open_run(run.folder) as again:
        again.record([Step(1, 0, {})])
        again.put_calls([OK])
    assert open_run(run.folder).calls() == [OK]


def test_a_ledger_of_before_grammars_were_counted_can_be_read_and_written(tmp_path):
    run = create(tmp_path / "run", {})
    names = ("step", "request", "attempt", "model", "outcome", "status", "seconds")
    names += ("prompt", "completion", "money", "message")
    with sqlite3.connect(run.folder / "run.sqlite") as db:
        db.execute(f"CREATE TABLE calls (id INTEGER PRIMARY KEY, {', '.join(names)})")
        marks = ", ".join("?" * len(names))
        db.execute(f"INSERT INTO calls VALUES (NULL, {marks})", OK[: len(names)])
    assert open_run(run.folder).calls() == [OK]
    with open_run(run.folder) as again:
        again.put_calls([BOUND])
    assert open_run(run.folder).calls() == [OK, BOUND]


def test_what_a_grammar_forced_is_summed_over_the_replies_that_say(tmp_path):
    said = iter([(3, None, 4), (None, None), (0,)])

    async def send(request):
        replies = tuple(Reply("x", forced=forced) for forced in next(said))
        return Completion(replies, Usage(5, 9), "m", 0.1)

    question = [{"role": "user", "content": "?"}]
    with create(tmp_path / "run", {}) as run:
        client = attempts(Client("m", send), on_attempt=to_ledger(run))
        for _ in range(3):
            ask_all([client.complete(question)])
        assert [call.forced for call in run.calls()] == [7, None, 0]


def test_only_an_open_run_takes_calls(tmp_path):
    with pytest.raises(RunLockedError, match="inside `with run:`"):
        create(tmp_path / "run", {}).put_calls([OK])


def test_what_is_made_again_has_been_paid_for(tmp_path):
    with create(tmp_path / "run", {}) as run:
        run.record([Step(1, 0, {}), Step(2, 0, {})])
        run.put_calls([OK, OK._replace(step=2)])
        run.rewind(1)
        assert [step.step for step in run.steps()] == [1]
        assert [call.step for call in run.calls()] == [1, 2]


def test_threads_may_write_at_once(tmp_path):
    with create(tmp_path / "run", {}) as run, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: run.put_calls([OK._replace(attempt=n)]), range(40)))
        assert sorted(call.attempt for call in run.calls()) == list(range(40))


def test_sums_count_what_nobody_said_and_guess_nothing():
    total = spent([OK, OK, UNTOLD, BUSY])
    assert total == (4, 3, 200, 40, 0, 0, 1, 1.0, 1, 6.5)
    assert spent([]) == (0, 0, 0, 0, 0, 0, 0, 0.0, 0, 0.0)
    assert spent([OK, BOUND, BOUND])[3:6] == (40, 20, 8)


def test_the_price_of_an_attempt_is_that_of_its_tokens_or_unknown():
    attempt = Attempt("k", 1, "m", "ok", None, 1.5, None, Usage(1000, 200), "")
    call = row(attempt, 7, Prices(0.5, 2.0))
    assert call == Call(7, "k", 1, "m", "ok", None, 1.5, 1000, 200, pytest.approx(0.0009), "")
    assert row(attempt, 7, Prices(0, 0)).money == 0.0
    assert row(attempt, 7, Prices()).money is None
    assert row(attempt, 7, Prices(0.5)).money is None
    assert row(attempt._replace(usage=None), 7, Prices(0.5, 2.0)).money is None


def test_every_attempt_of_a_client_is_a_row_with_the_step_under_way(tmp_path):
    busy = ModelError("limited", "too many requests", status=429)
    question = [{"role": "user", "content": "two words"}]
    with create(tmp_path / "run", {}) as run:
        run.record([Step(step, 0, {}) for step in (1, 2, 3)])
        told = to_ledger(run, Prices(1.0, 1.0))
        client = attempts(scripted([busy, "three more words"]), backoff=0.0, on_attempt=told)
        ask_all([client.complete(question)])
        failed, done = run.calls()
        assert (failed.step, failed.attempt, failed.outcome, failed.status) == (
            4,
            1,
            "limited",
            429,
        )
        assert (done.step, done.attempt, done.outcome) == (4, 2, "ok")
        assert (done.prompt, done.completion, done.money) == (2, 3, pytest.approx(5e-6))
        assert used(run) == (2, 5, pytest.approx(5e-6))
        run.put_calls([UNTOLD])
        assert str(used(run).money) == "nan"
