"""Draws the replies of many requests side by side, in a thread of its own.

Rows of a batch are filled with waiting replies as others end. All rows at a time have caches of one
length, that of the oldest request waiting, so that what a request gets back does not depend on what
else is asked. The thread ends when nothing is left to do.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxnas.llm.decoding import Rows, bucket
from jaxnas.llm.grammar import allow
from jaxnas.llm.pretrained import Model
from jaxnas.llm.tokens import Tokens, decode
from jaxnas.nn.lm import Cache, empty_cache

SMALLEST = 256  # the least length of a cache: each length is a program to compile


class Ask(NamedTuple):
    """What replies are drawn from.

    Attributes:
      prompt: its tokens, one at least.
      n: how many replies.
      most: tokens of a reply.
      temperature: 0 for the most likely tokens.
      seed: of the sampling.
      stop: texts before which a reply ends.
      matcher: gives the `llguidance.LLMatcher` of a reply, or None.
    """

    prompt: tuple[int, ...]
    n: int
    most: int
    temperature: float
    seed: int
    stop: tuple[str, ...]
    matcher: Callable[[], Any]


class Drawn(NamedTuple):
    """A reply.

    Attributes:
      text: up to the first stop.
      finish: `stop` or `length`.
      tokens: how many were drawn, the one that ended it among them.
      forced: of those, how many a grammar changed; None without one.
    """

    text: str
    finish: str
    tokens: int
    forced: int | None


class _Job:
    """A request under way."""

    def __init__(self, ask: Ask, size: int) -> None:
        self.ask, self.size = ask, size
        self.future: Future[list[Drawn]] = Future()
        self.begun = 0
        self.done: dict[int, Drawn] = {}
        self.read: Cache | None = None  # its prompt, until all replies have begun


class _Row:
    """A reply under way."""

    def __init__(self, job: _Job, number: int) -> None:
        self.job, self.number = job, number
        self.matcher = job.ask.matcher()
        self.tokens: list[int] = []
        self.drawn = self.forced = 0

    def take(self, own: int, drawn: int, tokens: Tokens) -> Drawn | None:
        """Adds a token; gives the reply if that ends it."""
        ask, finish = self.job.ask, ""
        self.drawn, self.forced = self.drawn + 1, self.forced + (own != drawn)
        if self.matcher is not None and not self.matcher.consume_token(drawn):
            raise RuntimeError(f"The grammar went astray: {self.matcher.get_error()}")
        if drawn in tokens.ends:
            finish = "stop"
        else:
            self.tokens.append(drawn)
            is_whole = self.matcher is not None and self.matcher.is_stopped()
            finish = "stop" if is_whole else "length" if self.drawn == ask.most else ""
        text = decode(tokens, self.tokens)
        stops = [at for stop in ask.stop if (at := text.find(stop)) >= 0]
        if stops:
            text, finish = text[: min(stops)], "stop"
        forced = None if self.matcher is None else self.forced
        return Drawn(text, finish, self.drawn, forced) if finish else None


class Sampler:
    """Answers `Ask`s with a decoder."""

    def __init__(self, model: Model, *, batch: int, prefix: Float[Array, "P D"]) -> None:
        """Holds a model; compiles nothing yet.

        Args:
          model: what is drawn from.
          batch: how many replies are drawn side by side.
          prefix: vectors that every prompt is preceded by.
        """
        self._model, self._prefix = model, prefix
        self._rows: list[_Row | None] = [None] * batch
        self._cache: Cache | None = None
        self._size = 0
        self._waiting: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, ask: Ask) -> Future[list[Drawn]]:
        """Queues a request; its replies come in the order of their numbers. It can be cancelled."""
        job = _Job(ask, bucket(len(self._prefix) + len(ask.prompt) + ask.most, SMALLEST))
        with self._lock:
            self._waiting.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="jaxnas-local-lm")
                self._thread.start()
        return job.future

    def _work(self) -> None:
        """Draws until nothing is left."""
        while True:
            try:
                self._fill()
                if any(self._rows):
                    self._step()
            except Exception as error:
                self._fail(error)
            with self._lock:
                if not self._waiting and not any(self._rows):
                    self._thread = self._cache = None
                    self._size = 0
                    return

    def _fill(self) -> None:
        """Puts waiting replies into free rows, in order, as long as their caches are as long."""
        for at, row in enumerate(self._rows):
            if row is not None and row.job.future.cancelled():
                self._rows[at] = None
        for at in [at for at, row in enumerate(self._rows) if row is None]:
            job = self._next()
            if job is None:
                return
            self._begin(job, at)

    def _next(self) -> _Job | None:
        """The request whose turn it is, if it can begin."""
        with self._lock:
            while self._waiting and self._is_over(self._waiting[0]):
                self._waiting.popleft()
            job = self._waiting[0] if self._waiting else None
        waits = job is not None and job.size != self._size and any(self._rows)
        return None if waits else job

    def _is_over(self, job: _Job) -> bool:
        return job.begun == job.ask.n or job.future.cancelled()

    def _begin(self, job: _Job, at: int) -> None:
        """Copies what a prompt left in the cache into a row, reading it for the first reply."""
        if self._cache is None or job.size != self._size:
            self._size = job.size
            module = self._model.module
            self._cache = empty_cache(module.config, len(self._rows), job.size, module.dtype)
        if job.read is None:
            before = job.ask.prompt[:-1]  # the last one is read by the first step
            filled = np.zeros(bucket(len(before) or 1), np.int32)
            filled[: len(before)] = before
            job.read = self._model.programs.prefill(
                self._model.params, self._prefix, jnp.asarray(filled)
            )
        self._cache = self._model.programs.place(self._cache, job.read, jnp.int32(at))
        self._rows[at] = _Row(job, job.begun)
        job.begun += 1
        if job.begun == job.ask.n:
            job.read = None

    def _step(self) -> None:
        """One token for every row."""
        matchers = {i: row.matcher for i, row in enumerate(self._rows) if row and row.matcher}
        masks = np.empty((len(self._rows), -(-len(self._model.tokens.pieces) // 32)), np.int32)
        allow(matchers, masks)
        self._cache, own, drawn = self._model.programs.step(
            self._model.params, self._cache, self._now(), jnp.asarray(masks)
        )
        for at, token, chosen in zip(
            range(len(self._rows)), np.asarray(own), np.asarray(drawn), strict=True
        ):
            row = self._rows[at]
            reply = row.take(int(token), int(chosen), self._model.tokens) if row else None
            if row and reply:
                self._rows[at] = None
                self._deliver(row, reply)

    def _now(self) -> Rows:
        """What each row is drawn from; rows without a reply draw as well, and nobody looks."""
        prefix = len(self._prefix)
        values = [(0, 0, 0, 0, 0, 0.0)] * len(self._rows)
        for at, row in enumerate(self._rows):
            if row:
                ask, read = row.job.ask, row.tokens
                last = read[-1] if read else ask.prompt[-1]
                length = prefix + len(ask.prompt) - 1 + len(read)
                seed = ask.seed % (1 << 32)
                values[at] = (last, length, seed, row.number, row.drawn, ask.temperature)
        types = (np.int32, np.int32, np.uint32, np.int32, np.int32, np.float32)
        columns = zip(*values, strict=True)
        return Rows(*(jnp.asarray(np.array(c, t)) for c, t in zip(columns, types, strict=True)))

    def _deliver(self, row: _Row, reply: Drawn) -> None:
        job = row.job
        job.done[row.number] = reply
        whole = len(job.done) == job.ask.n
        if whole and job.future.set_running_or_notify_cancel():
            job.future.set_result([job.done[i] for i in range(job.ask.n)])

    def _fail(self, error: Exception) -> None:
        """A failure spoils what is under way and what waits."""
        with self._lock:
            jobs = {row.job for row in self._rows if row} | set(self._waiting)
            self._waiting.clear()
        self._rows, self._cache, self._size = [None] * len(self._rows), None, 0
        for job in jobs:
            if job.future.set_running_or_notify_cancel():
                job.future.set_exception(error)
