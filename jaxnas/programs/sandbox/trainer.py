"""Inside of the process that trains (`worker`): jobs come in, answers in JSON go out."""

import json
import os
import pickle
import queue
import resource
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.data.dataset import Dataset
from jaxnas.train.exported import Trained, fit_exported
from jaxnas.train.portable import Refused, opened

Fit = Callable[..., Trained]
"""`(programs, key, seeds, learning rates, *, steps=, evaluate_every=, tested=) -> Trained`, the data
within; and `start=`, if weights can be inherited."""


class Job(NamedTuple):
    """A candidate to train.

    Attributes:
      programs: as they came from the sandbox.
      key: raw key data, `uint32[2]`; of batches, weights and dropout.
      seeds: of the runs.
      learning_rates: of the runs.
      steps: of training.
      evaluate_every: steps between two evaluations.
      start: `[W]` weights it begins with, see `fit_exported`; those it ends with then come back.
      tested: whether it is scored on the test set too.
    """

    programs: Mapping[str, bytes]
    key: np.ndarray
    seeds: Sequence[int] = (0,)
    learning_rates: Sequence[float] = (0.01,)
    steps: int = 8000
    evaluate_every: int = 100
    start: np.ndarray | None = None
    tested: bool = True


def fit_networks(
    dataset: Dataset,
    programs: Mapping[str, bytes],
    *runs: Any,
    **how: Any,
) -> Trained:
    """Trains a network on a data set: `fit_exported` of what `opened` reads.

    Raises:
      Refused: as `opened`.
    """
    return fit_exported(opened(programs), dataset, *runs, **how)


def serve(inbox: int, outbox: int) -> None:
    """What the process does: reads jobs until its parent is gone.

    Args:
      inbox: descriptor from which our own data and jobs come.
      outbox: descriptor for answers in JSON, each followed by the trained weights as bytes.
    """
    source, sink, jobs = (
        Connection(inbox, writable=False),
        Connection(outbox, readable=False),
        queue.Queue(),
    )
    threading.Thread(target=_listen, args=(source, jobs), daemon=True).start()
    hello = jobs.get()
    for name, value in hello["settings"].items():
        jax.config.update(name, value)
    if jax.default_backend() == "cpu" and hello["memory"]:
        resource.setrlimit(resource.RLIMIT_DATA, (hello["memory"],) * 2)
    sink.send_bytes(b"{}")
    turn = threading.Lock()

    def work(numbered: tuple[int, Job]) -> None:
        i, job = numbered
        answer, weights = _train(job, hello["fit"])
        with turn:
            sink.send_bytes(json.dumps({"job": i, **answer}).encode())
            sink.send_bytes(weights)

    with ThreadPoolExecutor(hello["together"]) as threads:
        while True:
            list(threads.map(work, enumerate(jobs.get())))


def _listen(source: Connection, jobs: queue.Queue[Any]) -> None:
    """Passes on what the parent sends; its end is the end of this process, whatever it is at."""
    try:
        while True:
            jobs.put(pickle.loads(source.recv_bytes()))
    except (EOFError, OSError):
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _train(job: Job, fit: Fit) -> tuple[dict[str, Any], bytes]:
    """An outcome as JSON can hold it, and the weights."""
    begin, trained, failure, message, weights = time.monotonic(), None, None, "", b""
    try:
        key = jax.random.wrap_key_data(jnp.asarray(job.key, jnp.uint32))
        how: dict[str, Any] = {
            name: getattr(job, name) for name in ("steps", "evaluate_every", "tested")
        }
        if job.start is not None:
            how["start"] = job.start
        found = fit(job.programs, key, job.seeds, job.learning_rates, **how)
        weights = found.weights.tobytes()
        trained = {name: np.asarray(x).tolist() for name, x in found._asdict().items()}
        trained["weights"] = list(found.weights.shape)
        if (found.diverged >= 0).all():
            failure = "non-finite"
            message = f"its loss is not finite at step {found.diverged.min()}."
    except MemoryError:
        failure, message = "memory", "it needs more memory than there is."
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        short = "RESOURCE_EXHAUSTED" in text or "Out of memory" in text
        refused = isinstance(error, Refused)
        failure = "memory" if short else "forbidden" if refused else "crash"
        message = text[:2000]
    seconds = time.monotonic() - begin
    told = {"trained": trained, "failure": failure, "message": message, "seconds": seconds}
    return told, weights
