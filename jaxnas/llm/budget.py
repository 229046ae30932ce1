"""Budgets of requests, tokens and money that are never exceeded, however many calls are in flight.

Before a call is sent, the most it can cost is reserved: one request, an upper bound of its prompt,
`n * max_tokens` of replies. When it ends, what it did cost is settled. A call that cannot fit any
more raises `BudgetError`; one that may fit once others have settled waits for them. A call that
ends without saying what it cost (cancelled, timed out, cut off, no usage in the reply) is settled
with the whole reservation, since it may be billed; one that the server turned down with an error
costs a request and nothing else. The bound holds as far as a server keeps to `max_tokens` and
writes no prompt of its own around ours.

Example:
    >>> from jaxnas.llm import Budget, BudgetError, Prices, ask_all, scripted
    >>> budget = Budget(requests=10, money=0.01)
    >>> client = budget.guard(scripted(["a short reply"] * 10), prices=Prices(0.5, 1.5))
    >>> call = client.complete([{"role": "user", "content": "Say it."}], max_tokens=100)
    >>> completions = ask_all([call])
    >>> budget.used
    Cost(requests=1, tokens=5, money=5.5e-06)
"""

import asyncio
import json
import math
from collections.abc import Callable
from typing import NamedTuple

from jaxnas.core import Exhausted
from jaxnas.llm.client import Client, Completion, ModelError, Request, Usage


class Cost(NamedTuple):
    """What calls cost, or may cost.

    Attributes:
      requests: calls sent.
      tokens: read and written.
      money: in the currency of the prices; not a number once a price is unknown.
    """

    requests: float = 0
    tokens: float = 0
    money: float = 0.0

    def plus(self, *others: "Cost") -> "Cost":
        """The sum; money to nine digits, so that cents add up to the cent."""
        requests, tokens, money = (math.fsum(values) for values in zip(self, *others, strict=True))
        return Cost(int(requests), int(tokens), round(money, 9))


class Prices(NamedTuple):
    """Per million tokens; not a number where unknown.

    Attributes:
      prompt: for those read.
      completion: for those written.
    """

    prompt: float = math.nan
    completion: float = math.nan


class BudgetError(Exhausted):
    """The next call does not fit what is left.

    Attributes:
      which: `requests`, `tokens` or `money`.
      used: what has been settled so far.
      limit: what there was.
      need: the most the next call may take.
    """

    def __init__(
        self, which: str, used: float | int, limit: float | int, need: float | int
    ) -> None:
        super().__init__(
            f"The budget of {which} is spent: {used:g} of `{which}`={limit:g} are used and the next "
            f"call may take {need:g}; raise `{which}`."
        )
        self.which, self.used, self.limit, self.need = which, used, limit, need

    def again(self) -> "BudgetError":
        """The same error anew, without the frames the first one holds on to."""
        return BudgetError(self.which, self.used, self.limit, self.need)


class Budget:
    """One budget, shared by the clients it guards.

    Attributes:
      used: what calls have cost so far.
    """

    def __init__(
        self,
        *,
        requests: int | None = None,
        tokens: int | None = None,
        money: float | None = None,
        used: Cost | None = None,
    ) -> None:
        """Sets the limits; None is no limit.

        Args:
          requests: calls, failed ones and retries among them.
          tokens: read and written together.
          money: in the currency of the prices.
          used: what an earlier part of the run has used.

        Raises:
          ValueError: if a limit is no positive number.
        """
        given = (requests, tokens, money)
        self._limit = Cost(*(math.inf if limit is None else limit for limit in given))
        for name, limit in self._limit._asdict().items():
            if not limit > 0:
                raise ValueError(f"`{name}` must be positive, but got {limit}.")
        self.used = used or Cost()
        self._reserved: dict[object, Cost] = {}
        self._waiting: set[asyncio.Event] = set()

    def guard(
        self,
        client: Client,
        *,
        prices: Prices | None = None,
        count: Callable[[Request], int] | None = None,
    ) -> Client:
        """Counts every request of a client against this budget.

        Args:
          client: what is asked.
          prices: of its model; needed where money is limited.
          count: an upper bound of the tokens in a request's prompt; by default its bytes, which no
            byte-level tokenizer exceeds, and some for the roles around the messages.

        Raises:
          ValueError: if money is limited and the prices are not known.
        """
        prices = prices or Prices()
        if self._limit.money < math.inf and not all(price >= 0 for price in prices):
            raise ValueError(
                f"`prices` of {client.model!r} must be given per million tokens where `money` is "
                f"limited, but got {prices}."
            )

        async def send(request: Request) -> Completion:
            read = (count or prompt_bound)(request)
            most = spent = _cost(Usage(read, request.n * request.max_tokens), prices)
            ticket = await self._reserve(most)
            try:
                done = await client.send(request)
                spent = _cost(done.usage, prices) if done.usage else most
            except ModelError as error:
                spent = Cost(1) if error.free else most
                raise
            finally:
                self._settle(ticket, spent)
            return done

        return client._replace(send=send)

    async def _reserve(self, most: Cost) -> object:
        ticket = object()
        while not self._fits(most):
            event = asyncio.Event()
            self._waiting.add(event)
            try:
                await event.wait()
            finally:
                self._waiting.discard(event)
        self._reserved[ticket] = most
        return ticket

    def _fits(self, most: Cost) -> bool:
        """Whether it can be sent now; raises if it never can."""
        after = self.used.plus(most)
        for which, used, limit, need, total in zip(
            Cost._fields, self.used, self._limit, most, after, strict=True
        ):
            # A sum of money that nobody knows may be any, so where money is limited it ends.
            if total > limit or (math.isnan(total) and limit < math.inf):
                raise BudgetError(which, used, limit, need)
        held = after.plus(*self._reserved.values())
        return not any(total > limit for total, limit in zip(held, self._limit, strict=True))

    def _settle(self, ticket: object, spent: Cost) -> None:
        del self._reserved[ticket]
        self.used = self.used.plus(spent)
        for event in self._waiting:
            event.set()


def prompt_bound(request: Request) -> int:
    """At least as many tokens as a request's prompt has: its bytes, and some for the template."""
    texts = [text for message in request.messages for text in message.values()]
    schema = json.dumps(request.schema) if request.schema else ""
    return (
        64
        + sum(16 + len(text.encode("utf-8", "surrogatepass")) for text in texts)
        + len(schema.encode())
    )


def _cost(usage: Usage, prices: Prices) -> Cost:
    money = (usage.prompt * prices.prompt + usage.completion * prices.completion) / 1e6
    return Cost(1, usage.prompt + usage.completion, money)
