"""Random edits of triplet functions: they parse, they differ, and most are triplet functions."""

import ast
from collections import Counter
from random import Random

import jax
import jax.numpy as jnp
import pytest

from jaxnas.programs import gmpnn
from jaxnas.programs.clrs_trace import load
from jaxnas.programs.edits import edited
from jaxnas.programs.sandbox import rules
from jaxnas.programs.triplet_edits import OPERATORS
from jaxnas.programs.triplets import SEEDS, SOURCES

V2 = SOURCES["v2"]


def features(source):
    reads = jnp.ones((1, 3, 4)), jnp.ones((1, 3, 3, 2)), jnp.ones((1, 2))
    messages = gmpnn.Messages(load(source), 4, 6)
    told, variables = jax.eval_shape(messages.init_with_output, jax.random.key(0), *reads)
    return told.shape, sum(leaf.size for leaf in jax.tree.leaves(variables))


@pytest.mark.parametrize("name", SEEDS)
def test_edits_keep_the_rules_differ_and_mostly_run(name):
    outcomes = Counter()
    for seed in range(12):
        new = edited(SOURCES[name], seed, most=2)
        rules.check(new)
        outcomes["changed"] += new.strip() != ast.unparse(ast.parse(SOURCES[name]))
        try:
            outcomes["runs"] += features(new)[0][:3] == (1, 3, 3)
        except Exception as error:
            outcomes[type(error).__name__] += 1
    assert outcomes["changed"] >= 10, outcomes
    assert outcomes["runs"] >= 10, outcomes


def by(operator, source, seed):
    tree = ast.parse(source)
    assert operator(Random(seed), tree.body[-1])
    return ast.unparse(ast.fix_missing_locations(tree))


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("_aggregate", {"jnp.min(triplets", "jnp.mean(triplets", "jnp.sum(triplets"}),
        ("_add", {f"nn.Dense(nb_triplet_fts)({x})," for x in ("z", "edge_fts", "graph_fts")}),
        ("_deepen", {"nn.Dense(out_size)(nn.tanh(nn.Dense(out_size)(messages)))"}),
        ("_activate", {"nn.gelu(nn.Dense(out_size)(jnp.max(triplets, axis=1)))"}),
        ("_resize", {"nb_triplet_fts = 2 * nb", "nb_triplet_fts = max(1, nb_triplet_fts // 2)"}),
    ],
)
def test_each_operator_does_what_its_name_says(name, seen):
    operator = next(one for one in OPERATORS if one.__name__ == name)
    results = [by(operator, V2, seed) for seed in range(60)]
    assert all(any(part in result for result in results) for part in seen)
    assert all(result != ast.unparse(ast.parse(V2)) for result in results)


def test_a_dropped_term_takes_the_layers_along_that_only_it_read():
    drop = next(one for one in OPERATORS if one.__name__ == "_drop")
    results = {by(drop, V2, seed) for seed in range(20)}
    assert len(results) == 2
    sizes = sorted(features(one)[1] for one in results)
    whole = features(V2)[1]
    edges, graph = 3 * (2 * 4 + 4), 2 * 4 + 4
    assert sizes == [whole - edges, whole - graph]


def test_a_hidden_layer_comes_and_goes():
    deepen, shorten = (
        next(one for one in OPERATORS if one.__name__ == name) for name in ("_deepen", "_shorten")
    )
    source = SOURCES["v6"]
    assert ast.unparse(ast.parse(by(shorten, source, 0))) == ast.unparse(ast.parse(SOURCES["v1"]))
    assert not shorten(Random(0), ast.parse(SOURCES["v1"]).body[-1])
    for seed in range(10):
        deep = by(deepen, SOURCES["v1"], seed)
        assert features(deep)[1] > features(SOURCES["v1"])[1]
        assert by(shorten, deep, 0) == ast.unparse(ast.parse(SOURCES["v1"]))
