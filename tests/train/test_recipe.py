"""Losses and learning rates, number by number."""

import jax.numpy as jnp
import numpy as np
import pytest
from reference.optim import cosine

from jaxnas.data.toy import waves
from jaxnas.train.recipe import (
    Recipe,
    learning_rate,
    loss_and_logits,
    smooth_cross_entropy,
    steps_per_epoch,
)

LOGITS = np.random.default_rng(0).normal(0, 3, (2, 6, 4)).astype(np.float32)
LABELS = np.array([0, 3, 1, 1, 2, 0])


def smoothed(logits, labels, share):
    """Mean cross-entropy to labels whose share is spread over all classes."""
    total = 0.0
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        log = row - row.max() - np.log(np.exp(row - row.max()).sum())
        for k, value in enumerate(log):
            target = share / len(log) + (1 - share) * (k == label)
            total -= target * value / len(labels)
    return total


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_label_smoothing_spreads_a_share_of_every_label(share):
    got = smooth_cross_entropy(jnp.asarray(LOGITS[0]), jnp.asarray(LABELS), share)
    np.testing.assert_allclose(got, smoothed(LOGITS[0], LABELS, share), rtol=1e-5)


def test_the_auxiliary_head_adds_its_weighted_loss_and_does_not_answer():
    recipe = Recipe(auxiliary=0.4, smoothing=0.1)
    main, side = map(jnp.asarray, LOGITS)
    loss, logits = loss_and_logits(recipe, (main, side), jnp.asarray(LABELS))
    wanted = [smoothed(part, LABELS, 0.1) for part in LOGITS]
    np.testing.assert_allclose(loss, wanted[0] + 0.4 * wanted[1], rtol=1e-5)
    np.testing.assert_array_equal(logits, main)
    alone, _ = loss_and_logits(recipe, main, jnp.asarray(LABELS))
    np.testing.assert_allclose(alone, wanted[0], rtol=1e-5)


@pytest.mark.parametrize("epoch", [0.0, 0.25, 1.5, 2.0, 17.25, 40.0])
def test_learning_rates_follow_their_schedules(epoch):
    at = jnp.float32(epoch)
    falling = Recipe(learning_rate=0.025, final_learning_rate=0.001)
    np.testing.assert_allclose(
        learning_rate(falling, at, 40), cosine(0.025, 0.001, epoch / 40), rtol=1e-4
    )
    shrinking = Recipe(learning_rate=0.1, schedule="exponential", decay=0.97)
    np.testing.assert_allclose(
        learning_rate(shrinking, at, 40), 0.1 * np.prod([0.97**epoch]), rtol=1e-5
    )
    warm = Recipe(learning_rate=0.1, schedule="exponential", decay=0.97, warm_epochs=2)
    wanted = 0.1 * epoch / 2 if epoch < 2 else 0.1 * 0.97**epoch
    np.testing.assert_allclose(learning_rate(warm, at, 40), wanted, rtol=1e-5)


def test_recipes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"`schedule` must be one of cosine, exp.*got 'step'"):
        Recipe(schedule="step")
    with pytest.raises(ValueError, match=r"`smoothing` must be in \[0, 1\), but got 1.0"):
        Recipe(smoothing=1.0)
    with pytest.raises(ValueError, match=r"`batch` must be between 1 and the 48.*got 49"):
        steps_per_epoch(Recipe(batch=49), waves(n=48))
