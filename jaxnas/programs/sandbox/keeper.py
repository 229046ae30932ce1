"""The pool's end of one zygote: starts it, asks it, and starts another when it is gone."""

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from typing import Any

from jaxnas.programs.sandbox import answer, frames, isolation, processes, seccomp
from jaxnas.programs.sandbox.verdict import Verdict

START, GRACE, FAREWELL = 120.0, 10.0, 2.0  # seconds to import, beyond a limit, and to leave


class Keeper:
    """One zygote under a level of isolation.

    Args:
      level: one of `isolation.LEVELS`.
      folder: an empty one, where it works.

    Attributes:
      threads: of the zygote, 0 until it has been asked; a fork is sound where there is one.
    """

    def __init__(self, level: str, folder: str) -> None:
        self._level = level
        self._folder = folder
        self.threads = 0
        self._start()

    def _start(self) -> None:
        """Starts the zygote, without waiting for its imports."""
        folder = self._folder
        landlock = self._level == "landlock"
        readable = isolation.readable(folder) if landlock else []
        walls = {"landlock": landlock, "filtered": seccomp.works(), "readable": readable}
        words = [sys.executable, "-P", "-m", "jaxnas.programs.sandbox.zygote", json.dumps(walls)]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process
        self._process: Any = subprocess.Popen(
            isolation.command(self._level, folder, words),
            bufsize=0,
            cwd=folder,
            env=isolation.environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,
        )
        self._ready = False

    def ask(self, job: dict[str, Any], limits: Any) -> Verdict:
        """Has one candidate judged; whatever it does to the zygote, the next one finds another.

        Args:
          job: what `child.run` takes, with the limits.
          limits: `pool.Limits`.

        Raises:
          RuntimeError: if no zygote can be started, with what it said.
        """
        process = self._warm()
        deadline = time.monotonic() + limits.seconds + GRACE
        most = limits.answer + frames.HEADER + frames.HEAD.size
        try:
            frames.send(process.stdin.fileno(), job)
            said = frames.receive(process.stdout.fileno(), most, deadline)
        except TimeoutError:
            self.end()
            return answer.over("time", limits)
        except (OSError, frames.FrameError):
            said = None
        if said is None:
            self.end()
            return Verdict(False, "crash", "It took down the process that looked after it.")
        ended, data = said
        return answer.judge(ended, data, limits)._replace(seconds=ended["seconds"])

    def _warm(self) -> Any:
        """The zygote's process, started again if it has gone, when its imports are done."""
        if self._process.poll() is not None:
            self.close()
            self._start()
        if not self._ready:
            hello = self._hello()
            self.threads, self._ready = hello["threads"], True
        return self._process

    def _hello(self) -> dict[str, Any]:
        """The first words of a zygote that has imported everything."""
        with contextlib.suppress(TimeoutError):
            hello = frames.receive(self._process.stdout.fileno(), 0, time.monotonic() + START)
            if hello is not None:
                return hello[0]
        self.end()
        self._log.seek(0)
        text = self._log.read().decode(errors="replace")[-2000:]
        raise RuntimeError(f"the sandbox ({self._level}) did not start: {text}")

    def end(self) -> None:
        """Ends the zygote and all that descends from it; any thread may call it."""
        self._process.terminate()  # it cleans up behind itself
        try:
            self._process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            pid = self._process.pid
            processes.kill([*processes.descendants(pid), pid])
            self._process.wait()

    def close(self) -> None:
        """Ends it and lets go of its pipes; for the thread that asks."""
        self.end()
        for file in (self._process.stdin, self._process.stdout, self._log):
            file.close()
