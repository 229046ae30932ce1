"""SGAS+PT: the edge that SGAS would decide, and the operation that is missed most there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.sgas import Sgas
from reference.toy_supernet import NAMES, TWO_KINDS, toy_supernet

from jaxnas.core import relay
from jaxnas.data.toy import waves
from jaxnas.oneshot.bilevel import Schedule
from jaxnas.oneshot.darts import darts
from jaxnas.oneshot.sgas import decisions
from jaxnas.oneshot.sgas_pt import decision, sgas_pt_legs
from jaxnas.recipes import load
from jaxnas.train.batches import halves, on_device

pytestmark = pytest.mark.usefixtures("quick_compile")

DATA = waves(length=12, n=96)
TRAIN, VALID = halves(on_device(DATA, DATA.train))


def test_edges_follow_sgas_and_operations_what_the_accuracy_loses_without_them():
    """Under a judge in whose eyes an operation is worth what a table says."""
    rng = np.random.default_rng(0)
    worth, size = rng.permutation(50).reshape(10, 5), len(TWO_KINDS.nodes)

    def judge(key, weights, mixes):
        accuracy = 100.0 - ((mixes.ops == 0) * worth).sum((1, 2))
        return -accuracy, accuracy

    method = darts(TWO_KINDS)
    step = jax.jit(decision(TWO_KINDS, method, judge))
    legs = sgas_pt_legs(toy_supernet(TWO_KINDS), TRAIN, VALID, Schedule(batch=8))
    state = legs[0].search.init(jax.random.key(0))
    slow = Sgas(NAMES, TWO_KINDS.nodes, 2, 2, criterion=1, first=0, every=1)
    for n in range(decisions(TWO_KINDS)):
        alphas = rng.normal(size=(size, 5))
        state = state._replace(alphas=jnp.asarray(alphas, jnp.float32))
        before = list(slow.fixed)
        slow.end_of_epoch(alphas)
        state, info = step(jax.random.key(n), state)
        for kind, (edge, op) in enumerate(zip(info["edge"], info["operation"], strict=True)):
            (wanted,) = [
                e for e in range(5 * kind, 5 * kind + 5) if before[e] is None and slow.fixed[e] is not None
                and slow.fixed[e] >= 0
            ]  # fmt: skip
            assert int(edge) == wanted
            assert int(op) == 1 + worth[wanted, 1:].argmax()  # never `none`
            np.testing.assert_array_equal(state.mask[edge], np.eye(5)[op])
        left = [fixed is None for fixed in slow.fixed]
        np.testing.assert_array_equal(state.mask.sum(1) > 1, left)
        np.testing.assert_array_equal(info["weights"] > 0, state.mask)
    assert np.bincount(np.array(TWO_KINDS.nodes)[state.mask.sum(1) == 1]).tolist() == [2] * 4
    assert (state.mask.sum(1) <= 1).all()


@pytest.mark.parametrize("growth", [0, 4])
def test_every_stage_ends_in_a_decision(growth):
    schedule = Schedule(epochs=7, batch=8)
    net = toy_supernet(TWO_KINDS)
    legs = sgas_pt_legs(net, TRAIN, VALID, schedule, growth=growth, first=0, every=2)
    sizes = [8 + n * growth for n in range(4)]
    epochs = [1, 2, 2, 2]  # decisions at the end of epochs 0, 2, 4 and 6
    wanted = [[48 // size * count, 1] for size, count in zip(sizes, epochs, strict=True)]
    assert [leg.steps for leg in legs] == [n for pair in wanted for n in pair]
    assert len({leg.search for leg in legs}) == (8 if growth else 2)
    *_, (_, state, _) = relay(legs, jax.random.key(0), every=100)
    assert int(state.step) == 7 * (48 // sizes[-1])
    assert state.mask.sum(1).tolist().count(1) == 8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"selection": "perturbation"}, "`criterion` must be 1 .* got 2"),
        ({"selection": "chance"}, "`selection` must be one of magnitude, .* got 'chance'"),
        ({"selection": "perturbation", "criterion": 1, "epochs": 4}, "`epochs` must be at least 8"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, words):
    recipe = load("sgas")
    with pytest.raises(ValueError, match=words):
        recipe.build(recipe.Config(**{"data": "waves", "batch": 16, "first_decision": 2,
                                      "decide_every": 1, **settings}))  # fmt: skip
