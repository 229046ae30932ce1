"""Where the synchronous house meets asyncio.

Searchers are called step by step, and each step may open an event loop of its own, while locks and
connections belong to one loop. `per_loop` gives every loop its own; `ask_all` is the door.

Example:
    >>> from jaxnas.llm import ask_all, scripted
    >>> client = scripted(lambda request: f"seed {request.seed}")
    >>> message = [{"role": "user", "content": "Hello"}]
    >>> done = ask_all(client.complete(message, seed=seed) for seed in range(2))
    >>> [completion.replies[0].text for completion in done]
    ['seed 0', 'seed 1']
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from jaxnas.llm.budget import BudgetError
from jaxnas.llm.client import Completion, ModelError

T = TypeVar("T")
Call = Coroutine[Any, Any, Completion]
Outcome = Completion | ModelError | BudgetError


def per_loop(make: Callable[[], T]) -> Callable[[], T]:
    """What `make` gives, made once in every event loop that asks for it."""
    made: dict[asyncio.AbstractEventLoop, T] = {}

    def get() -> T:
        loop = asyncio.get_running_loop()
        if loop not in made:
            # What is made may hold its loop, so weak references would not let go of either.
            for closed in [other for other in made if other.is_closed()]:
                del made[closed]
            made[loop] = make()
        return made[loop]

    return get


def ask_all(calls: Iterable[Call]) -> list[Outcome]:
    """Waits for many completions at once, from code that is not asynchronous.

    A model that does not answer, or a budget that is spent, spoils that call alone, so that what
    was paid for is not lost; a caller stops where it finds a `BudgetError`. Anything else (a
    recording has no such request) cancels what is under way and is raised.

    Args:
      calls: what `Client.complete` returns.

    Returns:
      The completion, or the error, of each call in order.
    """
    together = _gather(list(calls))
    if not _in_a_loop():
        return asyncio.run(together)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(together)).result()


def _in_a_loop() -> bool:
    """Whether a loop runs in this thread already, as it does in notebooks."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _gather(calls: list[Call]) -> list[Outcome]:
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_caught(call)) for call in calls]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


async def _caught(call: Call) -> Outcome:
    try:
        return await call
    except (ModelError, BudgetError) as error:
        return error
