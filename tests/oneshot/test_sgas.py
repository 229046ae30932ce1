"""SGAS against plain lists: scores, decisions and the epochs they fall in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.sgas import Sgas
from reference.toy_supernet import CHOICES, NAMES, TWO_KINDS, toy_supernet

from jaxnas.core import relay
from jaxnas.data.toy import waves
from jaxnas.oneshot.bilevel import Schedule, bilevel
from jaxnas.oneshot.sgas import decisions, sgas, sgas_legs
from jaxnas.train.batches import halves, on_device

pytestmark = pytest.mark.usefixtures("quick_compile")

DATA = waves(length=12, n=96)
TRAIN, VALID = halves(on_device(DATA, DATA.train))
# The cell of the DARTS space: nodes of two, three, four and five inputs, of which two stay.
FOURTEEN = tuple(node for node in range(4) for _ in range(node + 2))
DARTS = CHOICES._replace(
    ops=(NAMES,) * 28, nodes=(*FOURTEEN, *(n + 4 for n in FOURTEEN)), kinds=2, keep=2
)


def walked(choices, epochs, **settings):
    """`after` at the end of each epoch under alphas that wander, and the same in plain lists."""
    method = sgas(choices, per_epoch=1, **settings)
    search = bilevel(toy_supernet(choices), TRAIN, VALID, method, Schedule(batch=8))
    state = jax.jit(search.init)(jax.random.key(0))
    slow = Sgas(NAMES, choices.nodes, choices.kinds, choices.keep, **settings)
    rng, after = np.random.default_rng(1), jax.jit(method.after)
    alphas = rng.normal(size=choices.shape)
    for epoch in range(epochs):
        alphas = alphas + 0.3 * rng.normal(size=choices.shape)
        state = state._replace(alphas=jnp.asarray(alphas, jnp.float32), step=jnp.int32(epoch + 1))
        state = after(jax.random.key(epoch), state)
        slow.end_of_epoch(alphas)
        yield state, slow


def mask_of(fixed):
    whole = {None: np.ones(5, bool), -1: np.zeros(5, bool)}
    return np.stack([whole[f] if f in whole else np.eye(5, dtype=bool)[f] for f in fixed])


@pytest.mark.parametrize("criterion", [1, 2])
@pytest.mark.parametrize("choices", [CHOICES, TWO_KINDS, DARTS], ids=["6", "2x5", "2x14"])
def test_decisions_are_those_of_the_paper_in_plain_lists(choices, criterion):
    for state, slow in walked(choices, 24, criterion=criterion, first=3, every=2):
        np.testing.assert_array_equal(state.mask, mask_of(slow.fixed))
    assert None not in slow.fixed


def test_the_darts_space_is_decided_by_eight_decisions_in_fifty_epochs():
    before, changed = np.ones((28, 5), bool), []
    trail = list(walked(DARTS, 50, criterion=2, first=9, every=5))
    for epoch, (state, _) in enumerate(trail):
        if not np.array_equal(state.mask, before):
            changed.append(epoch)
            before = np.asarray(state.mask)
    assert changed == [9, 14, 19, 24, 29, 34, 39, 44]
    assert decisions(DARTS) == 8
    per_node = np.bincount(np.array(DARTS.nodes)[before.sum(1) == 1])
    assert per_node.tolist() == [2] * 8
    assert (before.sum(1) <= 1).all()
    assert trail[-1][1].decided_at == [9, 14, 19, 24, 29, 34, 39, 44, 49]


def test_none_is_never_chosen_and_nothing_happens_within_an_epoch():
    method = sgas(CHOICES, per_epoch=3, first=0, every=1)
    search = bilevel(toy_supernet(), TRAIN, VALID, method, Schedule(batch=8))
    state = search.init(jax.random.key(0))
    alphas = jnp.zeros((6, 5)).at[:, 0].set(3.0).at[:, 4].set(1.0)
    for step, decided in ((1, 0), (2, 0), (3, 1), (4, 1), (6, 2)):
        state = method.after(jax.random.key(0), state._replace(alphas=alphas, step=jnp.int32(step)))
        assert int((state.mask.sum(1) == 1).sum()) == decided
    np.testing.assert_array_equal(state.mask[state.mask.sum(1) == 1], np.eye(5)[[4, 4]])
    assert int(state.memory.epochs) == 2


def test_the_batch_grows_after_each_decision_and_no_epoch_is_lost():
    net, schedule = toy_supernet(), Schedule(epochs=12, batch=8)
    settings = {"first": 1, "every": 2, "learning_rate": 0.01}
    legs = sgas_legs(net, TRAIN, VALID, schedule, growth=4, **settings)
    # Decisions at the end of epochs 1, 3, 5, 7, 9 and 11, the last of which ends the search.
    sizes = [8, 12, 16, 20, 24, 28]
    assert [leg.steps for leg in legs] == [48 // size * 2 for size in sizes]
    *_, (_, state, _) = relay(legs, jax.random.key(0), every=100)
    assert int(state.memory.epochs) == 12
    assert int(state.step) == 12 * (48 // 28)
    assert state.mask.sum(1).tolist() == [1] * 6
    assert len(sgas_legs(net, TRAIN, VALID, schedule, growth=0, **settings)) == 1


def test_another_criterion_is_refused():
    with pytest.raises(ValueError, match="`criterion` must be 1 or 2, but got 3"):
        sgas(CHOICES, per_epoch=1, criterion=3)


@pytest.mark.parametrize("settings", [{"first": 6, "every": 2}, {"every": 0}, {"first": -1}])
def test_too_few_epochs_for_the_decisions_of_sgas_are_refused(settings):
    with pytest.raises(ValueError, match="`epochs` must be at least"):
        sgas_legs(toy_supernet(), TRAIN, VALID, Schedule(epochs=15, batch=8), **settings)
