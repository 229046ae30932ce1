import asyncio
import math
import random

import pytest

from jaxnas.llm import (
    Budget,
    BudgetError,
    Client,
    Completion,
    ModelError,
    Prices,
    Reply,
    Usage,
    ask_all,
    scripted,
)
from jaxnas.llm.budget import Cost, prompt_bound
from jaxnas.llm.client import Request

ASK = [{"role": "user", "content": "one two three"}]


def spender(rng, spent):
    """A model that takes its time, uses at most what it may, fails and says nothing now and then."""

    async def send(request):
        for _ in range(rng.randrange(4)):
            await asyncio.sleep(0)
        usage = Usage(rng.randint(1, 20), rng.randint(0, request.n * request.max_tokens))
        fate = rng.random()
        if fate < 0.15:
            spent.append((1, 0))
            raise ModelError("server", "it broke", status=500, free=True)
        spent.append((1, sum(usage)))
        if fate < 0.3:
            raise ModelError("timeout", "it may be billed")
        return Completion((Reply("a"),), None if fate < 0.4 else usage, "m", 0.0)

    return Client("m", send)


@pytest.mark.parametrize("seed", range(40))
def test_no_order_of_calls_failures_and_cancellations_exceeds_a_budget(seed):
    rng, spent = random.Random(seed), []
    limits = {"requests": rng.randint(1, 60), "tokens": rng.randint(200, 4000)}
    limits["money"] = rng.uniform(0.0005, 0.01)
    budget = Budget(**limits)
    prices = Prices(rng.uniform(0, 3), rng.uniform(0, 5))
    client = budget.guard(spender(rng, spent), prices=prices, count=lambda request: 20)

    async def call():
        sizes = {"n": rng.randint(1, 3), "max_tokens": rng.randint(1, 120)}
        task = asyncio.create_task(client.complete(ASK, **sizes))
        if rng.random() < 0.2:
            for _ in range(rng.randrange(3)):
                await asyncio.sleep(0)
            task.cancel()
        return await asyncio.wait_for(task, 5)

    async def scenario():
        return await asyncio.gather(*(call() for _ in range(80)), return_exceptions=True)

    ends = asyncio.run(scenario())
    for which, used in budget.used._asdict().items():
        assert used <= limits[which] + 1e-9
    assert budget._reserved == {}
    assert budget._waiting == set()
    assert budget.used.requests >= len(spent)  # cancelled on the way counts, though nothing is said
    assert budget.used.tokens >= sum(tokens for _, tokens in spent)
    kinds = Completion, ModelError, BudgetError, asyncio.CancelledError
    assert all(isinstance(end, kinds) for end in ends)
    if budget.used.requests < 60:
        assert any(isinstance(end, BudgetError) for end in ends)


def test_a_call_waits_while_what_is_reserved_may_still_be_given_back():
    gate = asyncio.Event

    async def scenario():
        opened, begun = gate(), []

        async def send(request):
            begun.append(request.seed)
            await opened.wait()
            return Completion((Reply("a"),), Usage(1, 1), "m", 0.0)

        client = Budget(tokens=150).guard(Client("m", send), count=lambda request: 0)
        calls = [asyncio.create_task(client.complete(ASK, max_tokens=100, seed=i)) for i in (0, 1)]
        await asyncio.sleep(0.01)
        assert begun == [0]
        opened.set()
        await asyncio.gather(*calls)
        assert begun == [0, 1]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("limits", "which", "used", "limit"),
    [
        ({"requests": 2}, "requests", 2, 2),
        ({"tokens": 230}, "tokens", 8, 230),
        ({"money": 0.0005}, "money", 0.000016, 0.0005),
    ],
)
def test_the_error_names_what_is_spent_how_much_and_the_limit(limits, which, used, limit):
    sizes = [1, 1, 140] if which == "money" else [1, 1, 200]
    budget = Budget(**limits)
    client = budget.guard(scripted(["yes"] * 9), prices=Prices(1.0, 5.0), count=lambda request: 30)

    async def scenario():
        for size in sizes:
            await client.complete(ASK, max_tokens=size)

    budgets_money = {"money": "0.00073"}
    with pytest.raises(BudgetError, match=rf"`{which}`=") as error:
        asyncio.run(scenario())
    assert (error.value.which, error.value.limit) == (which, limit)
    assert error.value.used == pytest.approx(used)
    assert f"{limit:g}" in str(error.value)
    assert budgets_money.get(which, "") in str(error.value)


