import asyncio
import fcntl
import json
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from jaxnas.llm import (
    Budget,
    BudgetError,
    Completion,
    MissError,
    ModelError,
    ask_all,
    attempts,
    extract,
    record,
    replay,
    scripted,
    structured,
)
from jaxnas.llm.client import Request, canonical, request_key

ASK = [{"role": "user", "content": "A network, please."}]


def test_the_address_is_the_sha256_of_the_canonical_json_of_the_request():
    request = Request(({"role": "user", "content": "é"},), 2, 0.5, 9, 3, {"b": 1, "a": 2}, ("x",))
    assert json.dumps(canonical("m", request), sort_keys=True, separators=(",", ":")) == (
        r'{"max_tokens":9,"messages":[{"content":"\u00e9","role":"user"}],"model":"m","n":2,'
        r'"schema":{"a":2,"b":1},"seed":3,"stop":["x"],"temperature":0.5}'
    )
    # What `sha256sum` says of that line.
    key = "02cb8b3f21254298deb722d2dcac9776bea1c0b707672c2261d8f5a90faa6b39"
    assert request_key("m", request) == key


@pytest.mark.parametrize(
    "change",
    [
        {"n": 2},
        {"temperature": 0.5},
        {"max_tokens": 9},
        {"seed": 1},
        {"schema": {"type": "object"}},
        {"stop": ["a"]},
        {"messages": [{"role": "system", "content": "A network, please."}]},
    ],
)
def test_whatever_a_reply_depends_on_changes_the_address(tmp_path, change):
    ask_all([record(scripted(["a"]), tmp_path / "r.jsonl").complete(ASK)])
    client = replay(tmp_path / "r.jsonl")
    assert ask_all([client.complete(ASK)])[0].replies[0].text == "a"
    with pytest.raises(MissError, match="has no reply of 'scripted' to the request that begins"):
        ask_all([client.complete(**{"messages": ASK, **change})])


def test_a_run_through_all_wrappers_is_repeated_without_its_model(tmp_path):
    def speak(request):
        speak.asked += 1
        if request.schema:
            return ModelError("refused", "no schemas", status=400, free=True)
        if speak.asked % 5 == 0:
            return ModelError("server", "broke", status=500, free=True)
        return f'{{"a": {request.seed + speak.asked}}}'

    speak.asked = 0
    schema = {"type": "object", "required": ["a"]}

    def run(client):
        log = []
        client = structured(attempts(client, backoff=0.0, on_attempt=log.append))
        calls = [client.complete(ASK, seed=i, schema=schema) for i in range(12)]
        return ask_all(calls), log

    live, log = run(record(scripted(speak), tmp_path / "r.jsonl"))
    asked = speak.asked
    again, second = run(replay(tmp_path / "r.jsonl"))
    assert again == live
    assert all(isinstance(done, Completion) and done.replies[0].parsed for done in live)
    resumed, third = run(record(scripted(speak), tmp_path / "r.jsonl"))
    assert resumed == live
    assert speak.asked == asked + sum(a.outcome == "refused" for a in third)
    assert len(log) > len(second)  # what failed once and then worked works at once


def test_a_failure_is_replayed_and_asked_again_when_recording_goes_on(tmp_path):
    path = tmp_path / "r.jsonl"
    broken = ModelError("server", "broke", status=503, retry_after=2.0, free=True)
    (first,) = ask_all([record(scripted([broken]), path).complete(ASK)])
    (again,) = ask_all([replay(path).complete(ASK)])
    assert vars(again) == vars(first) == vars(broken)
    assert str(again) == "broke"
    ask_all([record(scripted(["mended"]), path).complete(ASK)])
    assert ask_all([replay(path).complete(ASK)])[0].replies[0].text == "mended"


