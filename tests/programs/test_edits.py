"""Random edits of sources: they parse, they differ, they are where they should be."""

import ast
from collections import Counter

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from jaxnas.programs.edits import OPERATORS, Network, _network, edited

CONVOLUTIONS = """
class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = x[..., None]
        x = nn.relu(nn.Conv(16, (3,))(x))
        x = x + nn.Conv(features=16, kernel_size=(3,))(x)
        x = nn.avg_pool(x, (2,), strides=(2,))
        x = x.reshape((x.shape[0], -1))
        x = nn.relu(nn.Dense(32)(x))
        x = nn.Dense(10)(x)
        return x
"""
MLP = """
class Model(nn.Module):
    @nn.compact
    def __call__(self, inputs):
        hidden = nn.relu(nn.Dense(100)(inputs))
        hidden = hidden + nn.Dense(100)(hidden)
        return nn.Dense(10)(hidden)
"""


def output_shape(source):
    names = {"nn": nn, "jnp": jnp, "jax": jax}
    exec(source, names)
    x = jnp.zeros((2, 40))
    return jax.eval_shape(lambda x: names["Model"]().init_with_output(jax.random.key(0), x)[0], x)


@pytest.mark.parametrize("source", [CONVOLUTIONS, MLP])
def test_edits_parse_differ_and_mostly_run(source):
    plain = ast.unparse(ast.parse(source))
    outcomes = Counter()
    for seed in range(60):
        new = edited(source, seed, most=2)
        ast.parse(new)
        outcomes["changed"] += new.strip() != plain
        try:
            assert output_shape(new).shape == (2, 10)
            outcomes["runs"] += 1
        except Exception as error:
            outcomes[type(error).__name__] += 1
    assert outcomes["changed"] >= 57  # two edits may cancel each other
    assert outcomes["runs"] >= 45, outcomes


def test_equal_seeds_give_equal_edits_and_other_seeds_others():
    first = [edited(CONVOLUTIONS, seed, most=3) for seed in range(20)]
    assert first == [edited(CONVOLUTIONS, seed, most=3) for seed in range(20)]
    assert len(set(first)) >= 17


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda f: f.__name__)
def test_each_operator_does_what_its_name_says(operator):
    from random import Random

    seen = set()
    for seed in range(40):
        tree = ast.parse(CONVOLUTIONS)
        before = [ast.unparse(step) for step in _network(tree).body]
        assert operator(Random(seed), _network(tree))
        after = [ast.unparse(step) for step in _network(tree).body]
        seen.add(len(after) - len(before))
        assert after[-2:] == before[-2:]  # the last layer stays
        changed = [b for b in before if b not in after]
        assert all("reshape" not in b and "None" not in b for b in changed)
    expected = {"_insert": {1}, "_delete": {-1}}.get(operator.__name__, {0})
    assert seen == expected


def test_widths_that_belong_together_can_change_together():
    results = {edited(MLP, seed) for seed in range(200)}
    both = [r for r in results if "Dense(100)" not in r and r.count("Dense(50)") == 2]
    one = [r for r in results if r.count("Dense(100)") == 1 and r.count("Dense(50)") == 1]
    assert both
    assert one


@pytest.mark.parametrize(
    ("at", "spatial"), [(0, False), (1, True), (2, True), (4, True), (5, False), (6, False)]
)
def test_spatial_layers_are_inserted_only_where_there_are_spatial_axes(at, spatial):
    from random import Random

    from jaxnas.programs.edits import _layer

    network = _network(ast.parse(CONVOLUTIONS))
    layers = [ast.unparse(_layer(Random(seed), network, at)) for seed in range(80)]
    assert any("Conv" in layer or "pool" in layer for layer in layers) == spatial


def test_convolutions_have_as_many_axes_as_those_that_are_there():
    source = CONVOLUTIONS.replace("(3,)", "(3, 3)").replace("(2,)", "(2, 2)")
    assert isinstance(_network(ast.parse(source)), Network)
    assert _network(ast.parse(source)).axes == 2
    inserted = [edited(source, seed) for seed in range(80)]
    for new in inserted:
        for call in ast.walk(ast.parse(new)):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "nn.Conv":
                sizes = [*call.args, *(k.value for k in call.keywords)]
                assert all(len(s.elts) == 2 for s in sizes if isinstance(s, ast.Tuple))


@pytest.mark.parametrize(
    "source", ["", "x = 1\n", "class Model(nn.Module):\n    width = 3\n", "no program (", "\0"]
)
def test_what_cannot_be_edited_stays(source):
    assert edited(source, 3, most=3) == source
