"""DrNAS: Dirichlet draws, their pathwise gradient, and what keeps them near the uniform."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.optim import Adam
from reference.toy_supernet import CHOICES, toy_supernet
from scipy import integrate, stats

from jaxnas.core import run_scan
from jaxnas.data.toy import waves
from jaxnas.oneshot.bilevel import Schedule, bilevel
from jaxnas.oneshot.drnas import concentration, divergence, drnas, pull_to_uniform
from jaxnas.train.batches import halves, on_device

pytestmark = pytest.mark.usefixtures("quick_compile")

THREE = CHOICES._replace(ops=CHOICES.ops[:3], nodes=CHOICES.nodes[:3])
ALL = jnp.ones((3, 5), bool)
ETA = jnp.array([[0.3, -0.5, 1.2, 0.0, -2.0], [0.0] * 5, [-0.9, 0.1, 0.2, 2.0, 0.4]])


def test_concentration_is_positive_everywhere_and_one_at_zero():
    eta = jnp.array([-8.0, -3.0, -0.1, 0.0, 0.1, 3.0, 50.0])
    wanted = [np.exp(-8), np.exp(-3), np.exp(-0.1), 1.0, 1.1, 4.0, 51.0]
    np.testing.assert_allclose(concentration(eta[None])[0], wanted, rtol=1e-4)
    assert float(concentration(jnp.linspace(-12, 12, 500)[None]).min()) > 0


def test_divergence_is_the_integral_of_its_definition():
    """Over a grid on the triangle of three shares, and over the interval of two."""
    n = 600
    x, y = (np.stack(np.meshgrid(*[np.arange(n)] * 2)) + 1 / 3) / n
    inside = np.arange(n)[None] + np.arange(n)[:, None] < n
    shares = np.stack([x[inside], y[inside], 1 - x[inside] - y[inside]])
    for c in ([1.7, 1.3, 2.5], [1.0, 1.0, 1.0], [3.0, 1.2, 1.1]):
        constant = math.lgamma(sum(c)) - sum(map(math.lgamma, c))
        log = constant + ((np.array(c) - 1)[:, None] * np.log(shares)).sum(0)
        share_of_cell = np.exp(log) / np.exp(log).sum()
        wanted = (share_of_cell * (log - math.log(2))).sum()  # the uniform density is 2
        np.testing.assert_allclose(divergence(jnp.array([c])), wanted, atol=5e-3)
    for c in ([1.4, 2.6], [0.6, 2.6], [0.5, 0.7]):
        beta = stats.beta(*c)
        wanted, _ = integrate.quad(lambda x, beta=beta: beta.pdf(x) * beta.logpdf(x), 0, 1)
        np.testing.assert_allclose(divergence(jnp.array([c])), wanted, atol=1e-4)


def test_divergence_adds_up_over_edges_and_vanishes_at_the_uniform_only():
    c = concentration(ETA)
    rows = [float(divergence(row[None])) for row in c]
    np.testing.assert_allclose(divergence(c), sum(rows), rtol=1e-5)
    assert abs(rows[1]) < 1e-5
    assert min(rows[0], rows[2]) > 0.1


def test_the_kl_form_adds_exactly_its_gradient():
    """Against differences of the divergence in double precision."""
    from scipy.special import digamma, gammaln

    def slow(eta):
        c = np.where(eta > 0, eta, np.expm1(eta)) + 1
        total = c.sum(-1)
        constant = gammaln(total) - gammaln(c).sum(-1) - gammaln(c.shape[-1])
        return (constant + ((c - 1) * (digamma(c) - digamma(total)[:, None])).sum(-1)).sum()

    eta, wanted = np.asarray(ETA, np.float64) + 0.01, np.zeros(ETA.shape)
    for at in np.ndindex(*eta.shape):
        nudge = np.zeros_like(eta)
        nudge[at] = 1e-5
        wanted[at] = (slow(eta + nudge) - slow(eta - nudge)) / 2e-5
    gradient = jnp.full(ETA.shape, 2.0)
    tx = pull_to_uniform(0.7)
    given = jnp.asarray(eta, jnp.float32)
    pulled, _ = tx.update(gradient, tx.init(given), given)
    np.testing.assert_allclose(pulled - 2.0, 0.7 * wanted, rtol=2e-3, atol=2e-5)


def test_every_row_of_a_draw_is_a_distribution_and_every_draw_is_fresh():
    mix = drnas(THREE).mix
    draws = jax.vmap(lambda key: mix(key, ETA, ALL).ops)(jax.random.split(jax.random.key(0), 2_000))
    np.testing.assert_allclose(draws.sum(-1), 1.0, atol=1e-5)
    assert float(draws.min()) >= 0
    assert len(np.unique(np.asarray(draws)[:, 0, 0])) > 1_900
    c = np.asarray(concentration(ETA), np.float64)
    mean, total = c / c.sum(-1, keepdims=True), c.sum(-1, keepdims=True)
    deviation = np.sqrt(mean * (1 - mean) / (total + 1))
    np.testing.assert_array_less(np.abs(draws.mean(0) - mean), 5 * deviation / 2_000**0.5)
    np.testing.assert_allclose(draws.std(0), deviation, rtol=0.12)


def test_the_gradient_through_a_draw_is_that_of_the_expectation():
    """E of a quadratic of the shares is known from the moments; samples must have its slope."""
    target = jnp.array([0.4, 0.3, 0.0, 0.2, 0.1])
    mix = drnas(THREE).mix

    def f(key, eta):
        return ((mix(key, eta, ALL).ops - target) ** 2).sum()

    def expectation(eta):
        c = np.where(eta > 0, eta, np.expm1(eta)) + 1
        total = c.sum(-1, keepdims=True)
        mean = c / total
        return (mean * (1 - mean) / (total + 1) + (mean - np.asarray(target)) ** 2).sum()

    n, eta = 20_000, np.asarray(ETA, np.float64) + 0.01
    slope = jax.jit(jax.vmap(jax.grad(f, 1), (0, None)))
    samples = np.asarray(
        slope(jax.random.split(jax.random.key(2), n), jnp.asarray(eta, jnp.float32))
    )
    for at in np.ndindex(*eta.shape):
        nudge = np.zeros_like(eta)
        nudge[at] = 1e-5
        wanted = (expectation(eta + nudge) - expectation(eta - nudge)) / 2e-5
        each = samples[(slice(None), *at)]
        assert abs(each.mean() - wanted) < 4.5 * each.std() / n**0.5 + 1e-5


def test_both_forms_of_regularisation_move_eta_as_stated():
    """l2: decay inside Adam, nothing else; kl: the divergence's gradient and no decay."""
    gradient = jnp.linspace(-1.0, 1.0, 15).reshape(3, 5)
    for form, decay in (("l2", 0.2), ("kl", 0.0)):
        tx = drnas(THREE, regulariser=form, strength=0.2, learning_rate=0.01).alphas_tx
        pull = jax.grad(lambda eta: 0.2 * divergence(concentration(eta)))
        torch = Adam(rate=0.01, betas=(0.5, 0.999), weight_decay=decay)
        eta, value = ETA, np.asarray(ETA, np.float64)
        state = tx.init(eta)
        for scale in (1.0, -0.5, 2.0):
            given = scale * np.asarray(gradient, np.float64)
            if form == "kl":
                given = given + np.asarray(pull(jnp.asarray(value, jnp.float32)))
            value = torch.step(value, given)
            update, state = tx.update(scale * gradient, state, eta)
            eta = eta + update
            np.testing.assert_allclose(eta, value, atol=2e-4)


