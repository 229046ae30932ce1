"""Shows on stderr how far a run is: a bar on a terminal, a line now and then in a log."""

import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress as Bar, TextColumn


class Progress:
    """Step `n` of `N`, milliseconds a step, time gone, expected end and the best so far.

    Example:
      >>> with Progress(300, "regularized_evolution") as progress:
      ...     progress.update(10, best=93.1)
    """

    def __init__(
        self,
        total: int,
        label: str = "",
        *,
        stream: TextIO | None = None,
        seconds: float = 10.0,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Prepares the display.

        Args:
          total: the number of the last step.
          label: what runs.
          stream: where to write; stderr by default.
          seconds: how far apart lines are when `stream` is no terminal.
          stopped: whether the user wants an end; `update` then raises `KeyboardInterrupt`.
        """
        self._stream = stream or sys.stderr
        self._total, self._label, self._seconds = total, label, seconds
        self._stopped = stopped
        self._began = self._shown = time.monotonic()
        self._first: tuple[int, float] | None = None
        self._bar = None
        if self._stream.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[say]}"),
            )
            self._bar = Bar(*columns, console=Console(file=self._stream))
            self._task = self._bar.add_task(label, total=total, say="")

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, best: float | None = None) -> None:
        """Tells how far the run is; the first call, before any step, sets where it started.

        Args:
          step: the last step that is recorded.
          best: the best fitness so far, over all seeds.

        Raises:
          KeyboardInterrupt: see `stopped` of `Progress`.
        """
        if self._stopped():
            raise KeyboardInterrupt
        now = time.monotonic()
        say = self._say(step, best, now)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, say=say)
        elif now - self._shown >= self._seconds or step >= self._total:
            self._shown = now
            self._stream.write(f"{self._label} {say}\n".lstrip())
            self._stream.flush()
        if self._first is None:
            self._first = step, now

    def _say(self, step: int, best: float | None, now: float) -> str:
        gone = timedelta(seconds=round(now - self._began))
        words = [f"step {step}/{self._total}", f"{gone} elapsed"]
        if self._first is not None and step > self._first[0]:
            each = (now - self._first[1]) / (step - self._first[0])
            end = datetime.now() + timedelta(seconds=each * max(self._total - step, 0))
            words[1:1] = [f"{1000 * each:.3g} ms/step"]
            words += [f"done at {end:%a %H:%M}"] if step < self._total else []
        return ", ".join(words + ([] if best is None else [f"best {best:.5g}"]))