@pytest.mark.parametrize(
    ("end", "tokens"),
    [
        (ModelError("limited", "busy", status=429, free=True), 0),
        (ModelError("timeout", "late"), 130),
        (ModelError("connection", "cut"), 130),
        (Reply("four words and more"), 7),
    ],
)
def test_a_failure_costs_what_it_may_have_cost(end, tokens):
    budget = Budget()
    client = budget.guard(scripted([end]), count=lambda request: 30)
    ask_all([client.complete(ASK, max_tokens=100)])
    assert (budget.used.requests, budget.used.tokens) == (1, tokens)


def test_money_is_exact_over_many_small_calls_and_unknown_without_prices():
    budget = Budget(money=0.3)
    client = budget.guard(scripted(["w"] * 3), prices=Prices(0.0, 1e5), count=lambda request: 0)
    ask_all(client.complete(ASK, max_tokens=1, seed=i) for i in range(3))  # 3 x 0.1 is not 0.3
    assert budget.used == Cost(3, 12, 0.3)
    unpriced = Budget(requests=5)
    ask_all([unpriced.guard(scripted(["w"])).complete(ASK)])
    assert math.isnan(unpriced.used.money)
    assert unpriced.used.requests == 1


def test_a_budget_goes_on_from_what_was_used_and_is_shared_by_clients():
    budget = Budget(requests=5, used=Cost(3, 10, 0.0))
    a, b = (budget.guard(scripted(["x"] * 9)) for _ in range(2))
    ask_all([a.complete(ASK), b.complete(ASK)])
    (spent,) = ask_all([b.complete(ASK)])
    assert isinstance(spent, BudgetError)
    assert "5 of `requests`=5 are used" in str(spent)


def test_where_money_is_limited_an_unknown_sum_of_it_ends_the_run():
    """A run that goes on after a reply whose tokens nobody said knows no sum."""
    unknown = Cost(3, 100, math.nan)
    prices = Prices(1.0, 1.0)
    for budget, ends in (
        (Budget(money=100.0, used=unknown), True),
        (Budget(requests=9, used=unknown), False),
    ):
        (done,) = ask_all([budget.guard(scripted(["a"]), prices=prices).complete(ASK)])
        assert isinstance(done, BudgetError) == ends


def test_what_was_paid_for_is_kept_when_the_budget_ends_among_many_calls():
    budget = Budget(requests=3)
    client = budget.guard(scripted(["a", "b", "c", "d", "e"]))
    done = ask_all(client.complete(ASK, seed=i) for i in range(5))
    assert [d.replies[0].text for d in done[:3]] == ["a", "b", "c"]
    assert all(isinstance(d, BudgetError) for d in done[3:])


def test_wrong_budgets_are_refused_by_name():
    with pytest.raises(ValueError, match="`tokens` must be positive, but got 0"):
        Budget(tokens=0)
    with pytest.raises(ValueError, match="`prices` of 'scripted' must be given"):
        Budget(money=1.0).guard(scripted(["a"]))


def test_the_bound_of_a_prompt_covers_its_bytes_the_schema_and_the_template():
    request = Request(({"role": "user", "content": "ü" * 100},), schema={"type": "object"})
    assert prompt_bound(request) >= 200 + len('{"type": "object"}') + 20
    assert prompt_bound(Request(({"role": "user", "content": "\ud800"},))) < 200
