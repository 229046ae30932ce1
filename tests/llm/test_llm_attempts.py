import asyncio
import gc
import weakref

import pytest

from jaxnas.llm import (
    Budget,
    BudgetError,
    Client,
    Completion,
    ModelError,
    Reply,
    Usage,
    ask_all,
    attempts,
    scripted,
)
from jaxnas.llm.client import request_key
from jaxnas.llm.loops import per_loop

ASK = [{"role": "user", "content": "Anything?"}]


class Time:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now, self.slept = 100.0, []

    def clock(self):
        return self.now

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def tried(script, **options):
    """What comes of one request, the attempts reported and the waits between them."""
    time, log = Time(), []
    client = attempts(
        scripted(script), on_attempt=log.append, sleep=time.sleep, clock=time.clock, **options
    )
    (done,) = ask_all([client.complete(ASK, seed=3)])
    return done, log, time.slept


BUSY = ModelError("limited", "busy", status=429, free=True)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("limited", 429),
        ("server", 500),
        ("timeout", None),
        ("connection", None),
        ("malformed", None),
    ],
)
def test_what_may_work_the_next_time_is_tried_again(kind, status):
    error = ModelError(kind, "not now", status=status)
    done, log, slept = tried([error, error, "here"])
    assert done.replies == (Reply("here"),)
    assert [(a.number, a.outcome, a.status) for a in log] == [
        (1, kind, status),
        (2, kind, status),
        (3, "ok", None),
    ]
    assert [a.wait for a in log] == [*slept, None]
    assert log[2].usage == Usage(1, 1)
    assert {a.message for a in log} == {"not now", ""}


def test_what_the_server_refuses_is_not_tried_again():
    done, log, slept = tried([ModelError("refused", "no such model", status=404), "never"])
    assert (done.kind, done.status, len(log), slept) == ("refused", 404, 1, [])


def test_after_the_last_try_the_error_says_so_and_keeps_its_kind():
    done, log, slept = tried([BUSY] * 9, retries=2)
    assert vars(done) == vars(BUSY)
    assert (len(log), len(slept)) == (3, 2)
    assert "attempt 3, the last" in str(done)
    assert log[-1].wait is None


def test_waits_double_up_to_the_longest_within_their_jitter_and_repeat():
    waits = tried([BUSY] * 9, retries=7, backoff=1.0, longest=10.0)[2]
    for wait, full in zip(waits, [1, 2, 4, 8, 10, 10, 10], strict=True):
        assert full / 2 < wait <= full
    assert (
        len({round(wait / full, 6) for wait, full in zip(waits, [1, 2, 4, 8], strict=False)}) == 4
    )
    assert waits == tried([BUSY] * 9, retries=7, backoff=1.0, longest=10.0)[2]


def test_the_server_is_not_asked_before_it_says():
    patient = ModelError("limited", "wait", status=429, retry_after=33.0)
    hasty = ModelError("limited", "wait", status=429, retry_after=0.001)
    assert tried([patient, "here"])[2] == [33.0]
    assert tried([hasty, "here"])[2][0] >= 0.5


def test_a_wait_beyond_the_deadline_ends_the_request_at_once():
    patient = ModelError("limited", "wait", status=429, retry_after=601.0)
    done, log, slept = tried([patient, "never"], deadline=600.0)
    assert (done.kind, len(log), slept) == ("limited", 1, [])
    done, log, slept = tried([BUSY] * 99, retries=50, deadline=10.0, backoff=3.0)
    assert sum(slept) < 10 < sum(slept) + 48


def test_a_model_that_hangs_is_left_at_the_deadline():
    async def send(request):
        await asyncio.sleep(60)

    log = []
    client = attempts(Client("m", send), deadline=0.05, on_attempt=log.append)
    (done,) = ask_all([client.complete(ASK)])
    assert (done.kind, [a.outcome for a in log]) == ("timeout", ["timeout"])


def test_attempts_are_reported_under_the_key_of_the_request_and_hold_no_text():
    log = tried(["secret text"])[1]
    (attempt,) = log
    assert len(attempt.request) == 64
    assert attempt.latency == 0.0
    assert "Anything" not in repr(attempt)
    assert "secret" not in repr(attempt)
    seen = []

    def speak(request):
        seen.append(request)
        return "a"

    ask_all([attempts(scripted(speak), on_attempt=log.append).complete(ASK)])
    assert log[-1].request == request_key("scripted", seen[0])


