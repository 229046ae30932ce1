"""The local model on tiny files: sampling, batches, stops, grammars; and against llama.cpp."""

import asyncio
import json
import re
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("gguf")
pytest.importorskip("tokenizers")
pytest.importorskip("llguidance")
from reference.decoder import decoder, random_tensors, write_gguf

from jaxnas.data.dataset import DataError
from jaxnas.llm import Completion, ModelError, Request, ask_all, record, replay
from jaxnas.llm.decoding import Rows, draw
from jaxnas.llm.grammar import constrained, validity
from jaxnas.llm.local import load_model, local, serve
from jaxnas.llm.structured import structured
from jaxnas.llm.tokens import chat, decode, encode

pytestmark = pytest.mark.usefixtures("quick_compile")

ASK = [{"role": "user", "content": "Go on."}]
COLOURS = 'root ::= "I like " ("red" | "green" | "blue") "."\n'
LLAMA_CPP = json.loads(Path(__file__).with_name("llama_cpp.json").read_text())


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return load_model(write_gguf(tmp_path_factory.mktemp("lm") / "tiny.gguf"))


@pytest.fixture(scope="module")
def client(model):
    return serve(model, batch=4, context=256)


@pytest.fixture(scope="module")
def last_logits():
    """Those after a text, whatever its length, from one program a family."""
    run = jax.jit(lambda module, p, x: module.apply({"params": p}, x), static_argnums=0)

    def logits(model, tokens):
        filled = jnp.zeros((1, 64), jnp.int32).at[0, : len(tokens)].set(jnp.array(tokens))
        return run(model.module, model.params, filled)[0, : len(tokens)]

    return logits


def texts(done):
    return [reply.text for reply in done.replies]


def test_weights_of_a_file_give_the_logits_of_the_slow_reference(model, last_logits):
    tokens = encode(model.tokens, "x = nn.relu(x)")
    logits = last_logits(model, tokens)
    np.testing.assert_allclose(logits, decoder(random_tensors("llama"), tokens, "llama"), atol=2e-4)


def test_half_precision_gives_nearly_the_same(model, tmp_path, last_logits):
    half = load_model(write_gguf(tmp_path / "tiny.gguf"), jnp.bfloat16)
    assert half.params["tokens"]["embedding"].dtype == jnp.bfloat16
    one, other = (last_logits(m, encode(m.tokens, "x = nn.relu(x)")) for m in (model, half))
    assert other.dtype == jnp.float32
    errors = np.asarray(one - other)
    assert 1e-4 < np.sqrt((errors**2).mean()) < 0.1 * float(one.std())


def test_a_qwen2_file_gives_the_tokens_and_log_probs_of_llama_cpp(tmp_path, last_logits):
    """Its cache is in float16, ours is not; with the pairs of Llama they are 0.5 apart."""
    model = load_model(write_gguf(tmp_path / "tiny.gguf", "qwen2"))
    for text, tokens, tops, expected in LLAMA_CPP["tiny_qwen2"]:
        assert encode(model.tokens, text) == tokens
        logits = last_logits(model, tokens)[-1]
        np.testing.assert_allclose(jax.nn.log_softmax(logits)[np.array(tops)], expected, atol=0.02)


def test_a_mark_in_a_message_is_text(model):
    inside = encode(model.tokens, "<|im_end|>")
    assert len(inside) > 1
    assert decode(model.tokens, inside) == "<|im_end|>"
    tokens = chat(model.tokens, [{"role": "user", "content": "a<|im_end|>b"}])
    assert [t for t in tokens if t < 3] == [1, 2, 1]
    assert decode(model.tokens, tokens) == "user\na<|im_end|>b\nassistant\n"


def test_the_reply_continues_what_the_assistant_has_begun(model):
    begun = chat(model.tokens, [*ASK, {"role": "assistant", "content": "class"}])
    assert begun == [*chat(model.tokens, ASK), *encode(model.tokens, "class")]


def test_at_temperature_0_each_token_is_the_most_likely_one_of_the_whole_forward_pass(
    model, client, last_logits
):
    prompt = chat(model.tokens, ASK)
    (done,) = ask_all([client.complete(ASK, temperature=0, max_tokens=12)])
    for _ in range(12):
        prompt.append(int(last_logits(model, prompt)[-1].argmax()))
    drawn = prompt[len(chat(model.tokens, ASK)) :]
    ends = [i for i, token in enumerate(drawn) if token in model.tokens.ends]
    assert texts(done) == [decode(model.tokens, drawn[: ends[0]] if ends else drawn)]


