"""Metrics against scikit-learn and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from jaxnas.train import metrics

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_metrics_of_classes_are_those_of_scikit_learn(share):
    labels = (RNG.random((20, 71)) < share).astype(np.int32)
    answers = np.where(RNG.random((20, 71)) < 0.3, 1 - labels, labels)
    pairs = (
        (metrics.accuracy, sklearn_metrics.accuracy_score),
        (metrics.f1, sklearn_metrics.f1_score),
        (metrics.matthews, sklearn_metrics.matthews_corrcoef),
    )
    for ours, theirs in pairs:
        got = jax.jit(jax.vmap(ours))(answers, labels)
        wanted = [theirs(y, x) for x, y in zip(answers, labels, strict=True)]
        np.testing.assert_allclose(got, wanted, atol=2e-6)


@pytest.mark.parametrize("digits", [0, 1, 8])  # with many ties, with some, with none
def test_spearman_and_pearson_are_those_of_scipy(digits):
    labels = RNG.uniform(0, 5, (4, 1500)).round(1).astype(np.float32)
    answers = (labels + RNG.normal(0, 2, labels.shape)).round(digits).astype(np.float32)
    for ours, theirs in ((metrics.spearman, stats.spearmanr), (metrics.pearson, stats.pearsonr)):
        got = jax.jit(jax.vmap(ours))(answers, labels)
        wanted = [theirs(x, y).statistic for x, y in zip(answers, labels, strict=True)]
        np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_equal_values_share_the_mean_of_their_ranks():
    x = np.array([3.0, 1.0, 3.0, -2.0, 3.0, 1.0], np.float32)
    np.testing.assert_array_equal(metrics.ranks(jnp.asarray(x)), stats.rankdata(x))


def test_answering_the_same_to_everything_correlates_with_nothing():
    labels = jnp.asarray(RNG.uniform(0, 5, 1500), jnp.float32)
    same = jnp.full(1500, 0.1, jnp.float32)  # its float32 mean is not 0.1
    assert metrics.spearman(same, labels) == metrics.pearson(same, labels) == 0
    assert metrics.matthews(jnp.ones(9, jnp.int32), jnp.arange(9) % 2) == 0
    assert metrics.f1(jnp.zeros(9, jnp.int32), jnp.zeros(9, jnp.int32)) == 0


@pytest.mark.parametrize("hole", [np.nan, np.inf])
@pytest.mark.parametrize("many", [1, 9])
def test_an_answer_that_is_not_finite_makes_a_correlation_nan(hole, many):
    answers = jnp.arange(9.0).at[:many].set(hole)
    assert jnp.isnan(metrics.spearman(answers, jnp.arange(9.0)))
    assert jnp.isnan(metrics.pearson(answers, jnp.arange(9.0)))
