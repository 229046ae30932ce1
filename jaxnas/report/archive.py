"""Maps of archives: a cell for each kind of candidate, its colour the best fitness of that kind."""

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxnas.report.figures import STYLE, WIDTH, Line, draw, plain, quartiles, to_svg
from jaxnas.report.html import Markup, figure, join
from jaxnas.report.view import COLOURS, Series, View

PREFIX = "archive_"
_EMPTY = "#f1f3f5"


def archives(one: View) -> Markup | str:
    """Every archive that a run took snapshots of: its map in the end, and how it filled."""
    labels = one.meta.get("archives", {})
    kept = {n.removeprefix(PREFIX): s for n, s in one.snapshots.items() if n.startswith(PREFIX)}
    return join(_archive(name, series, labels.get(name, {})) for name, series in kept.items())


def _archive(name: str, series: Series, label: Mapping[str, Any]) -> Markup:
    values = series.values if series.values.ndim == 3 else series.values[..., 0]
    seeds, cells = values.shape[1:]
    last = values[-1]
    seed = int(np.argmax(np.where(np.isfinite(last), last, -np.inf).max(1)))
    filled = int(np.isfinite(last[seed]).sum())
    centroids = np.array(label.get("centroids", ()), float).reshape(cells, -1) if label else None
    flat = centroids is not None and centroids.shape == (cells, 2)
    said = f"Archive of {plain(name)}: {filled:,} of {cells:,} cells hold a candidate"
    said += f" (seed {seed}, the best of {seeds})." if seeds > 1 else "."
    said += " Left: the best of each cell, empty cells light." if flat else ""
    svg = picture(Series(series.steps, values), last[seed], centroids if flat else None, label)
    return figure(svg, said)


@mpl.rc_context(STYLE)
def picture(
    series: Series, last: np.ndarray, centroids: np.ndarray | None, label: Mapping[str, Any]
) -> str:
    """The map of an archive, where it has two axes, and its filled cells over time.

    Args:
      series: `[T, S, K]` fitness of each cell, NaN where it is empty.
      last: `[K]` what the map shows.
      centroids: `[K, 2]` in the unit square, or `None` for no map.
      label: `axes` as `[[label, low, high], ...]` and `fitness`, what it is.

    Returns:
      The SVG.
    """
    columns = 1 if centroids is None else 2
    drawn = Figure(figsize=(WIDTH, 4.6 if columns == 2 else 2.6), layout="constrained")
    panels = list(drawn.subplots(1, columns, squeeze=False, width_ratios=[1.5, 1][-columns:]).flat)
    if centroids is not None:
        _map(drawn, panels[0], last, centroids, label)
    filled = np.isfinite(series.values).sum(-1).astype(float)
    draw(panels[-1], Line("filled", series.steps, *quartiles(filled)), COLOURS[0])
    panels[-1].xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panels[-1].set(xlabel="step", ylabel=f"cells filled, of {len(last):,}", ylim=(0, None))
    return to_svg(drawn)


def _map(
    drawn: Figure, axes: Axes, last: np.ndarray, centroids: np.ndarray, label: Mapping[str, Any]
) -> None:
    ends = label.get("axes") or [["first axis", 0, 1], ["second axis", 0, 1]]
    low, high = (np.array([end[i] for end in ends], float) for i in (1, 2))
    shapes = [low + region * (high - low) for region in regions(centroids)]
    some = last[np.isfinite(last)]
    # One cell at chance level would leave no colours for the rest.
    bottom = float(np.quantile(some, 0.05)) if len(some) >= 20 else min(some, default=0.0)
    top = max(some, default=1.0)
    norm, colours = Normalize(bottom, top if top > bottom else bottom + 1), _colours()
    faces = [colours(norm(value)) if np.isfinite(value) else _EMPTY for value in last]
    look: dict[str, Any] = {"edgecolors": "#fff", "linewidths": 0.5 if len(last) < 500 else 0.2}
    axes.add_collection(PolyCollection(shapes, facecolors=faces, **look))
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    axes.set(xlabel=str(ends[0][0]), ylabel=str(ends[1][0]))
    axes.grid(visible=False)
    if len(some):
        best = low + centroids[int(np.nanargmax(last))] * (high - low)
        axes.plot(*best, "o", ms=6, mfc="none", mec="#d55e00", mew=1.8)
        lower = "min" if bottom > min(some) else "neither"
        bar = drawn.colorbar(ScalarMappable(norm, colours), ax=axes, extend=lower, pad=0.02)
        bar.set_label(str(label.get("fitness", "fitness")))
        bar.outline.set_visible(False)
        solids: Any = bar.solids
        solids.set_edgecolor("face")  # no seams between the colours


def _colours() -> Any:
    return mpl.colormaps["viridis"].resampled(48)  # of 50 on the bar would be a picture of pixels


def regions(centroids: Float[np.ndarray, "K 2"]) -> list[Float[np.ndarray, "V 2"]]:
    """The corners of the part of the unit square that is nearest to each centroid: Voronoi cells.

    Args:
      centroids: within the unit square.

    Returns:
      A convex polygon for each.
    """
    return [_region(centre, centroids) for centre in centroids]


def _region(centre: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """The unit square, cut in the middle between a centroid and each other one, nearest first."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    offsets = centroids - centre
    distances = np.hypot(*offsets.T)
    for n in np.argsort(distances, kind="stable"):
        if distances[n] > 2 * np.hypot(*(corners - centre).T).max(initial=0):
            break  # nobody further away reaches in
        if distances[n] > 0:
            corners = _cut(corners, offsets[n], centre + offsets[n] / 2)
    return corners


def _cut(corners: np.ndarray, normal: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The part of a convex polygon on the near side of a line."""
    side = (corners - point) @ normal
    if (side <= 0).all():
        return corners
    kept = []
    for i, (here, beyond) in enumerate(zip(corners, side, strict=True)):
        if beyond * side[i - 1] < 0:
            share = side[i - 1] / (side[i - 1] - beyond)
            kept.append(corners[i - 1] + share * (here - corners[i - 1]))
        if beyond <= 0:
            kept.append(here)
    return np.array(kept).reshape(-1, 2)
