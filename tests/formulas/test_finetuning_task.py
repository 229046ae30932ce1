"""Fine-tuning as a task: what is trained, and that shorter rows and held blocks change no answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.data.glue import GlueTask, Sentences
from jaxnas.data.wordpiece import SPECIAL, encode, word_piece
from jaxnas.formulas.finetuning import finetuning
from jaxnas.nn.bert import Bert, BertClassifier, BertConfig
from jaxnas.nn.network import cross_entropy

pytestmark = pytest.mark.usefixtures("quick_compile")
WORDS = word_piece((*SPECIAL, "a", "b", "c", "d"))
CONFIG = BertConfig(
    vocabulary=len(WORDS.ids), hidden=8, layers=3, heads=2, intermediate=16, positions=20,
    dropout=0.0, attention_dropout=0.0,
)  # fmt: skip
SAID = Sentences(("a b", "c", "d d a c", "b"), (), np.array([0, 1, 1, 0], np.int32))
DATA = GlueTask("toy", SAID, SAID, ("no", "yes"), "accuracy")
ITEM, KEY = jnp.arange(4), jax.random.key(2)


@pytest.fixture(scope="module")
def bert():
    encoder = Bert(CONFIG).init(jax.random.key(0), jnp.zeros((1, 2, 6), jnp.int32), False)
    return CONFIG, {"encoder": encoder["params"]}, WORDS


def task(bert, **settings):
    settings = {"length": 20, "batch": 4, "steps": 3, "data": DATA, "bert": bert} | settings
    return finetuning("cola", **settings)


def test_the_loss_is_that_of_the_network_on_rows_of_the_full_length(bert):
    ours = task(bert)
    params, _ = ours.start(jax.random.key(1))
    x = jnp.asarray(encode(WORDS, SAID.first, length=20))
    logits = BertClassifier(CONFIG, 2).apply({"params": params}, x, False)
    loss, _ = ours.loss(params, (), ITEM, KEY)
    assert float(loss) == pytest.approx(
        float(cross_entropy(logits, jnp.asarray(SAID.labels))), rel=1e-5
    )
    wanted = (np.asarray(logits).argmax(1) == SAID.labels).mean()
    assert float(ours.score(jnp.zeros(3), params, ())) == pytest.approx(wanted)


def test_the_last_blocks_alone_are_trained_with_the_gradients_they_have_in_the_whole(bert):
    whole, last = task(bert), task(bert, blocks=2)
    everything, some = (one.start(jax.random.key(1))[0] for one in (whole, last))
    assert set(some) == set(everything) == {"encoder", "pooler", "head"}
    assert set(some["encoder"]) == {"layer_1", "layer_2"}
    value, wanted = jax.value_and_grad(lambda p: whole.loss(p, (), ITEM, KEY)[0])(everything)
    found, ours = jax.value_and_grad(lambda p: last.loss(p, (), ITEM, KEY)[0])(some)
    assert float(found) == pytest.approx(float(value), rel=1e-6)
    kept = {name: wanted["encoder"][name] for name in some["encoder"]}
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7),
        ours, {**wanted, "encoder": kept},
    )  # fmt: skip
    assert float(last.score(jnp.zeros(3), some, ())) == float(
        whole.score(jnp.zeros(3), everything, ())
    )


def test_more_blocks_than_there_are_are_refused(bert):
    with pytest.raises(ValueError, match=r"`blocks` must be in 0 \.\.\. 3, but got 4"):
        task(bert, blocks=4)
