"""From what came out of a sandbox to a verdict; nothing in it is believed.

A candidate runs in the process that answers for it, so it may say anything: wrong lengths, types,
numbers without end. Its counts are its own to lie about; its accuracy is measured elsewhere.
"""

import math
import os
import re
import signal
from typing import Any

from jaxnas.programs.sandbox.frames import FrameError, unpack
from jaxnas.programs.sandbox.verdict import FAILURES, STARVED, Verdict, shortened

PROGRAMS = {"init", "step", "evaluate"}
TEST = "test"  # is there beside them where a test set is asked for
LARGEST = 2**31 - 1  # of a count: what is measured is stored as int32
NAME = re.compile(r"[\w/]{1,100}", re.ASCII)
UNPRINTABLE = re.compile(r"[^\n\t -~\u00a0-\ud7ff\ue000-\U0010ffff]")


def judge(ended: dict[str, Any], data: bytes, limits: Any) -> Verdict:
    """The verdict on a candidate, without seconds and isolation.

    Args:
      ended: `reason`, `status` and `output` from the zygote.
      data: all that the candidate wrote to its channel.
      limits: `pool.Limits`.
    """
    if ended["reason"]:
        return over(ended["reason"], limits)
    try:
        header, body = unpack(data, limits.answer)
        return _believed(header, body)
    except FrameError as error:
        return _crashed(ended["status"], ended["output"], f" It said: {error}" if data else "")


def over(reason: str, limits: Any) -> Verdict:
    """The verdict on who broke a limit."""
    failure, message = {
        "time": ("time", f"It took longer than {limits.seconds:g} seconds; use fewer operations."),
        "memory": ("memory", f"It took more than {limits.memory >> 20} MiB; make it smaller."),
        "answer": ("memory", f"Its program has over {limits.answer >> 20} MiB; make it smaller."),
        "output": ("forbidden", f"It printed over {limits.output >> 10} KiB; do not print."),
    }[reason]
    return Verdict(False, failure, message)


def _believed(header: dict[str, Any], body: bytes) -> Verdict:
    """A verdict as the child gave it, if it has the form of one."""
    failure = header.get("failure")
    if failure is not None:
        if failure not in FAILURES:
            raise FrameError("an unknown failure.")
        message = UNPRINTABLE.sub("?", str(header.get("message", "")))
        return Verdict(False, failure, shortened(message))
    params = _count(header.get("params"), 2**64)
    if params > LARGEST:
        return Verdict(False, "memory", f"It has {params:,} parameters; make it smaller.")
    depth, width = (_count(header.get(name)) for name in ("depth", "width"))
    flops, identity = header.get("flops"), header.get("identity")
    if not isinstance(flops, float) or not 0 <= flops < math.inf:
        raise FrameError("`flops` is no number.")
    if not isinstance(identity, str) or not re.fullmatch("[0-9a-f]{64}", identity):
        raise FrameError("`identity` is no SHA-256.")
    layout = _layout(header.get("layout"), params)
    programs = _programs(header.get("programs"), body)
    counts = (params, flops, depth, width)
    return Verdict(True, None, "", *counts, identity=identity, layout=layout, programs=programs)


def _count(value: Any, most: int = LARGEST) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise FrameError(f"a count is {str(value)[:40]!r}.")
    return value


def _layout(arrays: Any, params: int) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Names and shapes of the weights, as many in all as there are, or none told."""
    if not isinstance(arrays, list):
        raise FrameError("the layout is no list.")
    layout = tuple(_array(one) for one in arrays)
    if layout and sum(math.prod(shape) for _, shape in layout) != params:
        raise FrameError("the layout has other weights than there are.")
    return layout


def _array(one: Any) -> tuple[str, tuple[int, ...]]:
    if not isinstance(one, list) or len(one) != 2 or not isinstance(one[1], list):
        raise FrameError("an array of the layout is no name with a shape.")
    name, shape = one
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise FrameError("an array of the layout has no name.")
    return name, tuple(_count(size) for size in shape)


def _programs(lengths: Any, body: bytes) -> dict[str, bytes]:
    if not isinstance(lengths, dict) or set(lengths) - {TEST} != PROGRAMS:
        raise FrameError(f"the programs are not {', '.join(sorted(PROGRAMS))}.")
    parts, at = {}, 0
    for name, length in lengths.items():
        parts[name] = body[at : at + _count(length)]
        at += length
    if at != len(body):
        raise FrameError("the lengths of the programs are wrong.")
    return parts


def _crashed(status: int, output: str, more: str) -> Verdict:
    """The verdict on who ended without a word that can be understood."""
    code = os.waitstatus_to_exitcode(status)
    last = UNPRINTABLE.sub("?", output.strip()[-500:])
    if code == -signal.SIGXCPU:
        return Verdict(False, "time", "It used up its processor time; use fewer operations.")
    if STARVED.search(output):
        return Verdict(False, "memory", f"It ran out of memory; make it smaller. {last}")
    how = f"by signal {-code}" if code < 0 else f"with status {code}"
    text = f"Its process ended {how} without an answer.{more}"
    return Verdict(False, "crash", shortened(f"{text} {last}".strip()))
