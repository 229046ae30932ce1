import re
from itertools import pairwise

import numpy as np
import pytest
from synthetic_runs import NB_EDGES, NB_OPS, darts_cells

from jaxnas.report.cell import draw
from jaxnas.report.figures import best_so_far
from jaxnas.report.html import Markup, duration, number, tag
from jaxnas.report.view import COLOURS, FAINT, Series, palette

EVERY_EDGE = {
    "nodes": ["c_{k-2}", "c_{k-1}", "0", "1", "2", "3"],
    "edges": [[j, i, "dil_conv_5x5"] for i in range(2, 6) for j in range(i)],
}
NB_CELL = {
    "nodes": ["input", "1", "2", "output"],
    "edges": [[j, i, NB_OPS[n % 5]] for n, (j, i) in enumerate(NB_EDGES)],
}


def labels(svg):
    """`(x, y, width, text)` of each text but node names, at the width of a wide font."""
    pattern = r'<text x="([\d.]+)" y="([\d.]+)" text-anchor="middle" font-size="11.5"[^>]*>([^<]+)<'
    return [(float(x), float(y), 6.9 * len(t), t) for x, y, t in re.findall(pattern, svg)]


@pytest.mark.parametrize(
    "graph", [NB_CELL, EVERY_EDGE, *darts_cells().values()], ids=["6", "14", "normal", "reduce"]
)
def test_no_two_labels_of_a_cell_touch_and_all_lie_inside(graph):
    svg = draw(graph, {})
    found = labels(svg)
    assert sorted(t for *_, t in found) == sorted(label for *_, label in graph["edges"] if label)
    width, height = map(float, re.search(r'viewBox="0 0 (\d+) (\d+)"', svg).groups())
    for x, y, w, _ in found:
        assert w / 2 <= x <= width - w / 2
        assert 11 <= y <= height
    for x, y, w, _ in found:
        near = [o for o in found if abs(o[1] - y) < 13 and o[:2] != (x, y)]
        assert all(abs(o[0] - x) >= (o[2] + w) / 2 for o in near)


def test_labels_keep_clear_of_the_nodes():
    svg = draw(NB_CELL, {})
    boxes = re.findall(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', svg)
    for x, y, w, _ in labels(svg):
        for left, top, wide in ((float(a), float(b), float(c)) for a, b, c in boxes):
            beside = x + w / 2 <= left or x - w / 2 >= left + wide
            assert beside or y <= top


def test_edges_wear_the_colour_of_their_operation_and_none_is_faint():
    colours = palette(list(NB_OPS))
    svg = draw(NB_CELL, colours)
    assert colours["none"] == FAINT
    for operation in NB_OPS[1:]:
        assert f'stroke="{colours[operation]}"' in svg
    used = sum(label == "none" for *_, label in NB_CELL["edges"])
    assert svg.count("stroke-dasharray") == used == 2
    assert svg.count("<polygon") == len(NB_CELL["edges"]) - used


def test_parallel_edges_are_drawn_apart():
    svg = draw({"nodes": ["a", "b"], "edges": [[0, 1, "x"], [0, 1, "y"], [0, 1, "z"]]}, {})
    heights = sorted(y for _, y, _, _ in labels(svg))
    assert all(b - a >= 13 for a, b in pairwise(heights))


def test_a_palette_is_stable_and_gives_distinct_colours():
    names = [f"op{i}" for i in range(len(COLOURS))]
    assert len({*palette(names).values()}) == len(COLOURS)
    assert palette(["none", *names])["op0"] == palette(names)["op0"]


def test_best_so_far_agrees_with_a_plain_loop_when_costs_differ():
    rng = np.random.default_rng(0)
    fitness = rng.random((30, 5))
    fitness[0, 0] = np.nan
    cost = np.cumsum(rng.integers(1, 4, (30, 5)), axis=0).astype(float)
    steps = np.arange(1, 31)
    line = best_so_far("x", Series(steps, fitness), Series(steps, cost))
    for i, c in enumerate(line.x):
        best = []
        for s in range(5):
            seen = [f for f, k in zip(fitness[:, s], cost[:, s], strict=True) if k <= c]
            best += [max((f for f in seen if f == f), default=np.nan)]
        known = [b for b in best if b == b]
        if known:
            np.testing.assert_allclose(line.mid[i], np.median(known))
            np.testing.assert_allclose(line.low[i], np.quantile(known, 0.25))
            np.testing.assert_allclose(line.high[i], np.quantile(known, 0.75))
        else:
            assert np.isnan(line.mid[i])


def test_without_a_cost_the_curve_runs_over_steps():
    line = best_so_far("x", Series(np.array([2, 4, 6]), np.array([[1.0], [3.0], [2.0]])), None)
    assert line.x.tolist() == [2, 4, 6]
    assert line.mid.tolist() == [1, 3, 3]


def test_children_are_escaped_unless_they_are_markup():
    assert tag("p", "<b>", Markup("<i>"), class_='"') == '<p class="&quot;">&lt;b&gt;<i></p>'


@pytest.mark.parametrize(
    ("value", "text"),
    [(93.0, "93.00"), (0.1234567, "0.123"), (3, "3"), (None, "-"), (float("nan"), "-")],
)
def test_numbers_are_short(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(2.34, "2.3 s"), (61, "1 min 01 s"), (5025.0, "1 h 23 min")]
)
def test_durations_have_two_units(seconds, text):
    assert duration(seconds) == text
