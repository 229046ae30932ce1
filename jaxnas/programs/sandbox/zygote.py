"""The process that has imported and traced what is usual once: it forks for each candidate and cleans up after it.

It runs no candidate code. It starts no device and no thread, so that a fork of it is sound: threads
do not survive a fork, the locks they hold do. As reaper of all its descendants it inherits those
that leave their parent, and ends them too. It dies when the pipe from the pool ends.
"""

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import sys
import threading
import time
from typing import Any, NamedTuple

from jaxnas.programs.sandbox import child, confine, frames, processes
from jaxnas.programs.sandbox.program import Task, examined

# What traces import when they first need it: once here, and not in every fork.
LATE = ("scipy.linalg", "jaxlib.mlir.dialects.builtin", "jaxlib.mlir.dialects.mhlo")
# A network of ours that is looked at once, so that forks find in JAX's memory what all of them trace.
USUAL = """
import flax.linen as nn


class Model(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.relu(nn.Conv(4, (3,), strides=2)(x[..., None]))
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = x + nn.gelu(nn.Conv(4, (3,))(nn.LayerNorm()(x)))
        x = nn.max_pool(x, (2,), (2,)) + nn.avg_pool(x, (2,), (2,))
        x = nn.Dropout(0.5, deterministic=not train)(x.reshape(len(x), -1))
        return nn.Dense(4)(nn.Dense(5)(x))
"""
JOB = 1 << 20  # bytes a job may have
TICK = 20  # milliseconds between two looks at clock and memory
TAIL = 16 << 10  # bytes of what is printed that are passed on


def main() -> None:
    """Serves jobs from standard input until it ends; the one argument is what confines them."""
    walls = json.loads(sys.argv[1])
    jobs, answers = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    if sys.platform == "linux":
        confine.prctl(confine.PR_SET_CHILD_SUBREAPER, 1)
    for name in (*LATE, "landlockpy"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    examined(USUAL, Task((8,), 4, batch=2, eval_batch=2))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    gc.collect()
    gc.freeze()  # what no collection touches stays shared with the forks
    frames.send(answers, {"threads": _threads()})
    while (message := frames.receive(jobs, JOB)) is not None:
        frames.send(answers, *_attend(message[0], walls, jobs))


def _threads() -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/task"))
    return threading.active_count()


class Candidate(NamedTuple):
    """A fork at work.

    Attributes:
      pid: of its process, and of the group it leads.
      answer: what it has written to its channel.
      output: what it has printed.
      job: with its limits.
      deadline: on the clock of `time.monotonic`.
    """

    pid: int
    answer: bytearray
    output: bytearray
    job: dict[str, Any]
    deadline: float


def _attend(job: dict[str, Any], walls: dict[str, Any], jobs: int) -> tuple[dict[str, Any], bytes]:
    """Lets one candidate run within its limits, and tells how it ended and what it said."""
    begin = time.monotonic()
    (answer, answers), (output, outputs) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        limits = {"seconds": job["seconds"], "memory": job["memory"]}
        child.run(job, {**walls, **limits}, answers, outputs)
    os.close(answers)
    os.close(outputs)
    candidate = Candidate(pid, bytearray(), bytearray(), job, begin + job["seconds"])
    try:
        reason = _watch(candidate, {answer: candidate.answer, output: candidate.output}, jobs)
    finally:
        status = _end(pid)
        os.close(answer)
        os.close(output)
    said = candidate.output[-TAIL:].decode(errors="replace")
    header = {"reason": reason, "status": status, "output": said}
    return {**header, "seconds": time.monotonic() - begin}, bytes(candidate.answer[: _most(job)])


def _watch(candidate: Candidate, pipes: dict[int, bytearray], jobs: int) -> str:
    """Reads until the channel of answers ends; names the limit that was broken before, if any."""
    poll = select.poll()
    for file in pipes:
        poll.register(file, select.POLLIN)
    poll.register(jobs, 0)  # tells of its end alone
    while not (reason := _broken(candidate)):
        for file, _ in poll.poll(TICK):
            if file == jobs:
                raise SystemExit  # nobody waits for the answer
            part = os.read(file, 1 << 16)
            pipes[file] += part
            if not part and pipes[file] is candidate.answer:
                return ""
            if not part:
                poll.unregister(file)
    return reason


def _broken(candidate: Candidate) -> str:
    """The limit a candidate has broken, if any."""
    job = candidate.job
    if len(candidate.output) > job["output"]:
        return "output"
    if len(candidate.answer) > _most(job):
        return "answer"
    if processes.resident(candidate.pid) > job["memory"]:
        return "memory"
    return "time" if time.monotonic() > candidate.deadline else ""


def _most(job: dict[str, Any]) -> int:
    return job["answer"] + frames.HEADER + frames.HEAD.size


def _end(pid: int) -> int:
    """Kills a candidate with all that came of it; how it ended, as `waitpid` says it."""
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:  # there are no more
            return status
        processes.kill(processes.descendants(os.getpid()))


if __name__ == "__main__":
    main()
