"""What a run asked of language models: outcomes, tokens and cost."""

from collections import Counter
from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from jaxnas.report.figures import STYLE, WIDTH, to_svg
from jaxnas.report.html import Markup, duration, figure, join, number, table, tag
from jaxnas.report.view import COLOURS, View
from jaxnas.runs.calls import Call, Spent, spent

_LISTED = 8


def calls(one: View) -> Markup | str:
    """Attempts by model and outcome, what they cost, and the tokens over time."""
    rows = one.run.calls()
    if not rows:
        return ""
    total = spent(rows)
    return join(
        [
            tag("p", _summed(total, rows, one)),
            _table(rows, total),
            figure(tokens(rows), "Tokens so far, failed attempts included where they are known."),
            _failures(rows),
        ]
    )


def cost(total: Spent) -> str:
    """Money as far as it is known, and how many calls it is not known of."""
    if not total.answered:
        return "nothing answered"
    if total.unpriced == total.answered:
        return "unknown"
    known = f"{total.money:,.4f}"
    missing = f", unknown for {total.unpriced:,} of {total.answered:,} calls"
    return known + missing if total.unpriced else known


def _summed(total: Spent, rows: Sequence[Call], one: View) -> str:
    requests = len({row.request for row in rows})
    said = (
        f"{total.calls:,} calls for {requests:,} different requests, {total.answered:,} answered; "
        f"{total.prompt:,} tokens read and {total.completion:,} written; cost: {cost(total)}."
    )
    if total.uncounted:
        said += f" Of {total.uncounted:,} answers nobody said how many tokens they took."
    measured = one.run.totals()[0]
    valid = measured - sum(one.run.failures().values())
    if valid:
        each = (total.prompt + total.completion) / valid
        said += f" That is {each:,.0f} tokens for each of {valid:,} valid candidates."
    return said


def _table(rows: Sequence[Call], total: Spent) -> Markup:
    kinds = dict.fromkeys(sorted((row.model, row.outcome != "ok", row.outcome) for row in rows))
    lines = []
    for model, _, outcome in kinds:
        some = [row for row in rows if (row.model, row.outcome) == (model, outcome)]
        lines.append([model, outcome, *_cells(spent(some), outcome == "ok")])
    lines.append(["all", "", *_cells(total, True)])
    heads = [
        "model",
        "outcome",
        "calls",
        "tokens read",
        "tokens written",
        "of them forced",
        "time",
        "per call",
        "cost",
    ]
    caption = (
        "Time is added up over calls, of which several may be under way at once. Cost is in the "
        "currency of the prices given; what failed is not priced, since no server says. Forced are "
        "tokens that a grammar put in the place of the model's own, where that is known."
    )
    words = ["model", "outcome"]
    return table(heads, lines, caption=caption, text=words, sums=[len(lines) - 1])


def _cells(some: Spent, answered: bool) -> list[str]:
    forced = f"{some.forced / some.bound:.0%}" if some.bound else "-"
    told = [f"{some.prompt:,}", f"{some.completion:,}", forced] if answered else ["-"] * 3
    mean = some.seconds / some.calls
    price = cost(some) if answered else "-"
    return [f"{some.calls:,}", *told, duration(some.seconds), f"{number(float(mean))} s", price]


@mpl.rc_context(STYLE)
def tokens(rows: Sequence[Call]) -> str:
    """Tokens read and written so far, over steps."""
    steps = np.array([row.step for row in rows])
    x = np.arange(steps.min(), steps.max() + 1)
    drawn = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    axes = drawn.subplots()
    for n, (label, name) in enumerate((("read", "prompt"), ("written", "completion"))):
        counts = np.array([getattr(row, name) or 0 for row in rows], float)
        summed = np.bincount(steps - x[0], counts, len(x)).cumsum()
        mark = "o" if len(x) == 1 else ""  # a line through one point is nothing
        axes.plot(x, summed, color=COLOURS[n], lw=1.9, marker=mark, label=label)
    axes.set(xlabel="step", ylabel="tokens so far", ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.legend(loc="upper left")
    return to_svg(drawn)


def _failures(rows: Sequence[Call]) -> Markup | str:
    counts = Counter((r.outcome, r.status, r.message) for r in rows if r.outcome != "ok")
    if not counts:
        return ""
    lines = [
        [f"{n:,}", outcome, str(status or "-"), message]
        for (outcome, status, message), n in counts.most_common(_LISTED)
    ]
    heads = ["calls", "outcome", "status", "message"]
    shown = table(heads, lines, text=["outcome", "message"])
    return join([tag("h3", "What went wrong most often"), shown])
