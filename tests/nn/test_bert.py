"""What holds of any BERT, whatever its weights; forward passes are compared in test_pretrained."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.nn.bert import Bert, BertClassifier, BertConfig, fine_tuned
from jaxnas.nn.network import count_params

pytestmark = pytest.mark.usefixtures("quick_compile")

TINY = BertConfig(vocabulary=12, hidden=8, layers=2, heads=2, intermediate=16, positions=10)
MODULE = BertClassifier(TINY, outputs=3)
X = jnp.array([[[2, 5, 7, 3, 9, 3, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]], jnp.int32)


@pytest.fixture(scope="module")
def params():
    """Weights large enough that every part of the network matters."""
    shapes = jax.eval_shape(lambda: MODULE.init(jax.random.key(0), X, train=False))["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: jnp.asarray(rng.normal(0, 0.7, s.shape), s.dtype), shapes)


@pytest.fixture(scope="module")
def answer():
    """Logits in training, with the key of dropout, or not."""
    trained = jax.jit(
        lambda p, x, key: MODULE.apply({"params": p}, x, train=True, rngs={"dropout": key})
    )
    plain = jax.jit(lambda p, x: MODULE.apply({"params": p}, x, train=False))
    return lambda p, x, key=None: plain(p, x) if key is None else trained(p, x, key)


def test_bert_base_has_the_published_number_of_weights():
    """108.3 million: bert-base-cased with its pooler."""
    x = jnp.zeros((1, 2, 8), jnp.int32)
    base = BertClassifier(BertConfig(), outputs=2)
    shapes = jax.eval_shape(lambda: base.init(jax.random.key(0), x, train=False))
    assert count_params(shapes) == 108_310_272 + 2 * 768 + 2


def test_padding_changes_nothing_that_is_seen(params, answer):
    longer = jnp.pad(X, ((0, 0), (0, 0), (0, 2)))
    segments = X.at[0, 1, 6:].set(1)
    np.testing.assert_allclose(answer(params, X), answer(params, longer), atol=1e-6)
    np.testing.assert_allclose(answer(params, X), answer(params, segments), atol=1e-6)
    assert abs(answer(params, X) - answer(params, X.at[0, 0, 6].set(4))).max() > 1e-3


def test_a_row_of_nothing_but_padding_is_finite(params, answer):
    assert jnp.isfinite(answer(params, jnp.zeros_like(X))).all()


def test_dropout_acts_in_training_only(params, answer):
    keys = jax.random.split(jax.random.key(1), 2)
    one, again, other = (answer(params, X, key) for key in (keys[0], keys[0], keys[1]))
    np.testing.assert_array_equal(one, again)
    assert abs(one - other).max() > 1e-3
    assert abs(one - answer(params, X)).max() > 1e-3


@pytest.mark.parametrize(("dropout", "attention"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5)])
def test_each_kind_of_dropout_acts_alone(params, answer, dropout, attention):
    config = replace(TINY, dropout=dropout, attention_dropout=attention)
    module, rngs = BertClassifier(config, outputs=3), {"dropout": jax.random.key(1)}
    logits = jax.jit(lambda p: module.apply({"params": p}, X, train=True, rngs=rngs))(params)
    acts = bool(abs(logits - answer(params, X)).max() > 1e-5)
    assert acts == (dropout + attention > 0)


def test_every_weight_in_use_learns(params):
    """Attention is blind to a bias of its keys, which shifts all scores of a position alike."""

    def loss(p):
        return (MODULE.apply({"params": p}, X, train=False) * jnp.arange(1, 4)).sum()

    gradients = jax.jit(jax.grad(loss))(params)
    still = [
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
        if abs(leaf).max() < 1e-5
    ]
    assert still == [f"['encoder']['layer_{i}']['key']['bias']" for i in range(TINY.layers)]
    words = abs(gradients["encoder"]["word"]["embedding"]).max(1)
    assert np.flatnonzero(words > 0).tolist() == [2, 3, 5, 7, 9]


def test_half_precision_comes_close(params, answer):
    half = BertClassifier(TINY, outputs=3, dtype=jnp.bfloat16)
    logits = jax.jit(lambda p: half.apply({"params": p}, X, train=False))(params)
    assert logits.dtype == jnp.float32
    assert 0 < abs(logits - answer(params, X)).max() < 0.02


def test_inputs_longer_than_the_positions_are_refused(params):
    with pytest.raises(ValueError, match="`x` must hold at most 10 pieces a row, but holds 11"):
        Bert(TINY).apply({"params": params["encoder"]}, jnp.zeros((1, 2, 11), jnp.int32), False)


@pytest.mark.parametrize("pooler", [True, False])
def test_fine_tuning_starts_from_the_pretrained_weights_and_a_fresh_head(params, answer, pooler):
    pretrained = {k: v for k, v in params.items() if k == "encoder" or (pooler and k == "pooler")}
    network = fine_tuned(MODULE, pretrained)
    one, other = (network.init(jax.random.key(seed), X)["params"] for seed in (0, 1))
    assert jax.tree.map(jnp.shape, one) == jax.tree.map(jnp.shape, params)
    same = jax.tree.map(lambda a, b: bool((a == b).all()), one, other)
    assert all(jax.tree.leaves(same["encoder"]))
    assert (same["pooler"]["kernel"], same["head"]["kernel"]) == (pooler, False)
    assert 0 < abs(one["head"]["kernel"]).max() < 0.1
    logits, variables = network.apply({"params": one}, X, False)
    np.testing.assert_allclose(logits, answer(one, X), atol=1e-6)
    assert variables["params"] is one
