"""What holds of any decoder; it reads in one go, bit by bit, and side by side with others alike."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.decoder import SIZES, decoder, random_tensors, words

from jaxnas.nn.lm import LM, LMConfig, empty_cache, rotated, rotation
from jaxnas.nn.network import count_params

pytestmark = pytest.mark.usefixtures("quick_compile")

TOKENS = np.array([[5, 17, 200, 4, 90, 90, 33, 250], [2, 8, 3, 77, 120, 5, 61, 9]], np.int32)


def config(family, tied):
    s = SIZES
    return LMConfig(
        len(words()), s["hidden"], s["layers"], s["heads"], s["key_heads"], s["size"], s["wide"],
        512, 10_000.0, 1e-5, tied, biased=family == "qwen2",
        pairs="neighbours" if family == "llama" else "halves",
    )  # fmt: skip


def params_of(tensors):
    """The tree of `nn.lm`, built by hand."""
    names = {
        "query": "attn_q", "key": "attn_k", "value": "attn_v", "attended": "attn_output",
        "gate": "ffn_gate", "wide": "ffn_up", "narrow": "ffn_down",
    }  # fmt: skip
    tree = {
        "tokens": {"embedding": tensors["token_embd.weight"]},
        "norm": {"scale": tensors["output_norm.weight"]},
    }
    for i in range(SIZES["layers"]):
        block = {n: {"kernel": tensors[f"blk.{i}.{g}.weight"].T} for n, g in names.items()}
        for n, g in names.items():
            if f"blk.{i}.{g}.bias" in tensors:
                block[n]["bias"] = tensors[f"blk.{i}.{g}.bias"]
        block["attention_norm"] = {"scale": tensors[f"blk.{i}.attn_norm.weight"]}
        block["norm"] = {"scale": tensors[f"blk.{i}.ffn_norm.weight"]}
        tree[f"blocks_{i}"] = block
    if "output.weight" in tensors:
        tree["output"] = {"kernel": tensors["output.weight"].T}
    return jax.tree.map(jnp.asarray, tree)


@pytest.fixture(scope="module", params=[("llama", True), ("qwen2", False)], ids=lambda p: p[0])
def model(request):
    family, tied = request.param
    tensors = random_tensors(family, tied)
    module = LM(config(family, tied))
    params = params_of(tensors)
    whole = jax.jit(lambda x: module.apply({"params": params}, x))

    @jax.jit
    def read(tokens, cache):
        def on(module):
            hidden, after = module.read(module.embed(tokens), cache)
            return module.logits(hidden), after

        return module.apply({"params": params}, method=on)

    return family, tensors, module, whole, read


def test_logits_are_those_of_the_slow_reference(model):
    family, tensors, _, whole, _ = model
    logits = whole(TOKENS)
    for row, tokens in enumerate(TOKENS):
        np.testing.assert_allclose(logits[row], decoder(tensors, tokens, family), atol=2e-4)


def test_reading_token_by_token_equals_reading_at_once(model):
    _, _, module, whole, read = model
    cache = empty_cache(module.config, 2, 16)
    logits = []
    for at in range(TOKENS.shape[1]):
        one, cache = read(TOKENS[:, at : at + 1], cache)
        logits.append(one[:, 0])
    np.testing.assert_allclose(jnp.stack(logits, 1), whole(TOKENS), atol=1e-5)
    assert cache.length.tolist() == [8, 8]


def test_rows_of_different_lengths_are_filled_up_with_anything(model):
    _, _, module, whole, read = model
    filled = TOKENS.copy()
    filled[1, 5:] = 42
    _, cache = read(filled, empty_cache(module.config, 2, 16))
    cache = cache._replace(length=jnp.array([8, 5]))
    next_two = np.array([[7, 9], TOKENS[1, 5:7]], np.int32)
    for at in range(2):
        logits, cache = read(next_two[:, at : at + 1], cache)
        np.testing.assert_allclose(logits[1, 0], whole(TOKENS)[1, 5 + at], atol=1e-5)
        longer = np.concatenate([TOKENS, next_two], 1)[:, : 9 + at]
        np.testing.assert_allclose(logits[0, 0], whole(longer)[0, -1], atol=1e-5)


def test_no_position_sees_a_later_one(model):
    whole = model[3]
    changed = TOKENS.copy()
    changed[:, 5] += 1
    before, after = whole(TOKENS), whole(changed)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (abs(before - after)[:, 5:].max(-1) > 1e-3).all()


def test_a_row_is_read_alike_alone_and_in_a_batch(model):
    whole = model[3]
    np.testing.assert_allclose(whole(TOKENS[:1])[0], whole(TOKENS)[0], atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_attention_knows_distances_alone(family):
    c = config(family, tied=True)
    query, key = jnp.asarray(np.random.default_rng(0).normal(size=(2, 1, 1, 1, 8)), jnp.float32)

    def product(here, there):
        turn = [rotation(jnp.array([[at]]), c) for at in (here, there)]
        return float((rotated(query, turn[0], c) * rotated(key, turn[1], c)).sum())

    assert product(9, 4) == pytest.approx(product(105, 100), abs=1e-4)
    assert product(9, 4) != pytest.approx(product(9, 5), abs=1e-2)


def test_smollm2_has_the_published_number_of_weights():
    """134,515,008: HuggingFaceTB/SmolLM2-135M."""
    module = LM(LMConfig())
    x = jnp.zeros((1, 4), jnp.int32)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
    assert count_params(shapes) == 134_515_008
