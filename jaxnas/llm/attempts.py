"""Tries again what may work the next time, a few requests at once, and reports every attempt.

Tried again: too many requests (429), failures of the server (5xx), timeouts, broken connections,
replies that are no completion; not what the server refuses. The wait doubles from attempt to
attempt, shortened at random by up to a half so that clients spread out; it is drawn from the
request itself, so a run repeats. Where the server says how long to wait, it is not asked before.

Example:
    >>> from jaxnas.llm import ModelError, ask_all, attempts, scripted
    >>> busy = ModelError("limited", "too many requests", status=429, free=True)
    >>> log = []
    >>> client = attempts(scripted([busy, "here"]), backoff=0.0, on_attempt=log.append)
    >>> (completion,) = ask_all([client.complete([{"role": "user", "content": "Where?"}])])
    >>> completion.replies[0].text, [attempt.outcome for attempt in log]
    ('here', ['limited', 'ok'])
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from jaxnas.llm.client import Client, Completion, ModelError, Request, Usage, request_key
from jaxnas.llm.loops import per_loop


class Attempt(NamedTuple):
    """One try at a request, as a ledger keeps it: no message text and no key.

    Attributes:
      request: content address of the request (`client.request_key`), that of its recording.
      number: 1 for the first try.
      model: the model as configured.
      outcome: `ok`, `cancelled`, or the kind of the `ModelError`.
      status: the HTTP status of a failure, if there was one.
      latency: seconds it took, waits for a turn left out.
      wait: seconds until the next try; None if there is none.
      usage: tokens, where the server said.
      message: what went wrong, in words.
      forced: tokens that a grammar or schema put in the place of the model's own, over all replies;
        None where nobody said, or nothing constrained it.
    """

    request: str
    number: int
    model: str
    outcome: str
    status: int | None
    latency: float
    wait: float | None
    usage: Usage | None
    message: str
    forced: int | None = None


def attempts(
    client: Client,
    *,
    concurrency: int = 4,
    retries: int = 4,
    deadline: float = 600.0,
    backoff: float = 1.0,
    longest: float = 60.0,
    on_attempt: Callable[[Attempt], object] | None = None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Client:
    """Puts retries, a deadline and a limit of concurrent requests around a client.

    Args:
      client: what is asked.
      concurrency: how many attempts may be under way at once.
      retries: how many more tries a request gets after the first.
      deadline: seconds for all tries of a request, from the start of the first.
      backoff: seconds to wait after the first failure.
      longest: the most it doubles to, in seconds.
      on_attempt: told of every attempt as it ends; what it raises ends the request.
      sleep: waits; for tests.
      clock: seconds; for tests.

    Returns:
      The client; its `send` raises the last `ModelError` where all tries fail.

    Raises:
      ValueError: if a number is out of range.
    """
    for name, value, least in (("concurrency", concurrency, 1), ("retries", retries, 0)):
        if value < least:
            raise ValueError(f"`{name}` must be at least {least}, but got {value}.")
    slots = per_loop(lambda: asyncio.Semaphore(concurrency))
    report = on_attempt or (lambda attempt: None)

    async def send(request: Request) -> Completion:
        key, ends = request_key(client.model, request), None
        for number in range(1, retries + 2):
            async with slots():
                begin = clock()
                ends = begin + deadline if ends is None else ends
                done = await _try(client, request, ends - begin)
                took = clock() - begin
            wait = _wait(done, key, number, backoff, longest)
            if wait is not None and (number > retries or clock() + wait >= ends):
                wait = None
            report(_row(done, key, number, client.model, took, wait))
            if wait is None:
                return _outcome(done, number)
            await sleep(wait)
        raise AssertionError("the last attempt has no wait")

    return client._replace(send=send)


async def _try(
    client: Client, request: Request, seconds: float
) -> Completion | ModelError | asyncio.CancelledError:
    """One attempt; what ends it is returned, so that it can be reported."""
    late = ModelError("timeout", f"no reply from {client.model!r} before the deadline")
    if seconds <= 0:
        return late
    try:
        async with asyncio.timeout(seconds):
            return await client.send(request)
    except TimeoutError:
        return late
    except ModelError as error:
        return error
    except asyncio.CancelledError as error:
        return error


def _wait(
    done: Completion | BaseException, key: str, number: int, backoff: float, longest: float
) -> float | None:
    """Seconds until the next try; None if there is nothing to try again."""
    if not isinstance(done, ModelError) or done.kind == "refused":
        return None
    share = int(key[8 * ((number - 1) % 8) :][:8], 16) / 16**8  # the key is as good as random
    return max(min(backoff * 2 ** (number - 1), longest) * (1 - share / 2), done.retry_after or 0)


def _outcome(done: Completion | BaseException, number: int) -> Completion:
    if isinstance(done, Completion):
        return done
    if isinstance(done, ModelError) and number > 1:
        raise done.again(f"{done} (attempt {number}, the last)")
    raise done


def _row(
    done: Completion | BaseException,
    key: str,
    number: int,
    model: str,
    took: float,
    wait: float | None,
) -> Attempt:
    if isinstance(done, Completion):
        told = [reply.forced for reply in done.replies if reply.forced is not None]
        forced = sum(told) if told else None
        return Attempt(key, number, model, "ok", None, took, None, done.usage, "", forced)
    if isinstance(done, ModelError):
        return Attempt(key, number, model, done.kind, done.status, took, wait, None, str(done))
    return Attempt(key, number, model, "cancelled", None, took, None, None, "")
