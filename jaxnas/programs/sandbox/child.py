"""The process of one candidate: a fork of the zygote that confines itself, looks, traces, answers.

Nothing it says is believed by the parent (`answer`), since the candidate runs beside it.
"""

import gc
import os
from typing import Any, NoReturn

from jaxnas.programs.sandbox import frames, rules
from jaxnas.programs.sandbox.confine import confine
from jaxnas.programs.sandbox.program import Task, trace
from jaxnas.programs.sandbox.verdict import Rejected, shortened

ANSWER = 3  # the one descriptor that is open beside standard input and output
STARVED = ("RESOURCE_EXHAUSTED", "bad_alloc", "Cannot allocate memory", "MemoryError")


def run(job: dict[str, Any], settings: dict[str, Any], answer: int, output: int) -> NoReturn:
    """Does one job and ends.

    Args:
      job: `task`, `source`, and `rules`, whether they are to be kept.
      settings: the arguments of `confine`.
      answer: descriptor for the message to the parent.
      output: descriptor for whatever is printed.
    """
    status = 1
    try:
        os.setsid()
        _keep_only(answer, output)
        confine(**settings)
        header, body = _answer(job)
        frames.send(ANSWER, header, body)
        status = 0
    finally:
        os._exit(status)  # no handlers, no buffers: they are the candidate's or the zygote's


def _keep_only(answer: int, output: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    # Two steps, since one of the descriptors may have the number another is to get.
    held = [os.dup2(old, 200 + new) for new, old in enumerate((nothing, output, output, answer))]
    for new, old in enumerate(held):
        os.dup2(old, new, inheritable=False)
    os.closerange(ANSWER + 1, os.sysconf("SC_OPEN_MAX"))


def _answer(job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    gc.disable()  # it is over before garbage counts
    try:
        if job["rules"]:
            rules.check(job["source"])
        traced = trace(job["source"], Task(**{k: _tuple(v) for k, v in job["task"].items()}))
    except Rejected as rejected:
        return {"failure": rejected.failure, "message": rejected.message}, b""
    except BaseException as error:
        text = shortened(f"{type(error).__name__}: {error}")
        starved = any(word in text for word in STARVED)
        return {"failure": "memory" if starved else "crash", "message": text}, b""
    programs = dict(traced.programs)
    facts = {name: getattr(traced, name) for name in ("params", "depth", "width", "identity")}
    lengths = {name: len(data) for name, data in programs.items()}
    header = {"failure": None, "flops": float(traced.flops), **facts, "programs": lengths}
    return header, b"".join(programs.values())


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
