"""Curves as SVG: the same lines, colours and sizes throughout; text stays text."""

import io
import math
import re
import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from jaxnas.report.view import COLOURS, FAINT, Series, is_none

WIDTH = 10.6  # inches, the width of the page
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "jaxnas",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a93a0",
    "axes.labelcolor": "#1c2430",
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "xtick.color": "#5d6878",
    "ytick.color": "#5d6878",
    "axes.grid": True,
    "grid.color": "#eceff2",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
}


class Line(NamedTuple):
    """A line with a band around it.

    Attributes:
      label: for the legend.
      x: `[T]`.
      mid: `[T]`, a median or mean.
      low: `[T]`, lower edge of the band.
      high: `[T]`, upper edge.
    """

    label: str
    x: np.ndarray
    mid: np.ndarray
    low: np.ndarray
    high: np.ndarray


def best_so_far(label: str, fitness: Series, cost: Series | None) -> Line:
    """Median and quartiles over seeds of the best fitness within a cost.

    Args:
      label: for the legend.
      fitness: `[T, S]`.
      cost: `[T, S]` spent so far; steps if `None`.

    Returns:
      The line, on a grid of at most 400 costs.
    """
    best = np.fmax.accumulate(fitness.values, axis=0)
    spent = cost.values if cost else np.broadcast_to(fitness.steps[:, None], best.shape)
    grid = np.unique(spent[np.isfinite(spent)])
    grid = grid[np.unique(np.linspace(0, len(grid) - 1, 400).astype(int))]
    seeds = range(best.shape[1])
    places = [np.searchsorted(spent[:, s], grid, "right") - 1 for s in seeds]
    at = np.stack([np.where(p < 0, np.nan, best[p, s]) for s, p in enumerate(places)], 1)
    return Line(label, grid, *quartiles(at))


@mpl.rc_context(STYLE)
def search(lines: Sequence[Line], references: Sequence[Line], *, x: str, y: str) -> str:
    """Best-so-far lines, with reference lines dashed in grey beside them."""
    figure, (axes,) = _panels(1, width=WIDTH, height=3.9, columns=1)
    for i, line in enumerate(lines):
        draw(axes, line, COLOURS[i % len(COLOURS)])
    for i, line in enumerate(references):
        draw(axes, line, "#6b7480", style=("--", ":", "-.")[i % 3])
    axes.set(xlabel=x, ylabel=textwrap.fill(y, 44), **_window([*lines, *references]))
    axes.legend(loc="lower right")
    return to_svg(figure)


@mpl.rc_context(STYLE)
def training(lines: Sequence[Line], references: Sequence[Line], *, x: str, y: str) -> str:
    """Curves of training, those of references thin; the vertical axis is a logarithm where it can be."""
    figure, (axes,) = _panels(1, width=WIDTH, height=4.6, columns=1)
    for i, line in enumerate(references):
        axes.plot(line.x, line.mid, lw=1.0, color=FAINT if i >= 8 else COLOURS[-1 - i], ls="--")
        axes.lines[-1].set_label(line.label)
    for i, line in enumerate(lines):
        draw(axes, line, COLOURS[i % len(COLOURS)])
    axes.set(xlabel=x, ylabel=y)
    if all((line.mid > 0).all() for line in [*lines, *references]):
        axes.set_yscale("log")
        numbered(axes.yaxis)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)
    return to_svg(figure)


def numbered(axis: Axis) -> None:
    """Plain numbers at an axis that is a logarithm, the fewer to a decade the more decades there are."""
    low, high = axis.get_view_interval()
    decades = math.log10(high / low)
    steps = (1, 2, 5) if decades < 3 else (1, 3) if decades < 5 else (1,)
    axis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axis.set_major_formatter(lambda x, _: f"{x:,.0f}" if x >= 10 else f"{x:.3g}")
    axis.set_minor_formatter(NullFormatter())


