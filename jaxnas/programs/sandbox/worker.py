"""The process that holds the device and trains: killed at a deadline, started anew for the next job.

It runs XLA programs only, no candidate's Python. But a program can still loop for ever, take all
memory or bring the runtime down, and there is no way to stop one from inside: so it costs the life
of this process. It gets our own data and the jobs, and answers in JSON.

It has a session of its own, so that Ctrl-C reaches the parent alone, and it ends when its parent
does, since a thread waits for the end of the pipe.
"""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnas.programs.sandbox.trainer import Fit, Job, serve
from jaxnas.train.exported import Trained

LONGEST = 64 << 20  # bytes of an answer
SETTINGS = (  # of JAX that the process takes over
    "jax_compilation_cache_dir",
    "jax_compilation_cache_max_size",
    "jax_disable_most_optimizations",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_platforms",
)
START = 300.0  # seconds within which a worker must be ready
SECRETS = ("KEY", "TOKEN", "SECRET", "PASSWORD")  # parts of names of variables it does not get


class Outcome(NamedTuple):
    """What became of a job.

    Attributes:
      trained: the result; None if there is none.
      failure: None, or one of `verdict.FAILURES`: `forbidden` (its programs do more than
        compute), `memory`, `time`, `non-finite` (all runs diverged; `trained` says where),
        `crash`.
      message: about the failure.
      seconds: of compiling and training.
    """

    trained: Trained | None
    failure: str | None = None
    message: str = ""
    seconds: float = 0.0


class Worker:
    """A process that trains jobs by one function; it starts with the first job.

    Args:
      fit: our own, with its data; sent once to each process, by pickle.
      together: jobs that are trained at the same time, of use on an accelerator.
      memory: bytes of private memory the process may have on a CPU; None for no limit.

    Example:
        >>> with Worker(partial(fit_networks, load("mnist1d"))) as worker:
        ...     [outcome] = worker.train([Job(verdict.programs, np.zeros(2, np.uint32))], 600.0)
    """

    def __init__(self, fit: Fit, together: int = 1, memory: int | None = 8 << 30) -> None:
        self._hello = {"fit": fit, "memory": memory, "together": together}
        self._together = together
        self._process: _Process | None = None

    def train(self, jobs: Sequence[Job], deadline: float) -> list[Outcome]:
        """Trains jobs, `together` at a time.

        Where the process is lost with several in work, each of those that had not ended is tried
        again on its own, so that one pays for itself alone.

        Args:
          jobs: what to train.
          deadline: seconds each group may take, compilation included.

        Returns:
          An outcome for each; a bad program never raises.

        Raises:
          RuntimeError: if no process can be started, with what it said.
        """
        outcomes: list[Outcome] = []
        for begin in range(0, len(jobs), self._together):
            group = jobs[begin : begin + self._together]
            found, why = self._group(group, deadline)
            if len(group) > 1:
                found |= {
                    i: self.train([job], deadline)[0]
                    for i, job in enumerate(group)
                    if i not in found
                }
            outcomes += [found.get(i, why) for i in range(len(group))]
        return outcomes

    def _group(self, jobs: Sequence[Job], deadline: float) -> tuple[dict[int, Outcome], Outcome]:
        """The outcomes that came, and that of those which did not."""
        process = self._process = self._process or _Process(self._hello)
        found, why, end = {}, Outcome(None), time.monotonic() + deadline
        try:
            process.send(list(jobs))
            while len(found) < len(jobs):
                answer = process.receive(end - time.monotonic())
                weights = process.receive_bytes(end - time.monotonic())
                found[answer["job"]] = _read(answer, weights)
        except TimeoutError:
            why = Outcome(None, "time", f"it was not trained within {deadline:g} s.", deadline)
        except (EOFError, OSError):
            why = Outcome(None, "crash", f"the process ended: {process.last_words()}")
        finally:
            # Also when interrupted: what is half done must not answer the next call.
            if len(found) < len(jobs):
                self.close()
        return found, why

    def close(self) -> None:
        """Kills the process, if there is one; a worker can be used again after."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Process:
    """A worker process as its parent sees it."""

    def __init__(self, hello: dict[str, Any]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        child_in, mine_out = os.pipe()
        mine_in, child_out = os.pipe()
        self._outbox = Connection(mine_out, readable=False)
        self._inbox = Connection(mine_in, writable=False)
        code = f"from {serve.__module__} import serve; serve({child_in}, {child_out})"
        self._popen = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=self._said,
            env=_environment(),
            pass_fds=(child_in, child_out),
            start_new_session=True,
        )
        os.close(child_in)
        os.close(child_out)
        try:
            self.send(hello | {"settings": {name: jax.config.values[name] for name in SETTINGS}})
            self.receive(START)
        except (EOFError, OSError, TimeoutError):
            words = self.last_words()
            self.kill()
            raise RuntimeError(f"the process that trains does not start: {words}") from None
        except BaseException:
            self.kill()
            raise

    def send(self, message: Any) -> None:
        """Gives it something of our own."""
        self._outbox.send_bytes(pickle.dumps(message))

    def receive(self, seconds: float) -> dict[str, Any]:
        """Its next answer; raises as `receive_bytes`."""
        return json.loads(self.receive_bytes(seconds))

    def receive_bytes(self, seconds: float) -> bytes:
        """What it says next.

        Raises:
          TimeoutError: if there is none within some seconds.
          EOFError: if it has ended.
        """
        if not self._inbox.poll(max(0.0, seconds)):
            raise TimeoutError
        return self._inbox.recv_bytes(LONGEST)

    def last_words(self) -> str:
        """How it ended and what it said last."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(5)
        size = self._said.seek(0, os.SEEK_END)
        self._said.seek(max(0, size - 1000))
        said = self._said.read().decode(errors="replace").strip()
        return f"exit status {self._popen.poll()}. {said}"

    def kill(self) -> None:
        """Ends it with all it may have started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        for thing in (self._outbox, self._inbox, self._said):
            thing.close()


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not any(s in k.upper() for s in SECRETS)}
    kept.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, os.getcwd()]))}


def _read(answer: dict[str, Any], weights: bytes) -> Outcome:
    trained = answer["trained"]
    if trained is not None:
        values = np.frombuffer(weights, np.float32).reshape(trained["weights"])
        plain = {name: np.asarray(trained[name]) for name in Trained._fields}
        trained = Trained(**(plain | {"weights": values}))
    return Outcome(trained, answer["failure"], answer["message"], answer["seconds"])
