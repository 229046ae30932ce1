"""What a search over two aims found: everything measured, and what nothing else beats in both."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxnas.report.figures import STYLE, WIDTH, numbered, to_svg
from jaxnas.report.html import Markup, counts, figure, join, number, table
from jaxnas.report.view import COLOURS, View


def pareto(one: View) -> Markup | str:
    """The front of a run that keeps one: `meta["front"]`, of the search seed with the longest.

    Its `searches` hold `measured`, `[[serial, first aim, second aim], ...]`, and `best`, the serials
    of the front; both aims are to be small. Serials up to `handmade` were written by people.
    """
    told = one.meta.get("front")
    searches = [search for search in (told or {}).get("searches", ()) if search["measured"]]
    if not told or not searches:
        return ""
    seed, chosen = max(enumerate(searches), key=lambda pair: len(pair[1]["best"]))
    rows = sorted(row for row in chosen["measured"] if row[0] in set(chosen["best"]))
    caption = (
        f"{len(rows)} of {len(chosen['measured'])} programs are not beaten in both by another one"
        f"{f' (seed {seed})' if len(searches) > 1 else ''}. Crosses: hand-made."
    )
    counted = [counts(aim) for aim in list(zip(*rows, strict=True))[1:]]
    cells = [
        [
            f"{serial:.0f}{' (hand-made)' if serial <= told['handmade'] else ''}",
            *(number(aim, counted=whole) for aim, whole in zip(aims, counted, strict=True)),
        ]
        for serial, *aims in sorted(rows, key=lambda row: row[1])
    ]
    svg = picture(chosen["measured"], chosen["best"], told["handmade"], told["axes"])
    return join([figure(svg, caption), table(["number", *told["axes"]], cells)])


@mpl.rc_context(STYLE)
def picture(
    measured: Sequence[Sequence[float]], best: Sequence[int], handmade: int, axes: Sequence[str]
) -> str:
    """All that was measured, the front as a staircase.

    Args:
      measured: `[[serial, first aim, second aim], ...]`, both to be small.
      best: serials of the front.
      handmade: the last serial of what people wrote.
      axes: what the aims are.

    Returns:
      The SVG.
    """
    points = np.array(measured, float)
    drawn = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    panel: Axes = drawn.subplots()
    ours = points[:, 0] > handmade
    look: dict[str, Any] = {"s": 16, "linewidths": 0, "alpha": 0.6}
    panel.scatter(*points[ours, 1:].T, color=COLOURS[0], **look)
    panel.scatter(*points[~ours, 1:].T, marker="x", s=36, color="#444", linewidths=1.4)
    front = points[np.isin(points[:, 0], best)]
    front = front[np.argsort(front[:, 1], kind="stable")]
    panel.step(*front[:, 1:].T, where="post", color=COLOURS[1], lw=1.4)
    panel.scatter(*front[:, 1:].T, s=22, facecolors="none", edgecolors=COLOURS[1], linewidths=1.4)
    if points[:, 1].min() > 0 and points[:, 1].max() > 20 * points[:, 1].min():
        panel.set_xscale("log")
        numbered(panel.xaxis)
    panel.set(xlabel=axes[0], ylabel=axes[1])
    return to_svg(drawn)