@mpl.rc_context(STYLE)
def metrics(series: dict[str, Series]) -> str:
    """One small panel for each kind of metric: median and quartiles over seeds."""
    kinds: dict[str, list[str]] = {}
    for name in series:
        kind = next((kind for kind in ("loss", "accuracy", "error") if kind in name), name)
        kinds.setdefault(kind, []).append(name)
    figure, panels = _panels(len(kinds), width=WIDTH / 3, height=2.3, columns=3)
    for axes, (kind, names) in zip(panels, kinds.items(), strict=False):
        for i, name in enumerate(names):
            steps, values = _binned(recorded(series[name]))
            draw(axes, Line(plain(name), steps, *quartiles(values)), COLOURS[i % len(COLOURS)])
            if not (series[name].values % 1).any():
                axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
                axes.set_ylim(np.min(values) - 0.5, np.max(values) + 0.5)
        axes.set_title(plain(kind if len(names) > 1 else names[0]))
        axes.set_xlabel("step")
        if len(names) > 1:
            axes.legend(fontsize=8, handlelength=1.4)
    return to_svg(figure)


@mpl.rc_context(STYLE)
def weights(
    series: Series, edges: Sequence[str], operations: Sequence[str], colours: dict[str, str]
) -> str:
    """One small panel for each edge, one line for each operation.

    Args:
      series: `[T, S, edges, operations]`.
      edges: names of the edges.
      operations: names of the operations.
      colours: one for each operation.

    Returns:
      The SVG: the mean over seeds in full colour, up to eight single seeds faint.
    """
    count = series.values.shape[2]
    columns = 3 if count % 3 == 0 and count % 4 else 4
    figure, panels = _panels(count, width=WIDTH / columns, height=1.9, columns=columns, share=True)
    steps, values = _binned(series)
    for e, axes in enumerate(panels[:count]):
        for o, name in enumerate(operations):
            look: dict[str, Any] = {
                "color": colours.get(name, FAINT),
                "ls": "--" if is_none(name) else "-",
                "marker": "o" if len(steps) == 1 else "",  # a line through one point is nothing
            }
            if values.shape[1] > 1:
                axes.plot(steps, values[:, :8, e, o], lw=0.6, alpha=0.35, **look)
            axes.plot(steps, _mean(values[:, :, e, o]), lw=1.8, label=name, **look)
        axes.set_title(edges[e])
    figure.supxlabel("step", fontsize=9.5)
    figure.supylabel("mixing weight", fontsize=9.5)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 8))
    return to_svg(figure)


@mpl.rc_context(STYLE)
def strengths(
    weight: np.ndarray,
    accuracy: np.ndarray,
    edges: Sequence[str],
    operations: Sequence[str],
    colours: dict[str, str],
) -> str:
    """What each operation weighs in the mixture against what the supernet is worth with it alone.

    Args:
      weight: `[S, M, K]` mixing weights.
      accuracy: `[S, M, K]` in %.
      edges: names of the `M` edges.
      operations: names of the `K` operations.
      colours: one for each operation.

    Returns:
      The SVG: a panel for each edge, a dot for each seed.
    """
    columns = min(len(edges), 4)
    figure, panels = _panels(
        len(edges), width=WIDTH / columns, height=2.4, columns=columns, whole=False
    )
    for e, axes in enumerate(panels[: len(edges)]):
        for o, name in enumerate(operations):
            look: dict[str, Any] = {"color": colours.get(name, FAINT), "alpha": 0.8, "ms": 5}
            axes.plot(weight[:, e, o], accuracy[:, e, o], "o", mew=0, label=name, **look)
        axes.set_title(edges[e])
    figure.supxlabel("mixing weight", fontsize=9.5)
    figure.supylabel("accuracy with it alone, %", fontsize=9.5)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(len(labels), 8))
    return to_svg(figure)