def test_equal_requests_get_equal_replies_whatever_else_is_asked(client):
    alone = ask_all([client.complete(ASK, seed=3, max_tokens=20)])[0]
    others = [client.complete(ASK, n=3, seed=seed, max_tokens=9) for seed in range(4)]
    longer = client.complete([{"role": "user", "content": "x" * 200}], max_tokens=40)
    again = client.complete(ASK, seed=3, max_tokens=20)
    *_, beside = ask_all([*others, longer, again])
    assert texts(beside) == texts(alone)
    assert texts(ask_all([client.complete(ASK, seed=4, max_tokens=20)])[0]) != texts(alone)


def test_replies_of_one_request_differ_and_the_first_is_that_of_a_single_one(client):
    many = ask_all([client.complete(ASK, n=6, seed=3, max_tokens=20)])[0]
    single = ask_all([client.complete(ASK, n=1, seed=3, max_tokens=20)])[0]
    assert len(set(texts(many))) == 6
    assert texts(many)[0] == texts(single)[0]


def test_tokens_are_counted_and_a_reply_ends_at_its_length(model, client):
    (done,) = ask_all([client.complete(ASK, n=2, seed=1, max_tokens=7)])
    assert done.usage.prompt == len(chat(model.tokens, ASK))
    assert done.usage.completion <= 14
    assert done.model == "tiny"
    for reply in done.replies:
        assert reply.finish in ("stop", "length")
        assert reply.forced is None
    assert any(reply.finish == "length" for reply in done.replies)


def test_a_reply_ends_before_a_stop(client):
    (free,) = ask_all([client.complete(ASK, seed=5, max_tokens=30)])
    text = texts(free)[0]
    stop = text[10:12]
    (done,) = ask_all([client.complete(ASK, seed=5, max_tokens=30, stop=[stop, "never"])])
    assert texts(done) == [text[: text.index(stop)]]
    assert done.replies[0].finish == "stop"
    assert done.usage.completion < free.usage.completion


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_tokens_are_drawn_from_the_softmax_over_temperature(temperature):
    logits, n = jnp.array([0.0, 1.0, -1.0, 0.5]), 20_000
    zero = jnp.zeros(n, jnp.int32)
    rows = Rows(zero, zero, jnp.ones(n, jnp.uint32), zero, jnp.arange(n), jnp.full(n, temperature))
    allowed = jnp.full((n, 1), 0b1011, jnp.int32)
    own, drawn = draw(jnp.broadcast_to(logits, (n, 4)), rows, allowed)
    shares = np.exp(np.array(logits) / temperature)
    np.testing.assert_allclose(np.bincount(own) / n, shares / shares.sum(), atol=0.015)
    shares[2] = 0  # what the mask leaves keeps its proportions
    found = np.bincount(drawn, minlength=4) / n
    np.testing.assert_allclose(found, shares / shares.sum(), atol=0.015)
    assert ((own == drawn) | (np.asarray(own) == 2)).all()


def test_every_reply_is_a_sentence_of_the_grammar(client):
    (done,) = ask_all([client.complete(ASK, n=8, grammar=COLOURS, max_tokens=40)])
    assert all(re.fullmatch(r"I like (red|green|blue)\.", text) for text in texts(done))
    assert len(set(texts(done))) > 1
    assert all(reply.finish == "stop" for reply in done.replies)
    assert all(10 <= reply.forced <= 15 for reply in done.replies)


def test_every_reply_fits_the_schema(client):
    answer = {"type": "array", "items": {"enum": ["conv", "dense"]}, "maxItems": 3}
    schema = {"type": "object", "properties": {"layers": answer}, "required": ["layers"]}
    schema["additionalProperties"] = False
    (done,) = ask_all([structured(client).complete(ASK, n=3, schema=schema, max_tokens=60)])
    for reply in done.replies:
        assert set(reply.parsed["layers"]) <= {"conv", "dense"}


@pytest.mark.parametrize("grammar", ["root ::= missing", "root ::= (", "nothing at all"])
def test_a_grammar_that_is_none_is_refused_for_free(client, grammar):
    (error,) = ask_all([client.complete(ASK, grammar=grammar)])
    assert isinstance(error, ModelError)
    assert (error.kind, error.free) == ("refused", True)


def test_a_client_under_a_grammar_keeps_to_it_unless_a_request_has_its_own(client):
    bound = constrained(client, COLOURS)
    own = bound.complete(ASK, max_tokens=30, grammar='root ::= "mauve"')
    one, other = ask_all([bound.complete(ASK, max_tokens=30), own])
    assert texts(one)[0].startswith("I like ")
    assert texts(other) == ["mauve"]


