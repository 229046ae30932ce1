import asyncio
import gc
import io
import json
import logging
import time
import traceback

import pytest
from chat_server import completion, cuts, drips, fails, hangs, raw, says, send, serving, slow

from jaxnas.llm import (
    Budget,
    Completion,
    ModelError,
    Usage,
    ask_all,
    attempts,
    endpoint,
    record,
    structured,
)

pytest.importorskip("openai", reason="the llm extra (openai) is not installed")

ASK = [{"role": "user", "content": "Write a network."}]
KEY = "sk-very-secret-4711"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")


def one(client, **fields):
    (done,) = ask_all([client.complete(ASK, **fields)])
    return done


def test_a_completion_has_replies_usage_finish_model_and_latency():
    with serving(says("a", "b", finish="length")) as server:
        done = one(endpoint(server.url, "m"), n=2, temperature=0.5, max_tokens=9, seed=3)
    assert [reply.text for reply in done.replies] == ["a", "b"]
    assert {reply.finish for reply in done.replies} == {"length"}
    assert (done.usage, done.model) == (Usage(11, 5), "m-1")
    assert 0 < done.latency < 60
    (body,) = server.bodies
    expected = {"model": "m", "messages": ASK, "n": 2, "temperature": 0.5, "max_tokens": 9}
    assert body == {**expected, "seed": 3}


def test_schema_stop_and_the_name_of_the_length_are_sent_as_asked():
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    with serving(says("{}")) as server:
        client = endpoint(server.url, "m", length_field="max_completion_tokens")
        one(client, schema=schema, stop=["```"])
        one(client, schema={"type": "object"})
    first, second = server.bodies
    assert first["response_format"]["json_schema"]["schema"] == schema
    assert first["stop"] == ["```"]
    assert "max_tokens" not in first
    assert first["max_completion_tokens"] == 512
    assert second["response_format"] == {"type": "json_object"}
    assert "stop" not in second
    assert "n" not in second


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("grammar", {"grammar": "root ::= x"}),
        ("structured_outputs.grammar", {"structured_outputs": {"grammar": "root ::= x"}}),
    ],
)
def test_a_grammar_is_sent_under_the_name_the_server_has_for_it(field, sent):
    with serving(says("x")) as server:
        client = endpoint(server.url, "m", grammar_field=field)
        one(client, grammar="root ::= x")
        one(client)
    first, second = server.bodies
    assert {name: first[name] for name in sent} == sent
    assert set(first) - set(second) == set(sent)
    with pytest.raises(ValueError, match="exclude each other"):
        one(client, grammar="root ::= x", schema={"type": "object"})


@pytest.mark.parametrize(
    ("act", "kind", "status", "free"),
    [
        (fails(400), "refused", 400, True),
        (fails(401), "refused", 401, True),
        (fails(408), "timeout", 408, True),
        (fails(429), "limited", 429, True),
        (fails(500), "server", 500, True),
        (fails(504), "server", 504, False),
        (raw("<html>busy</html>", Content_Type="text/html"), "malformed", None, False),
        (raw('{"choices": ['), "malformed", None, False),
        (raw("null"), "malformed", None, False),
        (raw('{"choices": []}'), "malformed", None, False),
        (raw('{"choices": [{"message": 3}]}'), "malformed", None, False),
        (raw('{"error": {"message": "upstream"}}'), "malformed", None, False),
        (cuts, "connection", None, False),
        (hangs(60), "timeout", None, False),
        (drips(60), "timeout", None, False),
    ],
)
def test_every_misbehaviour_is_one_typed_error_after_one_request(act, kind, status, free):
    with serving(act) as server:
        error = one(endpoint(server.url, "m", timeout=0.4 if kind == "timeout" else 60.0))
    assert isinstance(error, ModelError)
    assert (error.kind, error.status, error.free) == (kind, status, free)
    assert len(server.bodies) == 1  # the package's own retries are off
    # What the package raises holds the request, and the request its headers.
    assert error.__cause__ is error.__context__ is None


def test_a_server_that_is_not_there_bills_nothing():
    with serving(says("a")) as server:
        pass
    error = one(endpoint(server.url, "m", timeout=5.0))
    assert (error.kind, error.free) == ("connection", True)


def test_the_wait_a_server_asks_for_is_read_as_seconds_or_as_a_date():
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 100))
    waits = {"7": 7.0, "0.5": 0.5, "-3": 0.0, "soon": None, "nan": None, "inf": None, "": None}
    for header, wait in waits.items():
        with serving(fails(429, Retry_After=header)) as server:
            assert one(endpoint(server.url, "m")).retry_after == wait, header
    with serving(fails(503, Retry_After=date)) as server:
        assert 90 < one(endpoint(server.url, "m")).retry_after <= 100


@pytest.mark.parametrize(
    "usage",
    [
        None,
        [],
        "many",
        (3, -1),
        (3, "5"),
        (3, None),
        (True, 5),
        {"prompt_tokens": 3},
        (3.5, 1),
    ],
)
def test_usage_that_makes_no_sense_is_unknown_and_the_reply_stands(usage):
    with serving(says("a", usage=usage)) as server:
        done = one(endpoint(server.url, "m"))
    assert done.replies[0].text == "a"
    assert done.usage is None


