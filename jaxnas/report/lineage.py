"""Where what was found comes from: its ancestors, and what each step changed."""

import itertools
import textwrap
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from jaxnas.report.figures import STYLE, WIDTH, to_svg
from jaxnas.report.html import Markup, figure, join, number, table, tag
from jaxnas.report.source import changes, code, diff, is_source, short
from jaxnas.report.view import COLOURS, View, answer, noun
from jaxnas.runs.lineage import Kin, births, lineage

_DOTS, _LISTED, _NEAR = 1_500, 40, (0.04, 0.07)


def ancestry(one: View) -> Markup | str:
    """The tree of what was found, and the way from founder to it; nothing where nobody has parents."""
    found = answer(one)
    named = found and one.run.named(found.genotype, found.seed)
    best = named or next((tried for tried, _ in one.run.top(1)), None)
    family = lineage(one.run, best) if best else []
    if not best or len(family) < 2:
        return ""
    line = chain(family)
    svg = tree(family, line, births(one.run, best.seed), y=_searched(one))
    what = f"The best {noun(one)} found" if named else "The best candidate measured"
    said = (
        f"{what}, #{family[0].serial} of seed {best.seed}, and its ancestors, "
        f"numbered in the order in which the search asked for them. Coloured: from first parent to "
        f"first parent; dashed: other parents; grey: everyone else."
    )
    told = _diffs(line) if any(is_source(kin.candidate.genotype) for kin in line) else _rows(line)
    return join([figure(svg, said), told])


def _searched(one: View) -> str:
    label = one.meta.get("search_label", one.meta.get("fitness_label", "fitness"))
    return textwrap.fill(str(label), 44)


def chain(family: Sequence[Kin]) -> list[Kin]:
    """From the founder by first parents to the first of a family."""
    known, line = {kin.serial: kin for kin in family}, [family[0]]
    while line[-1].parents and line[-1].parents[0] in known and len(line) < len(family):
        line.append(known[line[-1].parents[0]])
    return line[::-1]


@mpl.rc_context(STYLE)
def tree(
    family: Sequence[Kin], line: Sequence[Kin], everyone: Sequence[tuple[int, float]], *, y: str
) -> str:
    """Ancestors by birth and fitness, each tied to its parents.

    Args:
      family: the best candidate first.
      line: from first parent to first parent.
      everyone: `(serial, fitness)` of all candidates.
      y: what fitness is.

    Returns:
      The SVG.
    """
    drawn = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes = drawn.subplots()
    others = np.array(everyone, float).reshape(-1, 2)
    thin = others[:: max(1, len(others) // _DOTS)]
    axes.plot(*thin.T, "o", ms=3, mew=0, color="#c9ced5", zorder=1)
    at = {kin.serial: (kin.serial, _height(kin)) for kin in family}
    main = {kin.serial for kin in line}
    for kin in family:
        for n, parent in enumerate(kin.parents):
            if parent in at:
                _tie(axes, at[parent], at[kin.serial], main=n == 0 and kin.serial in main)
    for kin in family:
        fill = COLOURS[1] if kin.serial in main else "#fff"
        axes.plot(*at[kin.serial], "o", ms=7, mfc=fill, mec=COLOURS[1], mew=1.2, zorder=4)
    low, high = _window([h for _, h in at.values()], others[:, 1])
    for serial, place in _apart([(s, at[s]) for s in sorted(main, reverse=True)], low, high):
        put: dict[str, Any] = {
            "xytext": (0, 8),
            "textcoords": "offset points",
            "ha": "center",
            "fontsize": 8.5,
        }
        axes.annotate(f"#{serial}", place, **put, zorder=5)
    axes.set(xlabel="candidate", ylabel=y, ylim=(low, high))
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    return to_svg(drawn)


def _height(kin: Kin) -> float:
    fitness = kin.candidate.fitness
    return np.nan if fitness is None else fitness


def _tie(axes: Axes, start: tuple[float, float], end: tuple[float, float], *, main: bool) -> None:
    other: dict[str, Any] = {"color": "#8a93a0", "lw": 1.0, "ls": "--"}
    look = {"color": COLOURS[1], "lw": 2.0} if main else other
    axes.plot(*zip(start, end, strict=True), **look, zorder=3 if main else 2)


def _apart(
    places: Sequence[tuple[int, tuple[float, float]]], low: float, high: float
) -> list[tuple[int, tuple[float, float]]]:
    """Those whose names do not meet on the picture, the first first."""
    span = max(x for _, (x, _) in places)
    kept: list[tuple[int, tuple[float, float]]] = []
    for serial, (x, y) in places:
        near = (
            abs(x - u) < _NEAR[0] * span and abs(y - v) < _NEAR[1] * (high - low)
            for _, (u, v) in kept
        )
        if not any(near):
            kept.append((serial, (x, y)))
    return kept


def _window(family: Sequence[float], everyone: np.ndarray) -> tuple[float, float]:
    # A few candidates are far below; shown in full they would flatten the rest.
    low = min(np.nanmin(family), np.quantile(everyone, 0.1))
    room = 0.08 * (np.max(everyone) - low or 1.0)
    return low - room, np.max(everyone) + 2 * room


def _rows(line: Sequence[Kin]) -> Markup:
    rows = [
        [
            f"#{kin.serial}",
            number(kin.candidate.fitness),
            str(kin.candidate.step),
            kin.candidate.genotype,
        ]
        for kin in line[-_LISTED:]
    ]
    heads = ["candidate", "fitness", "step", "genotype"]
    return table(heads, rows, code=["genotype"], text=["candidate"], caption=_left_out(line))


def _diffs(line: Sequence[Kin]) -> Markup:
    """The source of the first that is listed, and what each later one changed in its first parent."""
    shown = line[-_LISTED:]
    steps = [_first(shown[0])]
    for before, kin in itertools.pairwise(shown):
        steps.append(_step(before, kin, unfolded=kin in shown[-2:]))
    return join([tag("p", _left_out(line), class_="soft"), *steps])


def _left_out(line: Sequence[Kin]) -> str:
    known = f"{len(line)} generations"
    return f"The last {_LISTED} of {known}." if len(line) > _LISTED else f"{known}."


def _first(kin: Kin) -> Markup:
    said = (
        f"#{kin.serial}, fitness {number(kin.candidate.fitness)}: {short(kin.candidate.genotype)}"
    )
    return tag("details", tag("summary", said), code(kin.candidate.genotype))


def _step(before: Kin, kin: Kin, *, unfolded: bool) -> Markup:
    lines = changes(before.candidate.genotype, kin.candidate.genotype)
    more, less = (sum(line.startswith(sign) for line in lines) for sign in "+-")
    others = ", ".join(f"#{parent}" for parent in kin.parents if parent != before.serial)
    said = (
        f"#{kin.serial} from #{before.serial}{' and ' + others if others else ''}, step "
        f"{kin.candidate.step}: fitness {number(before.candidate.fitness)} → "
        f"{number(kin.candidate.fitness)}, +{more} -{less} lines"
    )
    opened = {"open": ""} if unfolded else {}
    body = diff(lines) if lines else tag("p", "The same text.", class_="soft")
    return tag("details", tag("summary", said), body, **opened)
