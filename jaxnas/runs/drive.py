"""Runs a search into a run folder, so that a kill at any moment loses at most one chunk.

After each chunk the ledger is written first and the checkpoint second, so the ledger is never
behind the state. A new start takes the newest checkpoint, forgets what the ledger knows beyond it,
and goes on; step keys depend on the step alone (`core.loop`), so state and rows are the same bit
for bit as without the interruption.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from statistics import median
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Array, Key, PyTree

from jaxnas.core import Exhausted, Leg, Search, relay, step_key
from jaxnas.runs.checkpoint import Checkpoints
from jaxnas.runs.ledger import BrokenRunError
from jaxnas.runs.store import EARLY, Run
from jaxnas.runs.unstack import unstack


class Driven(NamedTuple):
    """How a run ended.

    Attributes:
      search: that of the leg it ended in.
      state: the last state, every leaf with the seed axis `S` first.
      step: how many steps it has seen.
      seconds: time spent on this run, over all interruptions, compilation included.
      ms_per_step: the median over full chunks after the first, all seeds together and without
        compilation and disk; `None` if there was only one.
      early: why it ended before its last step; empty if it did not.
    """

    search: Search
    state: Any
    step: int
    seconds: float
    ms_per_step: float | None
    early: str = ""


@runtime_checkable
class Display(Protocol):
    """Whatever shows how far a run is, such as `progress.Progress`."""

    def update(self, step: int, best: float | None = None) -> None:
        """Called once before the first chunk and after each."""
        ...


def drive(
    run: Run,
    legs: Sequence[Leg],
    keys: Key[Array, " S"],
    *,
    every: int,
    mode: str = "scan",
    averaged: bool = False,
    to_text: Callable[[PyTree], str] = str,
    failures: Sequence[str] = (),
    saved: Callable[[PyTree], None] | None = None,
    progress: Display | None = None,
) -> Driven:
    """Runs or continues a relay of searches for all seeds at once and records it.

    Where a step raises `Exhausted` the search ends early, with the state before it. Started again
    with more to spend, it goes on from there.

    Args:
      run: where to, locked by `with run:`.
      legs: one or more, lifted over seeds by `legs_over_seeds`. The `info` of a search is a dict;
        per seed, scalars become metrics, larger arrays become snapshots of the last step of a
        chunk, and `asked` and `measured` become candidates. A longer last leg continues a
        finished run.
      keys: one key for each seed.
      every: steps in a chunk, and between two checkpoints; a leg may end earlier.
      mode: see `core.relay`.
      averaged: whether the metrics of a chunk are recorded as one row instead of one for each step,
        see `unstack`; for runs of very many steps.
      to_text: turns one genotype, as host arrays, into text.
      failures: the reasons that `Measured.failure` counts.
      saved: told of each state when its checkpoint has begun and the one before is complete.
      progress: told how far the run is.

    Returns:
      The last state and the time it took.

    Raises:
      ValueError: if there is no step to make, or the state stored belongs to another configuration.
      BrokenRunError: if ledger and state do not belong together, or cannot be read.
      OSError: if the disk is full; what was complete before stays.
    """
    steps = sum(leg.steps for leg in legs)
    if steps < 1:
        raise ValueError(f"`legs` must hold at least 1 step, but hold {steps}.")

    def like(step: int) -> PyTree:
        """The state of that step: of the leg that made it."""
        init = _search(legs, step).init
        # A host search touches the outside world and cannot be traced, only called.
        return init(keys) if mode == "host" else jax.eval_shape(init, keys)

    with Checkpoints(run.folder / "state") as checkpoints:
        start, state = checkpoints.restore(like) or (0, None)
        state = None if state is None else jax.device_put(state, keys.sharding)
        if run.last() < start:
            raise BrokenRunError(
                f"{run.folder} has a state of step {start}, but its ledger ends at {run.last()}; "
                f"restore both from one copy."
            )
        run.rewind(start)
        clock = _Clock(run.meta(), every)
        run.put_meta(status="running", steps=steps)
        _tell(progress, start, {})
        chunks = relay(legs, keys, every=every, mode=mode, state=state, start=start)
        try:
            with _ending() as why:
                for step, now, info in clock.timed(chunks, start):
                    rows = unstack(info, step, to_text, failures, averaged=averaged)
                    run.record(*rows, meta=clock.facts())
                    checkpoints.save(step, now)
                    if saved:
                        saved(now)
                    start, state = step, now
                    _tell(progress, step, info)
            checkpoints.wait()
        except BaseException:
            _leave(run, checkpoints, clock)
            raise
        early = "".join(why)
        run.put_meta(status=EARLY if early else "finished", early=early, **clock.facts())
        last = _search(legs, start)
        state = last.init(step_key(keys, 0)) if state is None else state
        return Driven(last, state, start, **clock.facts(), early=early)


def _search(legs: Sequence[Leg], step: int) -> Search:
    """The search of the leg that makes a step."""
    ends = itertools.accumulate(leg.steps for leg in legs)
    return next((leg for leg, end in zip(legs, ends, strict=True) if step <= end), legs[-1]).search


@contextlib.contextmanager
def _ending() -> Generator[list[str]]:
    """Ends quietly with what is inside when its means are exhausted, and says why."""
    why: list[str] = []
    try:
        yield why
    except Exhausted as error:
        why.append(str(error))


class _Clock:
    """Adds up the time of a run over its interruptions."""

    def __init__(self, meta: dict[str, Any], every: int) -> None:
        self._began = time.perf_counter() - meta.get("seconds", 0.0)
        self._known: float | None = meta.get("ms_per_step")
        self._every, self._rates = every, list[float]()

    def timed(
        self, chunks: Iterator[tuple[int, Any, Any]], start: int
    ) -> Iterator[tuple[int, Any, Any]]:
        """Waits for each chunk, brings its `info` to the host, and notes how long it took."""
        for i in itertools.count():
            began = time.perf_counter()
            chunk = next(chunks, None)
            if chunk is None:
                return
            step, state, info = jax.block_until_ready(chunk)
            if i and step - start == self._every:  # the first chunk compiles
                self._rates.append(1000 * (time.perf_counter() - began) / self._every)
            start = step
            yield step, state, jax.device_get(info)

    def facts(self) -> dict[str, Any]:
        return {
            "seconds": time.perf_counter() - self._began,
            "ms_per_step": median(self._rates) if self._rates else self._known,
        }


def _leave(run: Run, checkpoints: Checkpoints, clock: _Clock) -> None:
    # Best effort: the error on its way says what happened. The ledger is not rewound here, since a
    # checkpoint may still become complete; the next start does that.
    with contextlib.suppress(Exception):
        checkpoints.wait()
    with contextlib.suppress(Exception):
        run.put_meta(status="interrupted", **clock.facts())


def _tell(progress: Display | None, step: int, info: dict[str, Any]) -> None:
    if progress is None:
        return
    best = float(np.max(info["fitness"][-1])) if "fitness" in info else -np.inf
    progress.update(step, best if np.isfinite(best) else None)
