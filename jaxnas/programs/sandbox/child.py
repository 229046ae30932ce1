"""The process of one candidate: a fork of the zygote that confines itself, looks, traces, answers.

Nothing it says is believed by the parent (`answer`), since the candidate runs beside it.
"""

import contextlib
import gc
import os
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from jaxnas.programs import clrs, clrs_trace
from jaxnas.programs.sandbox import frames, program, rules
from jaxnas.programs.sandbox.confine import confine
from jaxnas.programs.sandbox.source import FILENAME
from jaxnas.programs.sandbox.verdict import STARVED, Rejected, told

# What sources can be traced for, by the name of the task's class: nothing else can be asked for.
TRACES: dict[str, tuple[Callable[..., Any], Callable[..., program.Traced]]] = {
    task.__name__: (task, trace)
    for task, trace in ((program.Task, program.trace), (clrs.Setting, clrs_trace.trace))
}
ARRAYS = 1000  # of weights that are told by name
ANSWER = 3  # the one descriptor that is open beside standard input and output


def run(job: dict[str, Any], walls: dict[str, Any], answer: int, output: int) -> NoReturn:
    """Does one job and ends.

    Args:
      job: `task` and its `kind`, one of `TRACES`, `source`, and `rules`, whether they are to be kept.
      walls: the arguments of `confine`.
      answer: descriptor for the message to the parent.
      output: descriptor for whatever is printed.
    """
    status = 1
    try:
        os.setsid()
        _keep_only(answer, output)
        confine(**walls)
        header, body = _answer(job)
        frames.send(ANSWER, header, body)
        status = 0
    except BaseException:
        traceback.print_exc()  # to the output, whose end is in the verdict
    finally:
        os._exit(status)  # no handlers, no buffers: they are the candidate's or the zygote's


def _keep_only(answer: int, output: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    # Two steps, since one of the descriptors may have the number another is to get.
    held = [os.dup2(old, 200 + new) for new, old in enumerate((nothing, output, output, answer))]
    for new, old in enumerate(held):
        os.dup2(old, new, inheritable=False)
    for each in map(int, os.listdir("/dev/fd")):
        if each > ANSWER:
            with contextlib.suppress(OSError):  # the one by which they were listed
                os.close(each)


def _answer(job: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    gc.disable()  # it is over before garbage counts
    try:
        if job["rules"]:
            rules.check(job["source"])
        task, trace = TRACES[job["kind"]]
        traced = trace(job["source"], task(**{k: _tuple(v) for k, v in job["task"].items()}))
    except Rejected as rejected:
        ran = rejected.failure in ("import", "shape")
        failure = "memory" if ran and _starved(rejected) else rejected.failure
        return {"failure": failure, "message": rejected.message}, b""
    except BaseException as error:
        failure = "memory" if _starved(error) else "crash"
        return {"failure": failure, "message": told(error, job["source"], FILENAME)}, b""
    programs = dict(traced.programs)
    facts = {name: getattr(traced, name) for name in ("params", "depth", "width", "identity")}
    lengths = {name: len(data) for name, data in programs.items()}
    layout = traced.layout if len(traced.layout) <= ARRAYS else ()
    told_of = {"flops": float(traced.flops), "layout": layout, "programs": lengths}
    header = {"failure": None, **facts, **told_of}
    return header, b"".join(programs.values())


def _starved(error: BaseException | None) -> bool:
    """Whether an exception, or one that it comes from, says that memory ran out."""
    while error is not None:
        if isinstance(error, MemoryError) or STARVED.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