def test_a_replay_ends_where_the_budget_did_though_it_counted_what_failed(tmp_path):
    path = tmp_path / "r.jsonl"
    busy = ModelError("limited", "busy", status=429, free=True)

    def through(client, most):
        guarded = attempts(Budget(requests=most).guard(client), backoff=0.0)
        return record(guarded, path)

    def ask(client, seeds=range(5)):
        return [ask_all([client.complete(ASK, seed=seed)])[0] for seed in seeds]

    live = ask(through(scripted(["a", busy, "b", busy, "c"]), 4))
    assert [isinstance(done, BudgetError) for done in live] == [False, False, True, True, True]
    again = ask(replay(path))
    assert again[:2] == live[:2]
    assert [vars(done) for done in again[2:]] == [vars(done) for done in live[2:]]
    assert [str(done) for done in again[2:]] == [str(done) for done in live[2:]]
    with pytest.raises(MissError, match="stopped before"):
        ask(replay(path), [5])

    more = ask(through(scripted(["c", "d"]), 2))
    assert [done.replies[0].text for done in more[:4]] == ["a", "b", "c", "d"]
    assert ask(replay(path))[:4] == more[:4]
    assert isinstance(ask(replay(path), [4])[0], BudgetError)


def test_equal_requests_at_the_same_time_are_sent_once(tmp_path):
    inner, sent = scripted(["first", "second"]), []

    async def send(request):
        sent.append(request)
        await asyncio.sleep(0.01)
        return await inner.send(request)

    client = record(inner._replace(send=send), tmp_path / "r.jsonl")
    done = ask_all(client.complete(ASK) for _ in range(5))
    assert {d.replies[0].text for d in done} == {"first"}
    assert len(sent) == 1
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 1


def test_two_recorders_of_one_file_go_on_with_the_reply_that_came_first(tmp_path):
    async def scenario():
        gate = asyncio.Event()

        async def late(request):
            await gate.wait()
            return await scripted(["late"]).send(request)

        slow = record(scripted([])._replace(send=late), tmp_path / "r.jsonl")
        quick = record(scripted(["quick"]), tmp_path / "r.jsonl")
        waiting = asyncio.create_task(slow.complete(ASK))
        await asyncio.sleep(0)
        first = await quick.complete(ASK)
        gate.set()
        return first, await waiting

    first, second = asyncio.run(scenario())
    assert first.replies[0].text == second.replies[0].text == "quick"


def test_a_writer_waits_for_the_one_that_is_writing(tmp_path):
    path = tmp_path / "r.jsonl"
    client = record(scripted(["a"]), path)
    with open(path) as other, ThreadPoolExecutor(1) as thread:
        fcntl.flock(other, fcntl.LOCK_EX)
        done = thread.submit(ask_all, [client.complete(ASK)])
        with pytest.raises(TimeoutError):
            done.result(timeout=0.2)
        assert path.read_bytes() == b""
        fcntl.flock(other, fcntl.LOCK_UN)
        assert done.result(timeout=10)[0].replies[0].text == "a"
    assert path.read_bytes().endswith(b"\n")


# Where only the line break was lost the reply stands.
@pytest.mark.parametrize(("lost", "second"), [(1, "b ü"), (2, "c"), (40, "c"), (200, "c")])
def test_a_line_cut_off_by_a_kill_is_read_over_and_the_file_goes_on(tmp_path, lost, second):
    path = tmp_path / "r.jsonl"
    client = record(scripted(["a", "b ü"]), path)
    ask_all([client.complete(ASK, seed=0)])
    ask_all([client.complete(ASK, seed=1)])
    path.write_bytes(path.read_bytes()[:-lost])
    assert ask_all([replay(path).complete(ASK, seed=0)])[0].replies[0].text == "a"
    client = record(scripted(["c", "d"]), path)
    done = ask_all(client.complete(ASK, seed=i) for i in range(3))
    assert [d.replies[0].text for d in done] == ["a", second, "d"]
    assert ask_all(replay(path).complete(ASK, seed=i) for i in range(3)) == done


@pytest.mark.parametrize("begun", [b"", b'{"key": "a'])
def test_an_end_that_a_power_cut_left_as_zeros_is_read_over(tmp_path, begun):
    path = tmp_path / "r.jsonl"
    client = record(scripted(["a", "b", "c"]), path)
    ask_all([client.complete(ASK, seed=0)])
    path.write_bytes(path.read_bytes() + begun + bytes(100))
    done = ask_all(client.complete(ASK, seed=i) for i in range(2))
    assert [d.replies[0].text for d in done] == ["a", "b"]
    assert ask_all(replay(path).complete(ASK, seed=i) for i in range(2)) == done


WRITER = """
import sys
from pathlib import Path
from jaxnas.llm import ask_all, record, scripted
name, path = sys.argv[1:]
client = record(scripted(lambda request: f"{name} {request.seed} " + "x" * 9000), path)
for i in range(60):
    message = [{"role": "user", "content": "?"}]
    ask_all([client.complete(message, seed=i), client.complete(message, seed=1000 + hash(name) % 7)])
    print(i, flush=True)
"""