def test_a_cancelled_request_is_reported_and_gives_its_turn_back():
    log = []

    async def scenario():
        started = asyncio.Event()

        async def send(request):
            started.set()
            if request.seed == 0:
                await asyncio.sleep(60)
            return Completion((Reply("a"),), None, "m", 0.0)

        client = attempts(Client("m", send), concurrency=1, on_attempt=log.append)
        hung = asyncio.create_task(client.complete(ASK, seed=0))
        await started.wait()
        hung.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hung
        return await asyncio.wait_for(client.complete(ASK, seed=1), 5)

    assert asyncio.run(scenario()).replies[0].text == "a"
    assert [a.outcome for a in log] == ["cancelled", "ok"]


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_attempts_than_allowed_are_under_way_also_in_a_second_loop(limit):
    now, most = 0, []

    async def send(request):
        nonlocal now
        now += 1
        most.append(now)
        await asyncio.sleep(0.001)
        now -= 1
        return Completion((Reply("a"),), None, "m", 0.0)

    client = attempts(Client("m", send), concurrency=limit)
    for _ in range(2):
        ask_all(client.complete(ASK, seed=i) for i in range(10))
    assert max(most) == limit
    assert len(most) == 20


def test_while_one_request_waits_its_turn_goes_to_others():
    order = []

    def speak(request):
        order.append(request.seed)
        return BUSY if order.count(0) == 1 and request.seed == 0 else "a"

    client = attempts(scripted(speak), concurrency=1, backoff=0.05)
    ask_all(client.complete(ASK, seed=i) for i in range(3))
    assert order == [0, 1, 2, 0]


def test_a_budget_inside_counts_every_attempt_and_its_end_is_not_tried_again():
    budget = Budget(requests=3)
    client = attempts(budget.guard(scripted([BUSY] * 9)), backoff=0.0, retries=8)
    (spent,) = ask_all([client.complete(ASK)])
    assert isinstance(spent, BudgetError)
    assert budget.used.requests == 3
    assert budget.used.tokens == 0


def test_wrong_numbers_are_refused_by_name():
    with pytest.raises(ValueError, match="`concurrency` must be at least 1, but got 0"):
        attempts(scripted([]), concurrency=0)
    with pytest.raises(ValueError, match="`retries` must be at least 0, but got -1"):
        attempts(scripted([]), retries=-1)


@pytest.mark.parametrize(
    ("field", "value"), [("n", 0), ("max_tokens", 0), ("seed", -1), ("temperature", float("nan"))]
)
def test_a_request_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=f"`{field}` must be"):
        asyncio.run(scripted(["a"]).complete(ASK, **{field: value}))


def test_messages_without_role_or_content_are_refused():
    for messages in ([], [{"content": "a"}]):
        with pytest.raises(ValueError, match="`messages` must each have"):
            asyncio.run(scripted(["a"]).complete(messages))


def test_a_script_that_is_over_says_so():
    client = scripted(["a"])
    with pytest.raises(ValueError, match="`script` has no reply left"):
        ask_all(client.complete(ASK) for _ in range(2))


def test_one_failure_among_many_spoils_itself_alone():
    def speak(request):
        return ModelError("refused", "no") if request.seed == 1 else f"{request.seed}"

    client = scripted(speak)
    done = ask_all(client.complete(ASK, seed=i) for i in range(3))
    assert [getattr(d, "kind", None) or d.replies[0].text for d in done] == ["0", "refused", "2"]


def test_completions_can_be_had_where_a_loop_is_running_already():
    async def notebook():
        return ask_all([scripted(["a"]).complete(ASK)])

    assert asyncio.run(notebook())[0].replies[0].text == "a"


def test_what_belongs_to_a_loop_goes_when_the_loop_is_closed():
    made = []

    class Held:
        def __init__(self):
            self.loop = asyncio.get_running_loop()
            made.append(weakref.ref(self))

    held = per_loop(Held)

    async def twice():
        assert held() is held()
        await asyncio.sleep(0)

    for _ in range(5):
        asyncio.run(twice())
    gc.collect()
    assert [ref() is not None for ref in made] == [False] * 4 + [True]
