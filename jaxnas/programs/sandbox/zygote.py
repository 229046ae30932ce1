"""The process that has imported everything once: it forks for each candidate and cleans up after it.

It runs no candidate code. It starts no device and no thread, so that a fork of it is sound: threads
do not survive a fork, the locks they hold do. As reaper of all its descendants it inherits those
that leave their parent, and ends them too. It dies when the pipe from the pool ends.
"""

import contextlib
import gc
import json
import os
import select
import signal
import sys
import threading
import time
from typing import Any

from jaxnas.programs.sandbox import child, confine, frames, processes

JOB = 1 << 20  # bytes a job may have
TICK = 20  # milliseconds between two looks at clock and memory


def main() -> None:
    """Serves jobs from standard input until it ends; the one argument is what confines them."""
    settings = json.loads(sys.argv[1])
    jobs, answers = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    if sys.platform == "linux":
        confine.prctl(confine.PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    gc.collect()
    gc.freeze()  # what no collection touches stays shared with the forks
    frames.send(answers, {"threads": _threads()})
    while (message := frames.receive(jobs, JOB)) is not None:
        frames.send(answers, *_attend(message[0], settings, jobs))


def _threads() -> int:
    with contextlib.suppress(OSError):
        return len(os.listdir("/proc/self/task"))
    return threading.active_count()


def _attend(
    job: dict[str, Any], settings: dict[str, Any], jobs: int
) -> tuple[dict[str, Any], bytes]:
    """Lets one candidate run within its limits, and tells how it ended and what it said."""
    begin = time.monotonic()
    (answer, answers), (output, outputs) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        limits = {"seconds": job["seconds"], "memory": job["memory"]}
        child.run(job, {**settings, **limits}, answers, outputs)
    os.close(answers)
    os.close(outputs)
    heard = {answer: bytearray(), output: bytearray()}
    most = {answer: job["answer"] + frames.HEADER + frames.HEAD.size, output: job["output"]}
    try:
        reason = _watch(pid, answer, heard, most, jobs, job)
    finally:
        status = _end(pid)
        os.close(answer)
        os.close(output)
    said = heard[output].decode(errors="replace")[-frames.HEADER // 16 :]
    seconds = time.monotonic() - begin
    header = {"reason": reason, "status": status, "output": said, "seconds": seconds}
    return header, b"" if reason else bytes(heard[answer])


def _watch(
    pid: int,
    answer: int,
    heard: dict[int, bytearray],
    most: dict[int, int],
    jobs: int,
    job: dict[str, Any],
) -> str:
    """Reads until the candidate closes its channel; the limit it broke, empty if it did not."""
    deadline = time.monotonic() + job["seconds"]
    poll = select.poll()
    for file in heard:
        poll.register(file, select.POLLIN)
    poll.register(jobs, 0)  # tells of its end alone
    while True:
        for file, _ in poll.poll(TICK):
            if file == jobs:
                raise SystemExit  # nobody waits for the answer
            part = os.read(file, 1 << 16)
            heard[file] += part
            if len(heard[file]) > most[file]:
                return "answer" if file == answer else "output"
            if not part and file == answer:
                return ""
            if not part:
                poll.unregister(file)
        if time.monotonic() > deadline:
            return "time"
        if processes.resident(pid) > job["memory"]:
            return "memory"


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
