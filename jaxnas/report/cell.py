"""A cell as a directed graph: nodes in a row, edges as arcs, one height for each distance.

Two arcs of one height are at least a node apart and arcs around one middle differ in height, so
their labels, written on the tops, never meet.
"""

from collections import Counter
from typing import Any, NamedTuple

from jaxnas.report.html import Markup, join, tag
from jaxnas.report.view import FAINT, is_none

_RISE, _NODE, _LETTER = 44.0, 17.0, 7.0
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


class _Edge(NamedTuple):
    source: int
    target: int
    label: str
    height: int  # in levels: the distance, one more for each parallel edge below


class _Plan(NamedTuple):
    x: list[float]
    half: list[float]
    base: float
    colours: dict[str, str]


def draw(graph: dict[str, Any], colours: dict[str, str]) -> Markup:
    """Draws one cell as SVG.

    Args:
      graph: `{"nodes": [name, ...], "edges": [[source, target, label], ...]}`. Edges whose label
        is `none` are faint; edges without a label (say, to the output) are thin.
      colours: one for each label.

    Returns:
      An `<svg>` element that needs nothing else.
    """
    nodes = [str(name) for name in graph["nodes"]]
    edges = sorted(_edges(graph), key=lambda edge: not is_none(edge.label))
    plan = _plan(nodes, edges, colours)
    inner = [_arc(edge, plan) for edge in edges] + [_label(edge, plan) for edge in edges]
    inner += [_node(i, name, plan) for i, name in enumerate(nodes)]
    width, height = plan.x[-1] + plan.half[-1] + 4, plan.base + _NODE + 6
    box = {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}"}
    return tag("svg", *inner, **box, height=f"{height:.0f}", role="img", font_family=FONT)


def legend(colours: dict[str, str], graph: dict[str, Any]) -> Markup:
    """The operations of a graph with their colours."""
    used = {str(label) for *_, label in graph["edges"]}
    return join(
        join([tag("span", class_="key", style=f"background: {colour}"), name])
        for name, colour in colours.items()
        if name in used
    )


def _edges(graph: dict[str, Any]) -> list[_Edge]:
    seen: Counter[tuple[int, int]] = Counter()
    edges = []
    for source, target, label in graph["edges"]:
        height = abs(target - source) + seen[source, target]
        seen[source, target] += 1
        edges.append(_Edge(int(source), int(target), str(label or ""), height))
    return edges


def _plan(nodes: list[str], edges: list[_Edge], colours: dict[str, str]) -> _Plan:
    half = [max(_NODE, 3.8 * len(name) + 7) for name in nodes]
    room = max((_LETTER * len(edge.label) for edge in edges), default=0.0) + 26
    x = [half[0] + 4] if nodes else [0.0]
    for i in range(1, len(nodes)):
        x.append(x[-1] + half[i - 1] + room + half[i])
    levels = max((edge.height for edge in edges), default=1) - 1
    return _Plan(x, half, 22 + _RISE * levels + _NODE * (2 if levels else 1), colours)


def _top(edge: _Edge, plan: _Plan) -> tuple[float, float]:
    left, right = sorted((edge.source, edge.target))
    middle = (plan.x[left] + plan.half[left] + plan.x[right] - plan.half[right]) / 2
    if edge.height == 1:
        return middle, plan.base
    return (plan.x[left] + plan.x[right]) / 2, plan.base - _NODE - _RISE * (edge.height - 1)


def _arc(edge: _Edge, plan: _Plan) -> Markup:
    side = 1 if edge.target > edge.source else -1
    start, end = plan.x[edge.source], plan.x[edge.target]
    if edge.height == 1:
        start, end = start + side * plan.half[edge.source], end - side * plan.half[edge.target]
        tip, line, y, pull = (end, plan.base), end - side * 7, plan.base, plan.base
    else:
        start, end = start + side * 7, end - side * (3 + 2.2 * edge.height)
        y = plan.base - _NODE
        tip, line, pull = (end + side * 1.6, y + 0.5), end, y - (y - _top(edge, plan)[1]) / 0.75
    y1 = y if edge.height == 1 else y - 6
    lean = 0.22 * (line - start)
    path = f"M{start:.1f} {y:.1f} C{start + lean:.1f} {pull:.1f} {line - lean:.1f} {pull:.1f}"
    dead, colour = is_none(edge.label), plan.colours.get(edge.label, FAINT)
    dashes: dict[str, str] = {"stroke_dasharray": "3 4"} if dead else {}
    width = "1" if dead or not edge.label else "2.4"
    look = {"fill": "none", "stroke": colour, "stroke_width": width, **dashes}
    drawn = tag("path", d=f"{path} {line:.1f} {y1:.1f}", **look)
    return tag("g", drawn, *([] if dead else [_head((line, y1), tip, colour)]))


def _head(end: tuple[float, float], tip: tuple[float, float], colour: str) -> Markup:
    dx, dy = 0.6 * (tip[0] - end[0]), 0.6 * (tip[1] - end[1])
    corners = tip, (end[0] - dy, end[1] + dx), (end[0] + dy, end[1] - dx)
    return tag("polygon", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in corners), fill=colour)


def _label(edge: _Edge, plan: _Plan) -> Markup:
    (x, y), dead = _top(edge, plan), is_none(edge.label)
    return tag(
        "text",
        edge.label,
        x=f"{x:.1f}",
        y=f"{y - 6:.1f}",
        text_anchor="middle",
        font_size="11.5",
        fill="#98a0aa" if dead else plan.colours.get(edge.label, FAINT),
        stroke="#fff",
        stroke_width="3",
        paint_order="stroke",
        font_weight="400" if dead else "600",
    )


def _node(i: int, name: str, plan: _Plan) -> Markup:
    return plate(name, (plan.x[i], plan.base), (plan.half[i], _NODE), rx=_NODE)


def plate(
    text: str,
    middle: tuple[float, float],
    half: tuple[float, float],
    *,
    rx: float,
    stroke: str = "#1c2430",
    stroke_width: str = "1.4",
) -> Markup:
    """A rounded box with a text in its middle; `half` are half its width and half its height."""
    (x, y), (across, down) = middle, half
    box = tag(
        "rect",
        x=f"{x - across:.1f}",
        y=f"{y - down:.1f}",
        width=f"{2 * across:.1f}",
        height=f"{2 * down:.1f}",
        rx=f"{rx:.1f}",
        fill="#fff",
        stroke=stroke,
        stroke_width=stroke_width,
    )
    at = {"x": f"{x:.1f}", "y": f"{y + 4.5:.1f}"}
    shown = tag("text", text, **at, text_anchor="middle", font_size="13", fill="#1c2430")
    return tag("g", box, shown)
