"""Warm processes that check sources, and are killed at a deadline with all they started.

Example:
    >>> from jaxnas.programs.sandbox.program import Task
    >>> task = Task(shape=(40,), classes=10)
    >>> with Pool(task, level="auto", workers=2) as pool:
    ...     [verdict] = pool.check(["import os"])
    >>> verdict.failure
    'forbidden'
"""

import queue
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NamedTuple

from jaxnas.programs.sandbox import isolation
from jaxnas.programs.sandbox.keeper import Keeper
from jaxnas.programs.sandbox.verdict import Verdict

LONGEST = 32 << 10  # bytes of a source: a job fits into an empty pipe


class Limits(NamedTuple):
    """What one source may use.

    Attributes:
      seconds: from start to answer, by the clock.
      memory: bytes, private and resident.
      output: bytes on stdout and stderr together.
      answer: bytes of the traced programs together.
    """

    seconds: float = 30.0
    memory: int = 2 << 30
    output: int = 256 << 10
    answer: int = 32 << 20


DEFAULT = Limits()


class Pool:
    """Processes that have imported everything and wait; each source gets a fresh fork of one.

    Args:
      task: what sources are traced for, a NamedTuple of plain values: `program.Task`, or
        `clrs.Setting` for triplet functions.
      level: of isolation, `process`, `landlock`, `bubblewrap`, or `auto` for the best that works.
      workers: how many sources at a time.
      limits: of one source.

    Attributes:
      isolation: the level really reached, such as `landlock+seccomp`.

    Raises:
      ValueError: if the level does not work here, or `workers` is below 1.
    """

    def __init__(
        self, task: Any, level: str = "auto", workers: int = 2, limits: Limits = DEFAULT
    ) -> None:
        if workers < 1:
            raise ValueError(f"`workers` must be at least 1, but got {workers}.")
        level = isolation.resolve(level)
        self.isolation = isolation.reached(level)
        self._task = {"kind": type(task).__name__, "task": task._asdict()}
        self._limits = limits
        self._folder = tempfile.TemporaryDirectory(prefix="jaxnas-sandbox-")
        self._keepers = [Keeper(level, self._folder.name) for _ in range(workers)]
        self._idle: queue.SimpleQueue[Keeper] = queue.SimpleQueue()
        for keeper in self._keepers:
            self._idle.put(keeper)
        # A zygote may be tied to the life of the thread that starts it, so threads stay.
        self._threads = ThreadPoolExecutor(workers, "sandbox")

    def check(self, sources: Sequence[str]) -> list[Verdict]:
        """The verdicts in order of the sources; equal sources are traced once.

        A bad source never raises; a sandbox that does not start does.

        Raises:
          RuntimeError: if a process cannot be started, with what it said.
        """
        distinct = list(dict.fromkeys(sources))
        verdicts = dict(zip(distinct, self._threads.map(self._check, distinct), strict=True))
        return [verdicts[source] for source in sources]

    def _check(self, source: str, rules: bool = True, **limits: Any) -> Verdict:
        """One verdict; tests lift the rules to try the walls behind them, with limits of their own."""
        if reason := _unreadable(source):
            return Verdict(False, "parse", reason, isolation=self.isolation)
        mine = self._limits._replace(**limits)
        job = {"source": source, "rules": rules, **self._task, **mine._asdict()}
        keeper = self._idle.get()
        try:
            return keeper.ask(job, mine)._replace(isolation=self.isolation)
        finally:
            self._idle.put(keeper)

    def close(self) -> None:
        """Ends all processes, in the midst of their work too; a pool can be closed twice."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for keeper in self._keepers:
            keeper.end()
        self._threads.shutdown()
        for keeper in self._keepers:
            keeper.close()
        self._folder.cleanup()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _unreadable(source: str) -> str:
    """Why a text cannot be sent; empty if it can."""
    try:
        size = len(source.encode())
    except UnicodeEncodeError as error:
        return f"It is no text: {error}."
    return f"It has {size} bytes; write at most {LONGEST}." if size > LONGEST else ""