def test_processes_that_write_one_file_and_are_killed_leave_a_sound_recording(tmp_path):
    path = tmp_path / "r.jsonl"
    command = [sys.executable, "-c", WRITER]
    writers = [
        subprocess.Popen([*command, name, str(path)], stdout=subprocess.PIPE, text=True)
        for name in ("anna", "berta", "clara")
    ]
    for _ in range(20):
        writers[0].stdout.readline()
    writers[0].send_signal(signal.SIGKILL)
    for writer in writers:
        writer.communicate(timeout=60)
    assert [w.returncode for w in writers] == [-signal.SIGKILL, 0, 0]
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    keys = [line["key"] for line in lines]
    assert len(keys) == len(set(keys))  # nobody's reply hides another's
    client = replay(path)
    done = ask_all(client.complete([{"role": "user", "content": "?"}], seed=i) for i in range(60))
    assert all(d.replies[0].text.split()[1] == str(i) for i, d in enumerate(done))


def test_files_that_are_no_recording_are_refused(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text('{"question": 1}\n')
    with pytest.raises(ValueError, match="`path` must be a recording"):
        replay(path)
    path.write_text("[1]\n")
    with pytest.raises(ValueError, match="`path` must be a recording"):
        record(scripted([]), path)
    for text in ("# Notes\n", '{"keys": 1', '{"key": "a", "request": {}}\n# Notes\n\xff\n'):
        path.write_text(f"{text}\n", encoding="latin-1")
        with pytest.raises(ValueError, match="`path` must be a recording"):
            record(scripted([]), path)
    path.write_text("")
    with pytest.raises(ValueError, match=r"`path` must be a recording with replies, but .* none"):
        replay(path)
    with pytest.raises(FileNotFoundError):
        replay(tmp_path / "none.jsonl")


def test_a_request_edited_by_hand_no_longer_lies_under_its_address(tmp_path):
    path = tmp_path / "r.jsonl"
    ask_all([record(scripted(["a"]), path).complete(ASK)])
    path.write_text(path.read_text().replace("A network", "Two networks"))
    with pytest.raises(ValueError, match="was edited"):
        replay(path)


def test_the_model_is_needed_only_where_there_are_several(tmp_path):
    path = tmp_path / "r.jsonl"
    for name in ("m1", "m2"):
        ask_all([record(scripted([name], model=name), path).complete(ASK)])
    with pytest.raises(ValueError, match=r"`model` must be one of .*\['m1', 'm2'\], but got None"):
        replay(path)
    assert ask_all([replay(path, "m2").complete(ASK)])[0].replies[0].text == "m2"


def test_a_recording_of_a_real_server_is_still_read_and_replayed():
    # SmolLM2-135M behind llama.cpp with one slot, which refuses n > 1 and takes JSON schemas.
    path = Path(__file__).with_name("smollm2.jsonl")
    log = []
    client = structured(attempts(replay(path), on_attempt=log.append))
    ask = [
        {"role": "user", "content": "Write a Python function area(r) in a code block. Code only."}
    ]
    schema = {
        "type": "object",
        "properties": {"layers": {"type": "integer"}},
        "required": ["layers"],
    }
    count = [{"role": "user", "content": "How many layers? JSON."}]
    refused, *networks, layers = ask_all(
        [
            client.complete(ask, n=3, max_tokens=60, seed=1, temperature=0.7),
            *(
                client.complete(ask, max_tokens=60, seed=seed, temperature=0.7)
                for seed in (150655819, 2140105, 259103119)
            ),
            client.complete(count, max_tokens=40, schema=schema, temperature=0.7),
        ]
    )
    assert refused.status == 400
    replies = [done.replies[0] for done in networks]
    found = [extract(reply.text, "area", finish=reply.finish) for reply in replies]
    assert [code.failure for code in found] == ["truncated", None, "truncated"]
    assert found[1].source == "def area(r):\n    return r * r * r\n"
    assert np.sum([done.usage for done in networks], axis=0).tolist() == [138, 155]
    assert layers.replies[0].parsed == {"layers": 3}
    assert sorted(a.outcome for a in log) == ["ok"] * 4 + ["refused"]
