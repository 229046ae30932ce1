"""Tuning a soft prompt on a tiny decoder: gradients, what changes and what does not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

for package in ("gguf", "tokenizers"):
    pytest.importorskip(package)
from reference.decoder import decoder, random_tensors, write_gguf  # noqa: E402

from jaxnas.llm.local import load_model  # noqa: E402
from jaxnas.llm.tokens import encode  # noqa: E402
from jaxnas.programs.soft_prompt import soft_prompt, text_loss  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compile")

SOURCES = [f"x = nn.Dense({n})(x)\nx = nn.relu(x)\n" for n in (8, 16, 32, 64, 100)]
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(write_gguf(tmp_path_factory.mktemp("lm") / "tiny.gguf"))


@pytest.fixture(scope="module")
def tuner(model):
    adam = optax.adam(0.05)
    options = {"length": 4, "batch": 4, "epochs": 3, "optimizer": adam}
    return soft_prompt(model, **options)


@pytest.fixture(scope="module")
def tuned(tuner):
    return tuner.tune(tuner.init(KEY), KEY, SOURCES)


def test_the_loss_is_that_of_the_slow_reference(model):
    """Vectors that are embeddings of tokens say what those tokens say."""
    before, text = [30, 99, 7], encode(model.tokens, SOURCES[0])
    vectors = model.params["tokens"]["embedding"][jnp.array(before)]
    wanted = np.arange(len(text)) >= 2
    loss = text_loss(model.module, model.params, vectors, jnp.array([text]), jnp.array([wanted]))
    logits = decoder(random_tensors("llama"), before + text, "llama")[2:-1]
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    losses = [-np.log(shares[i, token]) for i, token in enumerate(text)]
    assert float(loss) == pytest.approx(sum(losses[2:]), rel=1e-4)


def test_gradients_are_finite_differences(model):
    text = jnp.array([encode(model.tokens, SOURCES[0])])
    vectors = 0.3 * jax.random.normal(KEY, (4, 32))
    loss = jax.jit(
        lambda v: text_loss(model.module, model.params, v, text, jnp.ones(text.shape, bool))
    )
    gradient = jax.grad(loss)(vectors)
    errors, slopes = [], []
    for row, column in [(0, 3), (1, 17), (2, 31), (3, 0), (3, 20), (0, 9)]:
        step = jnp.zeros_like(vectors).at[row, column].set(0.02)
        slope = (loss(vectors + step) - loss(vectors - step)) / 0.04
        errors.append(float(slope - gradient[row, column]))
        slopes.append(float(slope))
    assert np.linalg.norm(errors) < 0.03 * np.linalg.norm(slopes)


def test_the_loss_falls_and_the_model_stays(model, tuner, tuned):
    before = jax.tree.map(np.asarray, model.params)
    assert tuned.losses[-1] < tuned.losses[0] - 0.1
    again = tuner.tune(tuned, jax.random.key(1), SOURCES)
    assert again.losses[-1] < tuned.losses[-1]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), before, model.params))


def test_equal_keys_tune_alike_and_nothing_is_learnt_from_no_source(tuner, tuned):
    again = tuner.tune(tuner.init(KEY), KEY, SOURCES)
    np.testing.assert_array_equal(again.vectors, tuned.vectors)
    assert tuner.tune(tuned, KEY, []) is tuned


def test_a_fresh_prompt_is_made_of_embeddings(model, tuner):
    table = np.asarray(model.params["tokens"]["embedding"])
    state = tuner.init(KEY)
    assert state.vectors.shape == (4, 32)
    for vector in np.asarray(state.vectors):
        assert (table == vector).all(1).any()
    assert jnp.isnan(state.losses).all()


def test_adafactor_moves_vectors_by_a_tenth_of_their_size(model):
    """The first step: its rate is relative, whatever the gradient."""
    one = soft_prompt(model, length=4, batch=4, epochs=1)
    start = one.init(KEY)
    moved = one.tune(start, KEY, SOURCES[:4]).vectors - start.vectors
    size = jnp.sqrt((start.vectors**2).mean())
    assert float(jnp.sqrt((moved**2).mean()) / size) == pytest.approx(0.1, rel=0.05)


def test_only_the_program_is_learnt_and_long_questions_are_refused(model):
    messages = [{"role": "user", "content": "x" * 400}]
    tuner = soft_prompt(model, messages=messages, context=300)
    with pytest.raises(ValueError, match="`messages` has"):
        tuner.tune(tuner.init(KEY), KEY, SOURCES)
    with pytest.raises(ValueError, match="`together` must divide `batch`"):
        soft_prompt(model, batch=3)
