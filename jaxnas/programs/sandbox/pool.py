"""Warm processes that check sources, and are killed at a deadline with all they started.

Example:
    >>> from jaxnas.programs.sandbox.program import Task
    >>> task = Task(shape=(40,), classes=10, batch=128)
    >>> with Pool(task, level="auto", workers=2) as pool:
    ...     [verdict] = pool.check(["import os"])
    >>> verdict.failure
    'forbidden'
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple

from jaxnas.programs.sandbox.verdict import Verdict


class Limits(NamedTuple):
    """What one source may use.

    Attributes:
      seconds: from start to answer, by the clock.
      memory: bytes of private memory.
      output: bytes on stdout and stderr together.
      answer: bytes of the traced programs together.
    """

    seconds: float = 20.0
    memory: int = 2 << 30
    output: int = 256 << 10
    answer: int = 32 << 20


class Pool:
    """Processes that have imported everything and wait; each source gets a fresh fork of one.

    Args:
      task: what is traced, a NamedTuple of plain values (`program.Task`).
      level: of isolation, `process`, `landlock`, `bubblewrap`, or `auto` for the best that works.
      workers: how many sources at a time.
      limits: of one source.

    Raises:
      ValueError: if the level does not work here.
    """

    def __init__(
        self, task: Any, level: str = "auto", workers: int = 2, limits: Limits = Limits()
    ) -> None:
        raise NotImplementedError

    def check(self, sources: Sequence[str]) -> list[Verdict]:
        """The verdicts in order of the sources; equal sources are traced once.

        A bad source never raises; a sandbox that does not start does.

        Raises:
          RuntimeError: if a process cannot be started, with what it said.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Ends all processes; a pool can be closed twice."""

    def __enter__(self) -> "Pool":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
