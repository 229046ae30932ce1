"""The bilevel machine: gradients of the architecture, optimisers, schedule and health."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference.optim import Adam, Sgd, cosine
from reference.toy_supernet import CHOICES, EDGES, OPS, mixed, toy_supernet

from jaxnas.core import relay, run_scan
from jaxnas.data.toy import waves
from jaxnas.oneshot.bilevel import (
    Schedule,
    State,
    alphas_adam,
    architecture_gradient,
    bilevel,
    descend,
    finite_difference,
    health,
    hessian_product,
    learning_rate,
    steps_per_epoch,
    stretch,
)
from jaxnas.oneshot.darts import darts
from jaxnas.train.batches import halves, on_device

pytestmark = pytest.mark.usefixtures("quick_compile")

DATA = waves(length=12, n=64)
TRAIN, VALID = halves(on_device(DATA, DATA.train))
NET = toy_supernet()
SCHEDULE = Schedule(epochs=4, batch=8, learning_rate=0.1, final_learning_rate=0.01)


def problem():
    """Losses on two small batches as functions of flat vectors, and a state."""
    weights = NET.init(jax.random.key(0), TRAIN.x[:1])
    alphas = 0.5 * jax.random.normal(jax.random.key(1), (EDGES, OPS))

    def loss_on(data, start):
        x, y = data.x[start : start + 8], data.y[start : start + 8]

        def loss(w, a):
            logits = NET.logits(w, mixed(jax.nn.softmax(a, -1)), x.astype(a.dtype), None)
            nll = -jax.nn.log_softmax(logits)[jnp.arange(8), y].mean()
            return nll, nll * 0

        return loss

    momentum = jax.tree.map(lambda w: 0.1 * jnp.cos(jnp.arange(w.size)).reshape(w.shape), weights)
    mask = jnp.ones(CHOICES.shape, bool)
    rest = (jnp.float32(1), jnp.int32(0), jax.random.key(0))
    state = State(weights, alphas, momentum, None, mask, (), *rest)
    return loss_on(TRAIN, 0), loss_on(VALID, 8), state


RATE = 0.1
GRADIENT = {
    order: jax.jit(
        lambda order=order: architecture_gradient(
            *problem(), jnp.float32(RATE), Schedule(order=order, momentum=0.9, weight_decay=0.01)
        )
    )
    for order in ("first", "second", "exact")
}


def look_ahead(weights, alphas, on_train, momentum):
    """The weights after one step of plain momentum with decay, DARTS equation 7."""
    slope = jax.grad(lambda w: on_train(w, alphas)[0])(weights)
    return jax.tree.map(
        lambda w, m, g: w - RATE * (0.9 * m + g + 0.01 * w), weights, momentum, slope
    )


def test_first_order_is_the_derivative_at_the_weights_as_they_are():
    _, on_valid, state = problem()
    wanted = jax.grad(lambda a: on_valid(state.weights, a)[0])(state.alphas)
    np.testing.assert_allclose(GRADIENT["first"]()[0], wanted, rtol=1e-4, atol=1e-7)


def test_exact_order_is_the_total_derivative_through_the_look_ahead():
    """Autodiff through the whole unrolled step, which the library never does."""
    on_train, on_valid, state = problem()

    def unrolled(alphas):
        return on_valid(look_ahead(state.weights, alphas, on_train, state.momentum), alphas)[0]

    wanted = jax.grad(unrolled)(state.alphas)
    got, (said, _) = GRADIENT["exact"]()
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(said, unrolled(state.alphas), rtol=1e-5)
    first = GRADIENT["first"]()[0]
    assert float(jnp.abs(got - first).max()) > 0.01 * float(jnp.abs(first).max())


def test_exact_order_agrees_with_finite_differences_in_double_precision():
    with jax.enable_x64(True):
        on_train, on_valid, state = problem()
        double = partial(jax.tree.map, lambda x: jnp.asarray(np.asarray(x), jnp.float64))
        weights, alphas, momentum = map(double, (state.weights, state.alphas, state.momentum))

        @jax.jit
        def ahead(alphas):
            return on_valid(look_ahead(weights, alphas, on_train, momentum), alphas)[0]

        got, width = np.asarray(GRADIENT["exact"]()[0]), 1e-5
        for edge, op in [(0, 0), (1, 3), (3, 2), (5, 4)]:
            nudge = np.zeros((EDGES, OPS))
            nudge[edge, op] = width
            slope = (ahead(alphas + nudge) - ahead(alphas - nudge)) / (2 * width)
            np.testing.assert_allclose(got[edge, op], slope, rtol=2e-3, atol=1e-6)


def test_second_order_is_within_one_percent_of_exact():
    second, exact = (GRADIENT[order]()[0] for order in ("second", "exact"))
    first = GRADIENT["first"]()[0]
    assert float(jnp.linalg.norm(second - exact)) < 0.01 * float(jnp.linalg.norm(exact - first))


def test_a_hessian_product_is_the_dense_hessian_times_the_vector():
    on_train, _, state = problem()
    flat, unravel = jax.flatten_util.ravel_pytree(state.weights)

    def loss(w, a):
        return on_train(unravel(w), a)[0]

    dense = jax.jit(jax.jacfwd(jax.grad(loss, 1)))(flat, state.alphas)  # [edges, ops, weights]
    vector = jnp.sin(jnp.arange(flat.size))
    wanted = dense @ vector

    def by_alphas(w):
        return jax.grad(lambda a: on_train(w, a)[0])(state.alphas)

    exact = hessian_product(by_alphas, state.weights, unravel(vector))
    np.testing.assert_allclose(exact, wanted, rtol=1e-4, atol=1e-6)
    rough = finite_difference(by_alphas, state.weights, unravel(vector))
    assert float(jnp.linalg.norm(rough - wanted)) < 0.01 * float(jnp.linalg.norm(wanted))


@pytest.mark.parametrize(("clip", "nesterov"), [(2.0, False), (0.0, False), (2.0, True)])
def test_weights_descend_by_clipped_momentum_with_decay_as_torch_does(clip, nesterov):
    rng = np.random.default_rng(0)
    params = [rng.normal(size=s).astype(np.float32) for s in ((3, 2), (4,))]
    how = {"momentum": 0.9, "weight_decay": 0.03, "clip": clip, "nesterov": nesterov}
    schedule, torch = Schedule(**how), Sgd(**how)
    ours, momentum = list(map(jnp.asarray, params)), [jnp.zeros((3, 2)), jnp.zeros(4)]
    for size in (0.1, 1.0, 30.0, 0.3, 5.0):  # below and above the clip
        gradients = [size * rng.normal(size=p.shape).astype(np.float32) for p in params]
        params = torch.step(params, gradients, 0.05)
        ours, momentum = descend(ours, momentum, gradients, jnp.float32(0.05), schedule)
        for a, b in zip(ours, params, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("decay", [0.0, 1e-3, 0.3])
def test_alphas_follow_adam_with_l2_as_torch_has_it(decay):
    rng = np.random.default_rng(1)
    value = rng.normal(size=(2, 3))
    torch = Adam(rate=3e-3, betas=(0.5, 0.999), weight_decay=decay)
    tx = alphas_adam(learning_rate=3e-3, weight_decay=decay)
    ours = jnp.asarray(value, jnp.float32)
    state = tx.init(ours)
    for _ in range(7):
        gradient = rng.normal(size=(2, 3))
        value = torch.step(value, gradient)
        update, state = tx.update(jnp.asarray(gradient, jnp.float32), state, ours)
        ours = optax.apply_updates(ours, update)
        np.testing.assert_allclose(ours, value, atol=1e-5)


def test_the_learning_rate_falls_by_a_cosine_from_the_first_to_the_final():
    for done in (0.0, 0.1, 0.5, 0.9, 1.0):
        np.testing.assert_allclose(
            learning_rate(SCHEDULE, jnp.float32(done)), cosine(0.1, 0.01, done), rtol=1e-5
        )
    np.testing.assert_allclose(learning_rate(SCHEDULE, jnp.float32(0)), 0.1, rtol=1e-6)
    np.testing.assert_allclose(learning_rate(SCHEDULE, jnp.float32(1)), 0.01, rtol=1e-6)


def test_warm_epochs_freeze_the_architecture_and_its_optimiser_exactly():
    schedule = Schedule(epochs=4, batch=8)
    per_epoch, key = steps_per_epoch(TRAIN, schedule), jax.random.key(0)
    assert per_epoch == 4

    def search(order):
        return bilevel(NET, TRAIN, VALID, darts(CHOICES), replace(schedule, order=order))

    legs = stretch(search, per_epoch, warm=2, epochs=4, order="first")
    assert [leg.steps for leg in legs] == [8, 8]
    start = jax.jit(legs[0].search.init)(jax.random.fold_in(key, 0))
    for i, state, info in relay(legs, key, every=1, mode="step"):
        frozen = i <= 2 * per_epoch
        assert np.array_equal(state.alphas, start.alphas) == frozen
        same = jax.tree.map(np.array_equal, state.alphas_opt, start.alphas_opt)
        assert all(jax.tree.leaves(same)) == frozen
        assert ("valid_loss" in info) != frozen
        assert not np.array_equal(state.weights["out"], start.weights["out"])
    assert len(stretch(search, per_epoch, warm=0, epochs=4, order="first")) == 1
    with pytest.raises(ValueError, match="`warm_epochs` must be between 0 and 4, but got 5"):
        stretch(search, per_epoch, warm=5, epochs=4, order="first")


def test_what_is_decided_or_out_of_play_does_not_move():
    """An edge with one operation left stands still; so do operations that are masked."""
    search = bilevel(NET, TRAIN, VALID, darts(CHOICES, learning_rate=0.1), SCHEDULE)
    start = search.init(jax.random.key(0))
    mask = np.ones((EDGES, OPS), bool)
    mask[1] = np.eye(OPS, dtype=bool)[2]
    mask[3, [0, 4]] = False
    mask[4] = False
    state = start._replace(mask=jnp.asarray(mask))
    for i in range(3):
        state, info = jax.jit(search.step)(jax.random.key(i), state)
    moved = np.asarray(state.alphas != start.alphas)
    wanted = mask.copy()
    wanted[[1, 4]] = False
    np.testing.assert_array_equal(moved, wanted)
    np.testing.assert_array_equal(info["weights"][1], np.eye(OPS)[2])
    assert not info["weights"][4].any()
    assert not info["weights"][3, [0, 4]].any()
    np.testing.assert_allclose(info["weights"].sum(1), [1, 1, 1, 1, 0, 1], rtol=1e-6)


def test_an_epoch_of_the_search_trains_on_every_example_of_its_half_once():
    """Fifty equal steps at rate zero: the losses of an epoch average to the loss of the half."""
    still = {"learning_rate": 0.0, "final_learning_rate": 0.0, "order": "fixed"}
    schedule = Schedule(epochs=2, batch=8, **still)
    search = bilevel(NET, TRAIN, VALID, darts(CHOICES), schedule)
    state, info = run_scan(search, jax.random.key(3), 8)
    logits = NET.logits(state.weights, mixed(jax.nn.softmax(state.alphas, -1)), TRAIN.x, None)
    whole = -jax.nn.log_softmax(logits)[jnp.arange(32), TRAIN.y].mean()
    right = 100 * (logits.argmax(-1) == TRAIN.y).mean()
    for epoch in (slice(0, 4), slice(4, 8)):
        np.testing.assert_allclose(info["train_loss"][epoch].mean(), whole, rtol=1e-5)
        np.testing.assert_allclose(info["train_accuracy"][epoch].mean(), right, rtol=1e-5)
    assert not np.allclose(info["train_loss"][:4], info["train_loss"][4:])


def test_an_operation_that_hurts_loses_and_one_that_helps_wins():
    """Operation 3 carries the signal and operation 1 its opposite; the alphas must tell."""

    def logits(weights, mix, x, key):
        share = mix.ops.mean(0)
        truth = x[:, :4, 0] * 5
        return share[3] * truth - share[1] * truth + 0 * weights["w"]

    x = jax.random.normal(jax.random.key(0), (64, 4, 1))
    data = TRAIN._replace(x=x, y=x[..., 0].argmax(1).astype(jnp.int32))
    net = NET._replace(init=lambda key, x: {"w": jnp.float32(0)}, logits=logits)
    relaxation = darts(CHOICES, learning_rate=0.05)
    search = bilevel(net, data, data, relaxation, Schedule(epochs=5, batch=8))
    state, info = run_scan(search, jax.random.key(0), 40)
    assert search.best(state).tolist() == [3] * EDGES
    assert bool((state.alphas[:, 3] > state.alphas[:, 1] + 1).all())
    assert float(info["valid_loss"][-1]) < float(info["valid_loss"][0])


def alphas_leading(*leaders):
    return 5.0 * jax.nn.one_hot(jnp.array(leaders), OPS)


@pytest.mark.parametrize(
    ("leaders", "skips", "collapsed"),
    [
        ([1] * 6, 6, 1),
        ([1, 1, 1, 1, 2, 3], 4, 1),
        ([1, 1, 1, 2, 2, 3], 3, 0),
        ([0, 0, 4, 4, 0, 1], 1, 1),  # nothing with weights leads
        ([0, 0, 4, 4, 0, 2], 0, 0),
        ([3] * 6, 0, 0),
    ],
)
def test_collapse_is_told_from_the_leading_operations(leaders, skips, collapsed):
    said = health(CHOICES, jax.nn.softmax(alphas_leading(*leaders)))
    assert int(said["skips"]) == skips
    assert int(said["collapsed"]) == collapsed


def test_entropy_is_that_of_the_weights_in_nats():
    uniform = health(CHOICES, jnp.full((EDGES, OPS), 1 / OPS))
    np.testing.assert_allclose(uniform["entropy"], np.log(5), rtol=1e-6)
    sure = health(CHOICES, alphas_leading(*[2] * 6) / 5.0)
    np.testing.assert_allclose(sure["entropy"], 0, atol=1e-6)
    some = health(CHOICES, jnp.tile(jnp.array([0.5, 0.25, 0.125, 0.0625, 0.0625]), (6, 1)))
    np.testing.assert_allclose(some["entropy"], 1.875 * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(some["weights"][3], [0.5, 0.25, 0.125, 0.0625, 0.0625], rtol=1e-5)


def test_broken_settings_are_refused_by_name_and_value():
    relaxation = darts(CHOICES)
    with pytest.raises(ValueError, match=r"`order` must be one of first, second, exact.*'third'"):
        bilevel(NET, TRAIN, VALID, relaxation, Schedule(batch=8, order="third"))
    with pytest.raises(ValueError, match=r"`batch` must be between 1 and the 32 .* got 33"):
        bilevel(NET, TRAIN, VALID, relaxation, Schedule(batch=33))
    few = VALID._replace(x=VALID.x[:4], y=VALID.y[:4])
    with pytest.raises(ValueError, match=r"`batch` must be between 1 and the 4 .* got 8"):
        bilevel(NET, TRAIN, few, relaxation, Schedule(batch=8))