def test_half_a_surrogate_pair_and_a_missing_text_can_still_be_stored():
    answer = json.dumps(completion("a\ud800b", "")).replace('""', "null")
    with serving(lambda handler, body: send(handler, answer)) as server:
        done = one(endpoint(server.url, "m"))
    assert [reply.text for reply in done.replies] == ["a?b", ""]
    done.replies[0].text.encode()


@pytest.fixture
def logged():
    """Everything any logger says."""
    written, names = io.StringIO(), ("", "openai", "httpx", "httpx2", "httpcore", "httpcore2")
    handler, levels = logging.StreamHandler(written), [logging.getLogger(n).level for n in names]
    logging.getLogger().addHandler(handler)
    for name in names:
        logging.getLogger(name).setLevel(logging.DEBUG)
    yield written
    logging.getLogger().removeHandler(handler)
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)


def test_the_key_is_sent_and_stands_in_nothing_that_is_written(monkeypatch, tmp_path, logged):
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    log = []

    def client_of(server, timeout):
        client = endpoint(server.url, "m", key_env="MY_KEY", timeout=timeout)
        client = record(client, tmp_path / "replies.jsonl")
        return attempts(client, backoff=0.0, retries=3, on_attempt=log.append)

    acts = fails(401, f"Wrong key: {KEY}."), fails(500, KEY), raw(f"no JSON but {KEY}"), cuts
    with serving(*acts, says("done")) as server, serving(hangs(60)) as hanging:
        clients = client_of(server, 60.0), client_of(hanging, 0.4)
        refused, done, late = one(clients[0]), one(clients[0], seed=1), one(clients[1], seed=2)
    outcomes = ["refused", "server", "malformed", "connection", "ok", *["timeout"] * 4]
    assert [a.outcome for a in log] == outcomes
    assert (refused.status, late.kind, done.replies[0].text) == (401, "timeout", "done")
    assert "Wrong key: ***" in str(refused)
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert "HTTP Request" in logged.getvalue()  # the package did log
    said = [logged.getvalue(), file.read_text(), repr(clients), repr(log), repr(done)]
    for error in (refused, late):
        said += [*traceback.format_exception(error), repr(error), repr(vars(error))]
    for text in said:
        assert KEY not in text


@pytest.mark.parametrize("value", [None, "", "  ", "schlüssel", "a\nb"])
def test_a_key_that_cannot_be_sent_is_refused_by_the_name_of_its_variable(monkeypatch, value):
    if value is None:
        monkeypatch.delenv("MY_KEY", raising=False)
    else:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ValueError, match="`key_env` names MY_KEY") as error:
        endpoint("http://127.0.0.1:1/v1", "m", key_env="MY_KEY")
    assert not (value and value.strip()) or value not in str(error.value)


def test_without_a_configured_key_no_key_of_the_environment_is_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(says("a")) as server:
        one(endpoint(server.url, "m"))
    assert KEY not in json.dumps(server.headers)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8091/v1", "ftp://x/v1", f"https://u:{KEY}@x/v1", f"https://x/?k={KEY}"]
)
def test_a_base_url_that_is_none_or_holds_a_secret_is_refused_without_repeating_it(url):
    with pytest.raises(ValueError, match="`base_url`") as error:
        endpoint(url, "m")
    assert KEY not in str(error.value)


def test_one_client_serves_many_event_loops_and_leaves_no_connection(recwarn):
    with serving(says("a")) as server:
        client = attempts(endpoint(server.url, "m"), concurrency=2)
        for seed in range(3):
            calls = [client.complete(ASK, seed=10 * seed + i) for i in range(5)]
            assert all(isinstance(done, Completion) for done in ask_all(calls))
    gc.collect()
    assert len(server.bodies) == 15
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning)]


def test_no_more_requests_reach_the_server_at_once_than_allowed():
    with serving(slow(0.05, says("a"))) as server:
        client = attempts(endpoint(server.url, "m"), concurrency=3)
        ask_all(client.complete(ASK, seed=i) for i in range(12))
    assert len(server.bodies) == 12
    assert server.most == 3


def test_a_cancelled_request_lets_go_of_the_server_at_once_and_is_charged():
    budget = Budget(requests=9)

    async def scenario(client):
        task = asyncio.create_task(client.complete(ASK, max_tokens=100))
        while not server.bodies:
            await asyncio.sleep(0.01)
        task.cancel()
        begin = time.perf_counter()
        with pytest.raises(asyncio.CancelledError):
            await task
        return time.perf_counter() - begin

    with serving(hangs(60)) as server:
        took = asyncio.run(scenario(budget.guard(endpoint(server.url, "m"))))
    assert took < 30
    assert budget.used.requests == 1
    assert budget.used.tokens > 100


def test_a_server_that_knows_no_schema_still_gives_what_was_asked():
    def act(handler, body):
        if "response_format" in body:
            fails(400, "unsupported")(handler, body)
        else:
            says(f'Here: {{"a": {body["seed"]}}}')(handler, body)

    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    with serving(act) as server:
        client = structured(attempts(endpoint(server.url, "m"), backoff=0.0))
        told = [one(client, schema=schema, seed=seed) for seed in (3, 4)]
    assert [done.replies[0].parsed["a"] for done in told] == [3, 4]
    assert len(server.bodies) == 3 + 1  # what it refuses is not asked again
