"""A BERT read from files is the one they hold: against the slow reference, and the original."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.bert import SETTINGS, bert, random_tensors, write_folder

from jaxnas.data.bert_files import find_bert, read_vocabulary
from jaxnas.data.dataset import DataError
from jaxnas.data.wordpiece import encode
from jaxnas.nn.bert import Bert, BertClassifier, BertConfig
from jaxnas.train.pretrained import bert_config, load_bert

X = np.array(
    [
        [[2, 5, 7, 3, 9, 10, 3, 0, 0], [0, 0, 0, 0, 1, 1, 1, 0, 0]],
        [[2, 11, 4, 4, 8, 6, 1, 5, 3], [0, 0, 0, 0, 0, 0, 0, 0, 0]],
    ],
    np.int32,
)


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path, random_tensors())


def hidden_and_pooled(config, params, x):
    """What the encoder says, and what a classifier whose head hands on its input says."""
    h = config.hidden
    classifier = {**params, "head": {"kernel": jnp.eye(h), "bias": jnp.zeros(h)}}

    @jax.jit
    def run(p):
        hidden = Bert(config).apply({"params": p["encoder"]}, x, train=False)
        return hidden, BertClassifier(config, h).apply({"params": p}, x, train=False)

    return run(classifier)


def test_the_encoder_is_the_slow_reference(folder):
    hidden, pooled = hidden_and_pooled(*load_bert(folder), jnp.asarray(X))
    tensors = random_tensors()
    for row, (pieces, segments) in enumerate(X):
        states, summary = bert(tensors, pieces, segments, layers=2, heads=2)
        np.testing.assert_allclose(hidden[row], states, atol=1e-5)
        np.testing.assert_allclose(pooled[row], summary, atol=1e-5)


def test_every_published_way_of_naming_gives_the_same_weights(folder, tmp_path):
    (tmp_path / "other").mkdir()
    renamed = {
        "bert." + name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): t
        for name, t in random_tensors().items()
    }
    extra = {"cls.predictions.bias": np.zeros(12), "bert.embeddings.position_ids": np.arange(10)}
    config, params = load_bert(folder)
    config_too, params_too = load_bert(write_folder(tmp_path / "other", renamed | extra))
    assert config == config_too
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), params, params_too))


def test_a_model_without_pooler_has_none(tmp_path):
    tensors = {k: v for k, v in random_tensors().items() if not k.startswith("pooler")}
    assert list(load_bert(write_folder(tmp_path, tensors))[1]) == ["encoder"]


def test_sizes_are_those_of_the_settings():
    assert bert_config(SETTINGS) == BertConfig(
        vocabulary=12, hidden=8, layers=2, heads=2, intermediate=16, positions=10
    )


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"hidden_act": "relu"}, "`hidden_act` must be 'gelu', but is 'relu'"),
        ({"model_type": "roberta"}, "`model_type` must be 'bert'"),
        ({"position_embedding_type": "relative_key"}, "`position_embedding_type` must be"),
        ({"hidden_size": None}, "`hidden_size` must be int"),
        ({"hidden_size": 8.0}, "`hidden_size` must be int"),
        ({"num_hidden_layers": 0}, r"`num_hidden_layers` must be int within \[1"),
        ({"num_hidden_layers": True}, "`num_hidden_layers` must be int"),
        ({"num_attention_heads": 3}, "`num_attention_heads` must divide 8, but is 3"),
        ({"hidden_dropout_prob": 1.0}, r"`hidden_dropout_prob` must be float within \[0, 1\)"),
        ({"layer_norm_eps": float("nan")}, "`layer_norm_eps` must be float"),
        ({"num_hidden_layers": 1}, "`num_hidden_layers` is 1, but there are more"),
        ({"num_hidden_layers": 1 << 30}, r"`encoder\.layer\.2\..*` must be .* missing"),
        ({"intermediate_size": 17}, r"weight` must be \(17, 8\), but is \(16, 8\)"),
        ({"vocab_size": 13}, r"word_embeddings\.weight` must be \(13, 8\), but is \(12, 8\)"),
    ],
)
def test_what_is_no_such_bert_is_refused(tmp_path, change, cause):
    write_folder(tmp_path, random_tensors(), SETTINGS | change)
    with pytest.raises(DataError, match=f"it holds no BERT this module knows .*{cause}"):
        load_bert(tmp_path)


@pytest.mark.parametrize("name", ["hidden_size", "num_attention_heads", "max_position_embeddings"])
def test_a_missing_size_is_refused(tmp_path, name):
    settings = {key: value for key, value in SETTINGS.items() if key != name}
    write_folder(tmp_path, random_tensors(), settings)
    with pytest.raises(DataError, match=f"`{name}` is missing"):
        load_bert(tmp_path)


def test_minilm_says_what_the_original_says():
    """Figures of transformers 5.24.0 on PyTorch 2.14.1, float32."""
    try:
        folder = find_bert()
    except DataError as error:
        pytest.skip(str(error))
    config, params = load_bert(folder)
    if (config.layers, config.hidden, config.vocabulary) != (6, 384, 30_522):
        pytest.skip(f"{folder} holds another BERT than all-MiniLM-L6-v2")
    first = ["A quick, brown fox jumps.", "Searching optimizers"]
    second = ["It isn't lazy!", "Cr\u00e8me br\u00fbl\u00e9e"]
    x = encode(read_vocabulary(folder), first, second, length=24)
    ids = [row[row != 0].tolist() for row in x[:, 0]]
    fox = [101, 1037, 4248, 1010, 2829, 4419, 14523, 1012, 102, 2009, 3475, 1005, 1056, 13971, 999]
    assert ids[0] == [*fox, 102]
    assert ids[1] == [101, 6575, 23569, 27605, 16750, 102, 13675, 21382, 7987, 9307, 2063, 102]
    hidden, pooled = hidden_and_pooled(config, params, jnp.asarray(x))
    figures = (
        (hidden[0, 0, :4], [0.026769, 0.236453, 0.033896, 0.503949]),
        (hidden[0, 10, :4], [0.240106, -0.299561, 0.329281, 0.481593]),
        (hidden[1, 0, -4:], [0.033416, 0.159994, 0.151852, -0.195166]),
        (hidden[1, 5, :4], [-0.492067, -0.425564, -0.396103, -0.285966]),
        (pooled[0, :4], [-0.03952, 0.016416, 0.05684, 0.115401]),
        (pooled[1, :4], [0.082297, 0.010514, -0.013015, -0.019914]),
    )
    for got, wanted in figures:
        np.testing.assert_allclose(got, wanted, atol=1e-4)
    total = jnp.where(x[:, 0, :, None] != 0, jnp.abs(hidden), 0).sum()
    np.testing.assert_allclose(total, 3686.6876, rtol=1e-5)