@mpl.rc_context(STYLE)
def dots(rows: Sequence[tuple[str, np.ndarray, np.ndarray]], *, x: str) -> str:
    """Judged cells of several runs: a dot each, random cells beside them in grey.

    Args:
      rows: `(label, found [S], random [R])`.
      x: what the numbers are.

    Returns:
      The SVG, with a bar at each mean.
    """
    figure, (axes,) = _panels(1, width=WIDTH, height=0.8 + 0.55 * len(rows), columns=1)
    for i, (_, found, random) in enumerate(rows):
        look = (found, i - 0.12, COLOURS[i % len(COLOURS)]), (random, i + 0.2, "#9aa2ad")
        for values, y, colour in look:
            axes.plot(values, np.full(len(values), y), "o", ms=4.5, mew=0, alpha=0.6, color=colour)
            if len(values):
                axes.plot(np.mean(values), y, "|", ms=15, mew=2.2, color=colour)
    axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
    axes.set(xlabel=x, ylim=(len(rows) - 0.5, -0.5))
    axes.grid(axis="y", visible=False)
    return to_svg(figure)


def recorded(series: Series) -> Series:
    """The steps at which there is anything: some measurements are made only now and then."""
    some = np.isfinite(series.values).any(axis=1)
    return Series(series.steps[some], series.values[some])


def plain(name: str) -> str:
    """A metric's name in words."""
    return name.replace("_", " ").replace("/", ": ")


def _panels(
    count: int,
    *,
    width: float,
    height: float,
    columns: int,
    share: bool = False,
    whole: bool = True,
) -> tuple[Figure, list[Axes]]:
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share)
    panels = list(grid.flat)
    for i, axes in enumerate(panels):
        axes.xaxis.set_major_locator(MaxNLocator(4 if width < 4 else 7, integer=whole))
        axes.yaxis.set_major_locator(MaxNLocator(4 if width < 4 else 6))
        axes.set_visible(i < count)
        axes.tick_params(labelbottom=not share or i + columns >= count)
    return figure, panels


def draw(axes: Axes, line: Line, colour: str, style: str = "-") -> None:
    """Draws a line and its band."""
    axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, lw=0)
    mark = "o" if len(line.x) == 1 else ""  # a line through one point is nothing
    axes.plot(line.x, line.mid, color=colour, lw=1.9, ls=style, marker=mark, label=line.label)


def _window(lines: Sequence[Line]) -> dict[str, Any]:
    # The first few candidates are far below; shown in full they would flatten the rest.
    end = max(line.x[-1] for line in lines)
    late = np.concatenate([line.low[line.x >= 0.03 * end] for line in lines])
    low, high = np.nanmin(late), max(np.nanmax(line.high) for line in lines)
    room = 0.08 * (high - low or 1.0)
    return {"xlim": (0, end), "ylim": (low - room, high + room)}


def quartiles(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median, first and third quartile over seeds of `[T, S]`, NaN where nothing was recorded."""
    some = np.isfinite(values).any(axis=1)
    found = np.full((3, len(values)), np.nan)
    found[:, some] = np.nanquantile(values[some], (0.5, 0.25, 0.75), axis=1)
    return found[0], found[1], found[2]


def _mean(values: np.ndarray) -> np.ndarray:
    some = np.isfinite(values)
    return np.where(some, values, 0).sum(1) / np.where(some.any(1), some.sum(1), np.nan)


def _binned(series: Series, most: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Means over stretches of steps, where there are more steps than a panel can show."""
    steps, values = series
    if len(steps) <= most:
        return steps, values
    starts = np.linspace(0, len(steps), most, endpoint=False).astype(int)
    counts = np.diff([*starts, len(steps)]).reshape(-1, *[1] * (values.ndim - 1))
    return steps[starts], np.add.reduceat(values, starts, axis=0) / counts


def to_svg(figure: Figure) -> str:
    """The figure as an `<svg>` element that needs nothing else and is the same each time."""
    file = io.StringIO()
    bare = {"Creator": None, "Date": None, "Format": None, "Type": None}
    figure.savefig(file, format="svg", metadata=bare)
    text = file.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(
        r' id="(figure|axes|patch|line2d|text|matplotlib|\w+Collection|QuadMesh|FillBetween\w*|legend)[\w.]*"',
        "",
        text,
    )
    return text[text.index("<svg") :]
