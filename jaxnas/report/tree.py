"""An expression as a tree: the root on top, each operand below its operator."""

from typing import Any, NamedTuple

from jaxnas.report.cell import FONT, plate
from jaxnas.report.html import Markup, tag
from jaxnas.report.view import COLOURS

_DOWN, _HALF, _GAP, _LETTER = 52.0, 14.0, 14.0, 7.4
_SIGNS = {"add": "+", "sub": "-", "mul": "·", "div": "/", "pow": "^", "neg": "-"}


class _Place(NamedTuple):
    x: float
    y: float
    name: str
    leaf: bool
    below: list["_Place"]


def draw(tree: list[Any]) -> Markup:
    """Draws `[name, operand, ...]` as SVG; leaves stand side by side, operators above their middle."""
    root, right = _place(tree, 0, 0), _span(tree)
    places = list(_all(root))
    height = max(place.y for place in places) + _HALF + 4
    inner = [_line(one, other) for one in places for other in one.below]
    inner += [_box(one) for one in places]
    box = {"viewBox": f"0 0 {right:.0f} {height:.0f}", "width": f"{right:.0f}"}
    return tag("svg", *inner, **box, height=f"{height:.0f}", role="img", font_family=FONT)


def _shown(name: str) -> str:
    return _SIGNS.get(name, name)


def _width(name: str) -> float:
    return max(2 * _HALF, _LETTER * len(_shown(name)) + 16)


def _span(tree: list[Any]) -> float:
    """How wide a subtree is, with its gap."""
    return max(_width(str(tree[0])) + _GAP, sum(map(_span, tree[1:])))


def _place(tree: list[Any], left: float, depth: int) -> _Place:
    """The place of a subtree whose left edge is given."""
    name, span, below = str(tree[0]), _span(tree), list[_Place]()
    at = left + (span - sum(map(_span, tree[1:]))) / 2
    for operand in tree[1:]:
        below.append(_place(operand, at, depth + 1))
        at += _span(operand)
    half = (_width(name) + _GAP) / 2
    middle = (below[0].x + below[-1].x) / 2 if below else left + span / 2
    x = min(max(middle, left + half), left + span - half)
    return _Place(x, _HALF + 2 + _DOWN * depth, name, not below, below)


def _all(place: _Place) -> Any:
    yield place
    for child in place.below:
        yield from _all(child)


def _line(one: _Place, other: _Place) -> Markup:
    ends = {"x1": one.x, "y1": one.y + _HALF, "x2": other.x, "y2": other.y - _HALF}
    shown = {name: f"{value:.1f}" for name, value in ends.items()}
    return tag("line", **shown, stroke="#8a93a0", stroke_width="1.6")


def _box(one: _Place) -> Markup:
    look = {"stroke": COLOURS[0] if one.leaf else "#1c2430", "stroke_width": "1.5"}
    half = _width(one.name) / 2, _HALF
    return plate(_shown(one.name), (one.x, one.y), half, rx=_HALF if one.leaf else 4, **look)
