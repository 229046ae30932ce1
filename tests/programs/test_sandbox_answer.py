"""What comes out of a sandbox may be anything; what is made of it has the form of a verdict."""

import json
import os
import signal
import struct
import time

import pytest

from jaxnas.programs.sandbox import frames
from jaxnas.programs.sandbox.answer import judge
from jaxnas.programs.sandbox.pool import Limits

LIMITS = Limits(answer=100)
ENDED = {"reason": "", "status": 0, "output": ""}
GOOD = {
    "failure": None,
    "params": 3,
    "flops": 2.0,
    "depth": 1,
    "width": 4,
    "identity": "0" * 64,
    "layout": [["Dense/0/kernel", [1, 2]], ["Dense/0/bias", [1]]],
    "programs": {"init": 1, "step": 2, "evaluate": 3},
}


def test_an_honest_answer_is_a_verdict():
    verdict = judge(ENDED, frames.pack(GOOD, b"abbccc"), LIMITS)
    assert verdict.ok
    assert (verdict.params, verdict.flops, verdict.depth, verdict.width) == (3, 2.0, 1, 4)
    assert verdict.layout == (("Dense/0/kernel", (1, 2)), ("Dense/0/bias", (1,)))
    assert verdict.programs == {"init": b"a", "step": b"bb", "evaluate": b"ccc"}
    assert judge(ENDED, frames.pack(GOOD | {"layout": []}, b"abbccc"), LIMITS).layout == ()
    tested = GOOD | {"programs": GOOD["programs"] | {"test": 2}}
    verdict = judge(ENDED, frames.pack(tested, b"abbcccdd"), LIMITS)
    assert verdict.programs == {"init": b"a", "step": b"bb", "evaluate": b"ccc", "test": b"dd"}


@pytest.mark.parametrize(
    "lie",
    [
        {"params": -1},
        {"params": True},
        {"params": 10**30},
        {"width": 2**31},
        {"params": "3"},
        {"flops": float("nan")},
        {"flops": float("inf")},
        {"flops": None},
        {"identity": "x" * 64},
        {"identity": 3},
        {"layout": None},
        {"layout": [["Dense/0/kernel", [2]]]},
        {"layout": [["Dense 0", [3]]]},
        {"layout": [["x" * 101, [3]]]},
        {"layout": [["x", 3]]},
        {"layout": [["x", [-1, -3]]]},
        {"layout": ["x3"]},
        {"programs": {"init": 6}},
        {"programs": {"init": 1, "step": 2, "evaluate": 4}},
        {"programs": {"init": -1, "step": 4, "evaluate": 3}},
        {"programs": {"init": 1, "step": 2, "test": 3}},
        {"programs": {"init": 1, "step": 2, "evaluate": 2, "more": 1}},
        {"programs": [1, 2, 3]},
        {"failure": "fine"},
        {"failure": ["parse"]},
    ],
)
def test_a_lie_is_a_crash(lie):
    verdict = judge(ENDED, frames.pack(GOOD | lie, b"abbccc"), LIMITS)
    assert (verdict.ok, verdict.failure, verdict.programs) == (False, "crash", {})


def test_more_parameters_than_can_be_stored_are_too_many():
    verdict = judge(ENDED, frames.pack(GOOD | {"params": 2**31}, b"abbccc"), LIMITS)
    assert (verdict.ok, verdict.failure) == (False, "memory")
    assert "2,147,483,648 parameters" in verdict.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"jxn1",
        b"x" * 200,
        frames.pack(GOOD, b"abbccc") + b"x",
        frames.pack(GOOD, b"abbccc")[:-1],
        frames.pack(GOOD, b"x" * 101),
        struct.pack("!4sII", b"jxn1", 3, 0) + b"[1]",
        struct.pack("!4sII", b"jxn1", 2, 0) + b"\xff\xff",
        struct.pack("!4sII", b"jxn1", 200_000, 0) + b"[" * 200_000,
        struct.pack("!4sII", b"jxn1", 9_000, 0) + b"9" * 9_000,
    ],
)
def test_what_is_no_message_is_a_crash(data):
    assert judge(ENDED, data, LIMITS).failure == "crash"


def test_a_message_for_a_model_is_short_and_can_be_stored():
    said = {"failure": "shape", "message": "a\x1b[31m\ud800\0" + "x" * 5000}
    header = json.dumps(said).encode()
    data = struct.pack("!4sII", b"jxn1", len(header), 0) + header
    verdict = judge(ENDED, data, LIMITS)
    assert verdict.failure == "shape"
    assert verdict.message.startswith("a?[31m??xxx")
    assert len(verdict.message.encode()) <= 2000


@pytest.mark.parametrize(
    ("reason", "failure"),
    [("time", "time"), ("memory", "memory"), ("answer", "memory"), ("output", "forbidden")],
)
def test_a_broken_limit_is_named(reason, failure):
    verdict = judge({**ENDED, "reason": reason}, frames.pack(GOOD, b"abbccc"), LIMITS)
    assert (verdict.ok, verdict.failure) == (False, failure)
    assert verdict.message


@pytest.mark.parametrize(
    ("status", "output", "failure", "text"),
    [
        (7 << 8, "", "crash", "with status 7"),
        (int(signal.SIGSEGV), "Segmentation fault", "crash", "Segmentation fault"),
        (40, "", "crash", "by signal 40"),
        (int(signal.SIGXCPU), "", "time", "processor time"),
        (int(signal.SIGABRT), "terminate called: std::bad_alloc", "memory", "bad_alloc"),
    ],
)
def test_an_end_without_a_word_is_told_by_its_status(status, output, failure, text):
    verdict = judge({**ENDED, "status": status, "output": output}, b"", LIMITS)
    assert verdict.failure == failure
    assert text in verdict.message


def test_messages_go_through_a_pipe_whole_and_end_with_it():
    out, into = os.pipe()
    frames.send(into, {"a": "ü\ud800"}, b"body")
    assert frames.receive(out, 4) == ({"a": "ü\ud800"}, b"body")
    with pytest.raises(TimeoutError):
        frames.receive(out, 4, time.monotonic() + 0.01)
    os.write(into, frames.pack({}, b"12345"))
    with pytest.raises(frames.FrameError):
        frames.receive(out, 4)
    os.close(into)
    os.read(out, 100)
    assert frames.receive(out, 4) is None
    os.close(out)
