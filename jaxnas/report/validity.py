"""How many candidates could be measured, why the others could not, and how that went over time."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from jaxnas.report.figures import STYLE, WIDTH, to_svg
from jaxnas.report.html import Markup, figure, join, table
from jaxnas.report.view import COLOURS, FAINT, View

VALID, _OTHER, _BARS = "valid", "other reasons", 60


def validity(one: View) -> Markup | str:
    """A table of outcomes and their shares per step; nothing where every candidate was valid."""
    counts = one.run.failures()
    if not counts:
        return ""
    measured = one.run.totals()[0]
    counts = {VALID: measured - sum(counts.values())} | counts
    rows = [[name, f"{n:,}", f"{100 * n / measured:.1f} %"] for name, n in counts.items()]
    shown = table(["outcome", "candidates", "share"], rows, text=["outcome"])
    svg = shares(one.run.outcomes(), list(counts))
    return join([shown, figure(svg, "Share of the candidates of a step, all seeds together.")])


@mpl.rc_context(STYLE)
def shares(outcomes: list[tuple[int, str | None, int]], names: list[str]) -> str:
    """Stacked bars over steps.

    Args:
      outcomes: `(step, reason or None, how many)`.
      names: `valid` and the reasons, the most common first.

    Returns:
      The SVG; of many steps a bar shows several.
    """
    known = names if len(names) <= len(COLOURS) else [*names[: len(COLOURS) - 1], _OTHER]
    last = max(step for step, *_ in outcomes)
    wide = -(-last // _BARS)
    bins = np.zeros((len(known), -(-last // wide)))
    for step, reason, n in outcomes:
        name = reason or VALID
        bins[known.index(name if name in known else _OTHER), (step - 1) // wide] += n
    bins /= np.maximum(bins.sum(0), 1)
    drawn = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes, bottom = drawn.subplots(), np.zeros(bins.shape[1])
    x = 1 + wide * np.arange(bins.shape[1]) + (wide - 1) / 2
    for n, name in enumerate(known):
        colour = FAINT if name == _OTHER else COLOURS[n]
        axes.bar(x, bins[n], 0.92 * wide, bottom, color=colour, label=name)
        bottom += bins[n]
    axes.set(xlabel="step", ylabel="share", ylim=(0, 1), xlim=(0.5, x[-1] + wide / 2))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8.5)
    return to_svg(drawn)