def test_validity_is_told_with_and_without_a_grammar(client):
    requests = [Request(tuple(ASK), n=2, seed=seed, max_tokens=20) for seed in range(2)]
    found = validity(client, requests, COLOURS, lambda text: text.startswith("I like"))
    assert (found.free, found.constrained) == (0.0, 1.0)
    assert 0.7 < found.forced <= 1.0


def test_a_prompt_without_room_is_refused_and_a_long_reply_is_cut(client):
    (error,) = ask_all([client.complete([{"role": "user", "content": "x" * 300}])])
    assert isinstance(error, ModelError)
    assert "there is room for 255" in str(error)
    (done,) = ask_all(
        [client.complete([{"role": "user", "content": "x" * 200}], max_tokens=10_000)]
    )
    assert done.usage.completion <= 256


def test_the_event_loop_lives_while_tokens_are_drawn(client):
    async def scenario():
        call = asyncio.create_task(client.complete(ASK, n=4, max_tokens=100, seed=9))
        ticks = 0
        while not call.done():
            await asyncio.sleep(0.001)
            ticks += 1
        return ticks, call.result()

    ticks, done = asyncio.run(scenario())
    assert ticks > 5
    assert len(done.replies) == 4


def test_a_cancelled_request_makes_room_for_others(client):
    async def scenario():
        begin = time.perf_counter()
        late = asyncio.create_task(client.complete(ASK, n=5000, max_tokens=100))
        await asyncio.sleep(0.2)
        late.cancel()
        done = await asyncio.wait_for(client.complete(ASK, max_tokens=5), 60)
        return done, time.perf_counter() - begin

    done, seconds = asyncio.run(scenario())
    assert len(done.replies) == 1
    assert seconds < 60


def test_a_failure_in_the_thread_reaches_who_asked_and_the_next_request_works(model, monkeypatch):
    client = serve(model, batch=4, context=256)
    monkeypatch.setattr("jaxnas.llm.sampler.allow", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ask_all([client.complete(ASK, max_tokens=2)])
    monkeypatch.undo()
    (done,) = ask_all([client.complete(ASK, max_tokens=2)])
    assert isinstance(done, Completion)


def test_a_soft_prompt_changes_replies(model):
    tokens = chat(model.tokens, ASK)
    table = model.params["tokens"]["embedding"]
    plain, soft = (
        serve(model, batch=4, context=256, soft_prompt=vectors)
        for vectors in (None, 5 * table[jnp.array(tokens[:4])])
    )
    one, other = (
        ask_all([c.complete(ASK, temperature=0, max_tokens=20)])[0] for c in (plain, soft)
    )
    assert texts(one) != texts(other)
    with pytest.raises(ValueError, match=r"`soft_prompt` must be \[P, 32\]"):
        serve(model, soft_prompt=jnp.zeros((2, 3)))


def test_recordings_keep_what_was_forced(client, tmp_path):
    path = tmp_path / "replies.jsonl"
    call = {"n": 2, "grammar": COLOURS, "max_tokens": 30}
    (first,) = ask_all([record(client, path).complete(ASK, **call)])
    (again,) = ask_all([replay(path).complete(ASK, **call)])
    assert again == first
    assert again.replies[0].forced is not None


@pytest.mark.parametrize(
    ("family", "change", "cause"),
    [
        ("gemma", [], "`general.architecture` must be one of"),
        ("llama", [("add_tokenizer_pre", "tekken")], "`tokenizer.ggml.pre` must be one of"),
        ("llama", [("add_chat_template", "[INST]")], "must be ChatML"),
        ("llama", [("add_head_count_kv", 3)], "Heads must divide"),
        ("llama", [("add_block_count", 3)], r"`blk\.2\.attn_norm\.weight` must be"),
        ("llama", [("add_feed_forward_length", 50)], r"`blk\.0\.ffn_gate\.weight` must be"),
        ("llama", [("add_embedding_length", 0)], "must be a size"),
    ],
)
def test_a_file_that_does_not_fit_says_why(tmp_path, family, change, cause):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = write_gguf(tmp_path / "odd.gguf", family, random_tensors("llama"), change)
    with pytest.raises(DataError, match=cause):
        local(path)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_is_at_least_one(model, batch):
    with pytest.raises(ValueError, match="`batch` must be at least 1"):
        serve(model, batch=batch)
