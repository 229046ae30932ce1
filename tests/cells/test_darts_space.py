"""Drawing, changing and deriving DARTS genotypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.cells import darts_space as ds

SPACES = list(ds.SPACES)


def choices(space):
    """`{(kind, state, node): operations but none}`."""
    return {
        (kind, *edge): [op for op in ops if op != "none"]
        for kind in range(2)
        for edge, ops in zip(ds.EDGES, ds.SPACES[space][kind], strict=True)
    }


def entries(array):
    """`(kind, entry, node, operation, state)` of each entry."""
    for kind in range(2):
        for n, (op, state) in enumerate(np.asarray(array[kind]).tolist()):
            yield kind, n, n // 2 + 2, ds.OPS[op], state


def assert_member(array, space):
    allowed = choices(space)
    for kind, n, node, op, state in entries(array):
        assert op in allowed[kind, state, node]
        assert state != array[kind, n ^ 1, 1]


def test_edges_and_spaces_are_those_of_the_papers():
    assert ds.EDGES[:5] == ((0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
    assert len(ds.EDGES) == 14
    assert ds.SPACES["darts"][0][0] == ds.OPS[:8]
    assert "none" not in ds.SPACES["s5"][1][13]
    assert len(ds.SPACES["s5"][1][13]) == 7
    assert ds.SPACES["s1"][0][12] == ("dil_conv_3x3", "dil_conv_5x5")
    assert ds.SPACES["s1"][1][6] == ("max_pool_3x3", "sep_conv_3x3")
    assert ds.SPACES["s4"][0] == (("noise", "sep_conv_3x3"),) * 14


@pytest.mark.parametrize("space", SPACES)
def test_draws_are_members_and_reach_every_choice_alike(space):
    drawn = np.asarray(jax.jit(ds.sample, static_argnums=(1, 2))(jax.random.key(0), 3000, space))
    counts = {}
    for array in drawn[:200]:
        assert_member(array, space)
    for kind in range(2):
        for n in range(8):
            pairs, times = np.unique(drawn[:, kind, n], axis=0, return_counts=True)
            for (op, state), count in zip(pairs.tolist(), times.tolist(), strict=True):
                key = kind, state, n // 2 + 2, ds.OPS[op]
                counts[key] = counts.get(key, 0) + count
    for (kind, state, node), ops in choices(space).items():
        expected = 3000 * 2 / node / len(ops)  # two of `node` states, then one operation
        for op in ops:
            assert abs(counts[kind, state, node, op] - expected) < 5.5 * expected**0.5


@pytest.mark.parametrize("space", SPACES)
def test_a_mutation_changes_one_operation_or_one_input_and_stays_in_the_space(space):
    parents = ds.sample(jax.random.key(1), 400, space)
    children = jax.jit(jax.vmap(lambda k, g: ds.mutate(k, g, space)))(
        jax.random.split(jax.random.key(2), 400), parents
    )
    allowed, rewired = choices(space), 0
    for parent, child in zip(np.asarray(parents), np.asarray(children), strict=True):
        assert_member(child, space)
        changed = np.argwhere((parent != child).any(-1))
        assert len(changed) == 1
        kind, n = changed[0]
        op, state = (parent[kind, n] != child[kind, n]).tolist()
        rewired += state
        if op and state:  # only where the old operation cannot be had at the new input
            edge = int(kind), int(child[kind, n, 1]), int(n // 2 + 2)
            assert ds.OPS[parent[kind, n, 0]] not in allowed[edge]
    assert 110 < rewired < 190  # half of the entries of three nodes in four: 150 +- 10


def test_both_parts_of_every_entry_are_mutated():
    parent = ds.encode(ds.from_text("DARTS_V2"))
    children = jax.jit(jax.vmap(lambda k: ds.mutate(k, jnp.asarray(parent))))(
        jax.random.split(jax.random.key(0), 1000)
    )
    changed = (np.asarray(children) != parent).sum(0)
    assert (changed[:, :2, 1] == 0).all()  # the first node has no third input
    assert (changed[:, 2:] > 10).all()
    assert (changed[:, :2, 0] > 40).all()


def slow_derivation(ops, edges, space):
    """As the DARTS paper words it, with loops and sorting."""
    found = []
    for kind in range(2):
        cell, at = [], 14 * kind
        for node in range(2, 6):
            candidates = []
            for state in range(node):
                names = ds.SPACES[space][kind][at - 14 * kind]
                best = max(
                    (i for i, name in enumerate(names) if name != "none"),
                    key=lambda i, at=at: (ops[at][i], -i),
                )
                candidates.append((-edges[at] * ops[at][best], state, ds.OPS.index(names[best])))
                at += 1
            kept = sorted(candidates)[:2]
            cell += sorted((state, op) for _, state, op in kept)
        found.append([(op, state) for state, op in cell])
    return np.array(found)


@pytest.mark.parametrize("space", SPACES)
def test_derivation_keeps_the_two_strongest_edges_of_every_node(space):
    size = len(ds.SPACES[space][0][0])
    rng = np.random.default_rng(0)
    derive = jax.jit(jax.vmap(lambda ops, edges: ds.strongest(ops, edges, space)))
    ops = np.round(rng.dirichlet(np.ones(size), (60, 28)), 1).astype(np.float32)  # with many ties
    edges = rng.choice([0.25, 0.5, 1.0], (60, 28)).astype(np.float32)
    found = derive(jnp.asarray(ops), jnp.asarray(edges))
    assert found.dtype == jnp.int8
    for ours, o, e in zip(np.asarray(found), ops, edges, strict=True):
        np.testing.assert_array_equal(ours, slow_derivation(o, e, space))
