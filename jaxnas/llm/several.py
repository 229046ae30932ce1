"""As many replies as were asked for, from servers that give one at a time.

Many servers ignore `n`, some refuse it. The request is sent as it is first, so that a server that
can do it reads the prompt once; what is missing is then asked for one reply at a time, all at once,
with seeds of their own. A server that has fallen short once is asked in this way from then on.

Example:
    >>> from jaxnas.llm import ask_all, scripted, several
    >>> one = scripted(lambda request: [f"seed {request.seed}"])  # a list of one, whatever `n` is
    >>> question = [{"role": "user", "content": "?"}]
    >>> (done,) = ask_all([several(one).complete(question, n=3)])
    >>> len({reply.text for reply in done.replies})
    3
"""

import asyncio
import hashlib
from collections.abc import Sequence

from jaxnas.llm.budget import BudgetError
from jaxnas.llm.client import Client, Completion, ModelError, Request, Usage


def several(client: Client) -> Client:
    """Makes every completion hold the `n` replies of its request.

    Args:
      client: what is asked; `attempts` belongs below, so that each request is tried again alone.

    Returns:
      The client. Usage is the sum over requests. Replies that could be had are never thrown away:
      there are fewer than `n` where later requests failed or the budget was spent.
    """
    together = True

    async def send(request: Request) -> Completion:
        nonlocal together
        if request.n == 1:
            return await client.send(request)
        first = await _first(client, request, together)
        short = len(first.replies) < request.n
        together = together and not short
        singles = [_single(request, i) for i in range(len(first.replies), request.n)]
        rest = await asyncio.gather(*map(client.send, singles), return_exceptions=True)
        for part in rest:
            if isinstance(part, BaseException) and not isinstance(part, ModelError | BudgetError):
                raise part
        return _joined(first, [part for part in rest if isinstance(part, Completion)], request.n)

    return client._replace(send=send)


async def _first(client: Client, request: Request, together: bool) -> Completion:
    """The request as it is, or where that is refused its first reply alone."""
    if together:
        try:
            return await client.send(request)
        except ModelError as error:
            if error.kind != "refused":
                raise
    return await client.send(_single(request, 0))


def _single(request: Request, i: int) -> Request:
    digest = hashlib.sha256(f"{request.seed} {i}".encode()).hexdigest()
    return request._replace(n=1, seed=int(digest[:7], 16))


def _joined(first: Completion, rest: Sequence[Completion], n: int) -> Completion:
    replies = sum((part.replies for part in rest), first.replies)[:n]
    usages = [part.usage for part in (first, *rest)]
    known = [usage for usage in usages if usage is not None]
    usage = Usage(*map(sum, zip(*known, strict=True))) if len(known) == len(usages) else None
    latency = first.latency + max((part.latency for part in rest), default=0.0)
    return Completion(replies, usage, first.model, latency)