def test_training_and_validation_see_different_draws_at_every_step():
    """The supernet that answers with its mix: each forward pass of each step has its own."""

    def logits(weights, mix, x, key):
        flat = jnp.log(mix.ops[0, :4] + 1e-9)
        return jnp.broadcast_to(flat, (x.shape[0], 4)) + 0 * weights["w"]

    data = waves(length=12, n=64)
    train, valid = halves(on_device(data, data.train))
    same = train._replace(y=jnp.zeros_like(train.y))
    net = toy_supernet()._replace(init=lambda key, x: {"w": jnp.float32(0)}, logits=logits)
    method = drnas(CHOICES)
    search = bilevel(net, same, valid._replace(y=same.y), method, Schedule(epochs=5, batch=8))
    _, info = run_scan(search, jax.random.key(0), 10)
    told = np.concatenate([info["train_loss"], info["valid_loss"]])
    assert len(np.unique(told.round(6))) == 20


def test_pruned_rows_of_a_draw_sum_to_one_with_exact_zeros():
    mask = jnp.array([[1, 0, 1, 0, 1], [0, 0, 0, 1, 0], [1, 1, 1, 1, 1]], bool)
    mix = drnas(THREE).mix
    draws = jax.vmap(lambda key: mix(key, ETA, mask).ops)(jax.random.split(jax.random.key(0), 500))
    assert not draws[:, ~mask].any()
    np.testing.assert_allclose(draws.sum(-1), 1.0, atol=1e-5)
    # What is left of a Dirichlet is the Dirichlet of what is left.
    c = np.asarray(concentration(ETA), np.float64)[0, [0, 2, 4]]
    np.testing.assert_allclose(draws[:, 0, [0, 2, 4]].mean(0), c / c.sum(), atol=0.06)

    def out_of_play(key, eta):
        return (mix(key, eta, mask).ops ** 2).sum()

    slope = jax.grad(out_of_play, 1)(jax.random.key(1), ETA)
    np.testing.assert_allclose(np.where(mask, 0, slope), 0, atol=1e-5)


def test_the_strength_is_that_of_the_softmax_and_an_unknown_form_is_refused():
    strength = drnas(THREE).strength(ETA, ALL)
    np.testing.assert_allclose(strength.ops, jax.nn.softmax(ETA, -1), rtol=1e-5)
    assert strength.ops.argmax(-1).tolist() == [2, 0, 3]
    with pytest.raises(ValueError, match="`regulariser` must be one of l2, kl, but got 'l1'"):
        drnas(THREE, regulariser="l1")
