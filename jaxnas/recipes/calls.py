"""Every attempt to ask a language model becomes a row of the run's ledger, as it ends."""

import math
from collections.abc import Callable

from jaxnas.llm.attempts import Attempt
from jaxnas.llm.budget import Cost, Prices
from jaxnas.runs.calls import Call, spent
from jaxnas.runs.store import Run


def to_ledger(run: Run, prices: Prices | None = None) -> Callable[[Attempt], None]:
    """What `attempts(on_attempt=...)` is given by a recipe, from within `System.attach`.

    Args:
      run: open for writing.
      prices: of the model's tokens; `Prices(0, 0)` for one that runs here.

    Returns:
      A function that writes an attempt down. It may be called from any thread.

    Example:
      >>> import tempfile
      >>> from jaxnas.llm import Prices, ask_all, attempts, scripted
      >>> from jaxnas.recipes.calls import to_ledger
      >>> from jaxnas.runs import create
      >>> with create(tempfile.mkdtemp(), {}) as run:
      ...     client = attempts(scripted(["yes"]), on_attempt=to_ledger(run, Prices(0, 0)))
      ...     _ = ask_all([client.complete([{"role": "user", "content": "Is it?"}])])
      >>> [(row.step, row.outcome, row.money) for row in run.calls()]
      [(1, 'ok', 0.0)]
    """
    return lambda attempt: run.put_calls([row(attempt, run.last() + 1, prices or Prices())])


def row(attempt: Attempt, step: int, prices: Prices) -> Call:
    """An attempt as a row of the ledger.

    Args:
      attempt: what a client reported.
      step: under way, counted from 1.
      prices: per million tokens; not a number where unknown, as the row's money is then.
    """
    prompt, completion = attempt.usage or (None, None)
    money = (prompt or 0) * prices.prompt + (completion or 0) * prices.completion
    return Call(
        step,
        attempt.request,
        attempt.number,
        attempt.model,
        attempt.outcome,
        attempt.status,
        attempt.latency,
        prompt,
        completion,
        money / 1e6 if attempt.usage and math.isfinite(money) else None,
        attempt.message,
        attempt.forced,
    )


def used(run: Run) -> Cost:
    """What the run has spent so far, for the `Budget` of a run that goes on.

    Money is not a number once a price is unknown. A failed attempt counts as a request and nothing
    else, since nobody said what it cost.
    """
    total = spent(run.calls())
    money = math.nan if total.unpriced else total.money
    return Cost(total.calls, total.prompt + total.completion, money)
