"""DARTS-PT: decisions against slow evaluation of one removal after another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.toy_supernet import CHOICES, NAMES, TWO_KINDS, toy_supernet

from jaxnas.core import relay, run_scan
from jaxnas.data.toy import waves
from jaxnas.oneshot.bilevel import Schedule, bilevel
from jaxnas.oneshot.darts import darts
from jaxnas.oneshot.darts_pt import perturbation_legs, turns
from jaxnas.oneshot.discretise import judge_mixes, strengths, without_edge
from jaxnas.oneshot.drnas import drnas
from jaxnas.oneshot.nas_bench_201 import supernet
from jaxnas.oneshot.pc_darts import pc_darts
from jaxnas.oneshot.supernet import Mix
from jaxnas.train.batches import halves, on_device

pytestmark = pytest.mark.usefixtures("quick_compile")

DATA = waves(length=12, n=512)
TRAIN, VALID = halves(on_device(DATA, DATA.train))
FOURTEEN = tuple(node for node in range(4) for _ in range(node + 2))
DARTS = CHOICES._replace(
    ops=(NAMES,) * 28, nodes=(*FOURTEEN, *(n + 4 for n in FOURTEEN)), kinds=2, keep=2
)


def accuracy_of(net, weights, ops):
    """Share of right answers on the validation half, batch by batch."""
    right = []
    for start in range(0, len(VALID.y) // 16 * 16, 16):
        x = (VALID.x[start : start + 16] - VALID.mean) / VALID.std
        mix = Mix(jnp.asarray(ops, jnp.float32), jnp.ones(len(ops)))
        answer = net.logits(weights, mix, x, jax.random.key(0)).argmax(-1)
        right.append((answer == VALID.y[start : start + 16]).mean())
    return 100 * float(np.mean(right))


def run(choices, tuning=None, key=0):
    net = toy_supernet(choices)
    method = darts(choices, learning_rate=0.05)
    schedule = Schedule(epochs=12, batch=16, learning_rate=0.02, final_learning_rate=0.02)
    legs = perturbation_legs(net, TRAIN, VALID, method, tuning or schedule, between=1)
    return net, method, legs, list(relay(legs, jax.random.key(key), every=1000, mode="step"))


def without(ops, edge, op=None):
    ops = np.array(ops)
    ops[edge, slice(None) if op is None else op] = 0
    return ops


@pytest.fixture(scope="module")
def decided():
    return run(TWO_KINDS)


def test_an_edge_keeps_the_operation_that_is_missed_most(decided):
    net, method, legs, trail = decided
    before, seen = legs[0].search.init(jax.random.fold_in(jax.random.key(0), 0)), []
    for n, (_, state, info) in enumerate(trail[:10]):
        if n % 2 == 0:
            strengths = method.strength(before.alphas, before.mask).ops
            for kind in range(2):
                edge = int(info["edge"][0, kind])
                assert kind * 5 <= edge < kind * 5 + 5
                assert int(before.mask[edge].sum()) == 5
                slow = [
                    accuracy_of(net, before.weights, without(strengths, edge, k)) for k in range(5)
                ]
                np.testing.assert_allclose(info["accuracy_without"][0, kind], slow, atol=1e-3)
                best = min(range(1, 5), key=lambda k: slow[k])  # never `none`
                assert int(info["operation"][0, kind]) == best
                np.testing.assert_array_equal(state.mask[edge], np.eye(5)[best])
                seen.append(edge)
        before = state
    assert sorted(seen) == list(range(10))
    assert seen[::2] != sorted(seen[::2])  # drawn, not in order


def test_a_node_loses_the_edges_it_misses_least(decided):
    net, method, _, trail = decided
    before, (_, state, info) = trail[9][1], trail[10]
    nodes = np.array(TWO_KINDS.nodes)
    strengths = np.array(method.strength(before.alphas, before.mask).ops)
    wanted = np.array(before.mask)
    for kind, node in enumerate(np.asarray(info["node"][0])):
        assert node == (1, 3)[kind]  # the only node of each kind with three inputs
        inputs = np.flatnonzero(nodes == node)
        slow = {e: accuracy_of(net, before.weights, without(strengths, e)) for e in inputs}
        gone = max(inputs, key=lambda e: (slow[e], e))
        strengths[gone], wanted[gone] = 0, False
    np.testing.assert_array_equal(state.mask, wanted)
    assert state.mask.any(-1).sum() == 8


def test_the_benchmark_takes_six_decisions_and_the_darts_space_fourteen_and_three():
    assert turns(CHOICES) == (6, 0)
    assert turns(DARTS) == (14, 3)
    method = darts(CHOICES)

    def epochs(choices, total):
        tuning = Schedule(epochs=total, batch=16)
        legs = perturbation_legs(toy_supernet(choices), TRAIN, VALID, method, tuning)
        per_epoch = len(TRAIN.y) // 16
        assert [leg.steps for leg in legs[::2]] == [1] * (len(legs) // 2)
        return np.cumsum([0, *(leg.steps // per_epoch for leg in legs[1::2])]).tolist()

    assert epochs(CHOICES, 25) == [0, 5, 10, 15, 20, 24, 25]
    assert epochs(DARTS, 81) == [*range(0, 81, 5), 81]


def test_everything_is_decided_in_the_end_and_each_program_is_shared():
    *_, legs, trail = run(DARTS, Schedule(epochs=18, batch=128))
    mask = np.asarray(trail[-1][1].mask)
    assert np.bincount(np.array(DARTS.nodes)[mask.sum(1) == 1]).tolist() == [2] * 8
    assert (mask.sum(1) <= 1).all()
    assert len({leg.search for leg in legs}) == 3
    topology = [info["node"][0] for *_, info in trail if "node" in info]
    assert sorted(int(pair[0]) for pair in topology) == [1, 2, 3]
    assert sorted(int(pair[1]) for pair in topology) == [5, 6, 7]


def test_a_removed_edge_takes_what_goes_around_its_operations_with_it():
    """On partial channels the operations of an edge are only a part of it."""
    net = supernet(classes=4, channels=4, layers=1, partial=4)
    x = jax.random.normal(jax.random.key(0), (3, 12, 1))
    weights, logits = jax.jit(net.init)(jax.random.key(1), x), jax.jit(net.logits)
    for method in (darts(CHOICES), drnas(CHOICES), pc_darts(CHOICES)):
        alphas, mask = method.start(jax.random.key(2)), jnp.ones((6, 5), bool)
        for edge in (0, 4):
            gone = method.strength(alphas, mask.at[edge].set(False))
            drawn = method.mix(jax.random.key(3), alphas, mask.at[edge].set(False))
            assert float(gone.edges[edge]) == float(drawn.edges[edge]) == 0
        cut = method.strength(alphas, mask)
        for edge in range(6):
            cut = without_edge(cut, jnp.int32(edge))
        whole = logits(weights, cut, x, jax.random.key(0))
        np.testing.assert_allclose(whole, jnp.broadcast_to(whole[:1], whole.shape), atol=1e-5)


def test_momentum_and_steps_start_anew_where_the_decisions_begin():
    *_, legs, trail = run(CHOICES, Schedule(epochs=7, batch=128))
    state = trail[-1][1]._replace(step=jnp.int32(99))
    fresh = legs[0].take_over(jax.random.key(0), state)
    assert int(fresh.step) == 0
    assert not any(leaf.any() for leaf in jax.tree.leaves(fresh.momentum))
    assert any(leaf.any() for leaf in jax.tree.leaves(state.momentum))


def test_all_mixes_see_the_same_full_batches():
    net = toy_supernet()
    weights = net.init(jax.random.key(0), TRAIN.x[:1])
    ops = np.random.default_rng(0).dirichlet(np.ones(5), (3, 6)).astype(np.float32)
    mixes = Mix(jnp.asarray(ops), jnp.ones((3, 6)))
    loss, accuracy = jax.jit(judge_mixes(net, VALID, 16))(jax.random.key(0), weights, mixes)
    for m in range(3):
        np.testing.assert_allclose(accuracy[m], accuracy_of(net, weights, ops[m]), atol=1e-3)
    assert loss.shape == (3,)


def test_the_strength_of_an_operation_is_the_accuracy_with_it_alone():
    """Untuned against the slow evaluation; tuned, it is that of a supernet trained under the mask."""
    net, method = toy_supernet(), darts(CHOICES)
    schedule = Schedule(epochs=3, batch=16, learning_rate=0.05, order="fixed")
    search, judge = bilevel(net, TRAIN, VALID, method, schedule), judge_mixes(net, VALID, 16)
    state = search.init(jax.random.key(0))
    state = state._replace(alphas=jax.random.normal(jax.random.key(1), (6, 5)))
    ops = method.strength(state.alphas, state.mask).ops
    for steps in (0, 4):
        look = strengths(search, steps, method.strength, judge, CHOICES.shape, 2)
        after, info = jax.jit(look.step)(jax.random.key(2), state)
        told = info["strength"]
        np.testing.assert_array_equal(after.weights["out"], state.weights["out"])
        assert told["edge"].tolist() == [0, 5]
        np.testing.assert_allclose(told["weight"], ops[np.array([0, 5])], rtol=1e-5)
        for row, edge in enumerate((0, 5)):
            for k in range(5):
                alone = np.array(ops)
                alone[edge] = np.eye(5)[k]
                mask = state.mask.at[edge].set(jnp.arange(5) == k)
                cut = state._replace(mask=mask)
                if steps:
                    cut, _ = run_scan(search, jax.random.key(2), steps, cut)
                slow = accuracy_of(net, cut.weights, alone)
                np.testing.assert_allclose(told["accuracy"][row, k], slow, atol=1e-3)


def test_too_few_epochs_for_the_decisions_are_refused():
    few = Schedule(epochs=21, batch=16)
    with pytest.raises(ValueError, match=r"`epochs` of tuning must be at least 22 .* got 21"):
        perturbation_legs(toy_supernet(), TRAIN, VALID, darts(CHOICES), few)
    with pytest.raises(ValueError, match=r"`tune_between`.* must be at least 1, but got 0"):
        perturbation_legs(toy_supernet(), TRAIN, VALID, darts(CHOICES), few, between=0)
