"""DrNAS between two stages: what is pruned, what is copied, what goes on untouched."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.toy_supernet import CHOICES, toy_supernet

from jaxnas.core import relay
from jaxnas.data.toy import waves
from jaxnas.oneshot.bilevel import Schedule, learning_rate
from jaxnas.oneshot.darts_space import supernet as darts_supernet
from jaxnas.oneshot.drnas import drnas
from jaxnas.oneshot.drnas_progressive import progressive_stages, strongest, widen
from jaxnas.oneshot.nas_bench_201 import supernet
from jaxnas.train.batches import halves, on_device

pytestmark = pytest.mark.usefixtures("quick_compile")

DATA = waves(length=12, n=64)
TRAIN, VALID = halves(on_device(DATA, DATA.train))
SCHEDULE = Schedule(epochs=6, batch=8, learning_rate=0.1)
PER_EPOCH = 4


def legs(**settings):
    settings = {"keeps": (5, 3), "warm_epochs": 1} | settings
    nets = [toy_supernet(width=2), toy_supernet(width=4)]
    method = drnas(CHOICES, learning_rate=0.05)
    stages = progressive_stages(nets, TRAIN, VALID, method, SCHEDULE, **settings)
    return [leg for stage in stages for leg in stage]


def test_a_search_prunes_once_and_never_looks_back():
    """Legs of still and moving architecture, twice; the mask is that of the strongest at the turn."""
    stages = legs()
    assert [leg.steps // PER_EPOCH for leg in stages] == [1, 2, 1, 2]
    trail = {i: (state, info) for i, state, info in relay(stages, jax.random.key(0), every=1)}
    before, after = trail[3 * PER_EPOCH][0], trail[3 * PER_EPOCH + 1][0]
    eta = np.asarray(before.alphas)
    wanted = np.zeros((6, 5), bool)
    for row in range(6):
        wanted[row, sorted(range(5), key=lambda k: -eta[row, k])[:3]] = True
    assert before.mask.all()
    for i in range(3 * PER_EPOCH + 1, 6 * PER_EPOCH + 1):
        state, info = trail[i]
        np.testing.assert_array_equal(state.mask, wanted)
        assert not np.asarray(state.alphas)[~wanted].any()
        np.testing.assert_allclose(info["weights"].sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(np.asarray(after.alphas)[wanted], eta[wanted], rtol=1e-6)
    np.testing.assert_array_equal(
        jax.tree.leaves(before.alphas_opt)[-1], jax.tree.leaves(after.alphas_opt)[-1]
    )
    assert int(trail[24][0].step) == 24  # one cosine through both stages
    np.testing.assert_allclose(learning_rate(SCHEDULE, jnp.float32(0.5)), 0.0505, rtol=1e-5)


def test_the_strongest_of_every_row_stay_and_ties_go_to_the_first():
    eta = jnp.array([[0.1, 0.5, 0.2, 0.4, 0.3], [0.0] * 5])
    every = jnp.ones((2, 5), bool)
    assert strongest(eta, every, 2).tolist() == [
        [False, True, False, True, False],
        [True, True, False, False, False],
    ]
    left = every.at[0, 1].set(False)
    assert strongest(eta, left, 2)[0].tolist() == [False, False, False, True, True]


def test_new_channels_are_copies_of_old_ones_in_weights_and_momentum_alike():
    """On the real supernet, from one channel in four to one in two."""
    narrow, wide = (supernet(classes=4, channels=8, layers=2, partial=p) for p in (4, 2))
    x = jnp.zeros((1, 12, 1))
    weights = jax.jit(narrow.init)(jax.random.key(0), x)
    like = jax.eval_shape(wide.init, jax.random.key(0), x)
    weights = jax.device_get(weights)
    momentum = jax.tree.map(lambda w: 10 * w + 1, weights)
    grown_by = jax.jit(lambda key, tree: widen(key, tree, like))
    got, moved = (jax.device_get(grown_by(jax.random.key(1), tree)) for tree in (weights, momentum))
    widened = 0
    for old, new, target, m in zip(*map(jax.tree.leaves, (weights, got, like, moved)), strict=True):
        assert new.shape == target.shape
        np.testing.assert_allclose(m, 10 * new + 1, rtol=1e-6)
        grown = [a for a in range(old.ndim) if old.shape[a] != new.shape[a]]
        widened += bool(grown)
        if not grown:
            np.testing.assert_array_equal(old, new)
            continue
        assert grown == [old.ndim - 2, old.ndim - 1]  # inputs and outputs of a convolution
        ins, outs = old.shape[-2:]
        np.testing.assert_array_equal(new[..., :ins, :outs], old)
        sources = range(ins)
        for i in range(ins, 2 * ins):
            found = [s for s in sources if np.array_equal(new[..., i, :outs], old[..., s, :])]
            assert found
        for o in range(outs, 2 * outs):
            found = [s for s in range(outs) if np.array_equal(new[..., :ins, o], old[..., s])]
            assert found
    assert widened == 3 * 2 * 3  # stages, sizes, source nodes
    other = grown_by(jax.random.key(2), weights)
    assert any(
        not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (got, other)), strict=True)
    )


def test_the_convolutions_of_one_operation_are_copied_in_line():
    """In the DARTS space: a depthwise kernel and the inputs of the next convolution move together."""
    settings = {"classes": 4, "channels": 8, "layers": 3, "space": "s1"}
    narrow, wide = (darts_supernet(**settings, partial=p) for p in (4, 2))
    x = jnp.zeros((1, 12, 1))
    weights = jax.jit(narrow.init)(jax.random.key(0), x)
    like = jax.eval_shape(wide.init, jax.random.key(0), x)
    got = jax.jit(lambda key, tree: widen(key, tree, like))(jax.random.key(1), weights)
    weights, got = jax.device_get((weights, got))
    checked = 0
    for path, _ in jax.tree.flatten_with_path(weights)[0]:
        name = jax.tree_util.keystr(path)
        if "Depthwise_0" not in name:
            continue
        at = [part.key for part in path[:-2]]
        small, large = weights, got
        for key in at:
            small, large = small[key], large[key]
        first, then = (tree["Depthwise_0"]["kernel"] for tree in (small, large))
        count = first.shape[-1]
        for channel in range(count, then.shape[-1]):
            kernel = then[..., channel]
            (source,) = [c for c in range(count) if np.array_equal(first[..., c], kernel)]
            mixed = large["Conv_0"]["kernel"][..., channel, :count]
            np.testing.assert_array_equal(mixed, small["Conv_0"]["kernel"][..., source, :])
            checked += 1
    assert checked >= 3 * 5 * 2


def test_stages_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"`keeps` must hold 2 numbers .* got \(5,\)"):
        legs(keeps=(5,))
    with pytest.raises(ValueError, match=r"`keeps` must hold 2 numbers .* got \(5, 6\)"):
        legs(keeps=(5, 6))
    with pytest.raises(ValueError, match=r"`keeps` must begin with all 5 .* got \(4, 2\)"):
        legs(keeps=(4, 2))
    with pytest.raises(ValueError, match="`epochs` must be divisible by the 2 stages, but got 5"):
        progressive_stages(
            [toy_supernet()] * 2, TRAIN, VALID, drnas(CHOICES), Schedule(epochs=5, batch=8),
            keeps=(5, 3),
        )  # fmt: skip
