"""Drawings of expressions: every symbol inside the picture, none upon another."""

import itertools
import random
import re

import pytest

from jaxnas.report.tree import draw

LEAVES = ["g", "m1", "1", "rmsprop", "a_leaf_of_a_long_name"]
OPERATORS = {"add": 2, "div": 2, "exp": 1, "clip5": 1, "an_operator_of_a_long_name": 1, "gate": 3}


def random_tree(rng, depth):
    if depth == 0 or rng.random() < 0.2:
        return [rng.choice(LEAVES)]
    name = rng.choice(list(OPERATORS))
    return [name, *(random_tree(rng, depth - 1) for _ in range(OPERATORS[name]))]


def names(tree):
    return [tree[0], *itertools.chain(*(names(operand) for operand in tree[1:]))]


def boxes(svg):
    pattern = r'<rect x="([-\d.]+)" y="([-\d.]+)" width="([\d.]+)" height="([\d.]+)"'
    return [tuple(map(float, found)) for found in re.findall(pattern, svg)]


@pytest.mark.parametrize("seed", range(25))
def test_boxes_lie_inside_and_apart_and_lines_join_them(seed):
    tree = random_tree(random.Random(seed), 4)
    svg = draw(tree)
    found = boxes(svg)
    wide, high = map(float, re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())
    assert len(found) == len(names(tree))
    for x, y, width, height in found:
        assert 0 <= x <= x + width <= wide
        assert 0 <= y <= y + height <= high
    for one, other in itertools.combinations(found, 2):
        if one[1] == other[1]:
            assert one[0] + one[2] < other[0] or other[0] + other[2] < one[0]
    ends = {(round(x + width / 2, 1), round(y)) for x, y, width, _ in found}
    lines = re.findall(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)"', svg)
    assert len(lines) == len(found) - 1
    for x1, y1, x2, y2 in (map(float, line) for line in lines):
        assert y1 < y2
        assert any(abs(x1 - x) < 0.2 and abs(y1 - y - 28) < 1 for x, y in ends)
        assert any(abs(x2 - x) < 0.2 and abs(y2 - y) < 1 for x, y in ends)


def test_operators_wear_their_signs_and_leaves_round_corners():
    svg = draw(["sub", ["neg", ["g"]], ["mul", ["m1"], ["2"]]])
    shown = re.findall(r">([^<]+)</text>", svg)
    assert sorted(shown) == sorted(["-", "-", "g", "·", "m1", "2"])
    radii = re.findall(r'rx="([\d.]+)"', svg)
    assert sorted(map(float, radii)) == [4, 4, 4, 14, 14, 14]


def test_a_single_leaf_and_hostile_names_are_drawn():
    assert len(boxes(draw(["g"]))) == 1
    svg = draw(["exp", ["<script>alert('x')</script>"]])
    assert "<script" not in svg
    assert "&lt;script" in svg
