"""A decoder as its papers write it, in float64, one position and one head at a time; tiny files of it.

Weights stand under the names of GGUF files; linear layers are `[out, in]`.
"""

import math

import numpy as np

SIZES = {"hidden": 32, "layers": 2, "heads": 4, "key_heads": 2, "size": 8, "wide": 48}
EPSILON, THETA = 1e-5, 10_000.0
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ("n n", "nn .", "Ġ Ġ", "ĠĠ ĠĠ")
TEMPLATE = (
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
)


def words():
    """Marks, the 256 bytes as byte-level BPE writes them, and what the merges give."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    signs = {byte: chr(byte) for byte in seen}
    hidden = [byte for byte in range(256) if byte not in signs]
    signs |= {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    return [*MARKS, *(signs[b] for b in range(256)), *(m.replace(" ", "") for m in MERGES)]


def random_tensors(family, tied=False, seed=0):
    """Weights large enough that every part of the network matters."""
    rng, s = np.random.default_rng(seed), SIZES
    queries, keys = s["heads"] * s["size"], s["key_heads"] * s["size"]
    shapes = {"token_embd.weight": (len(words()), s["hidden"])}
    for layer in range(s["layers"]):
        at = f"blk.{layer}"
        for name, shape in {
            "attn_q": (queries, s["hidden"]),
            "attn_k": (keys, s["hidden"]),
            "attn_v": (keys, s["hidden"]),
            "attn_output": (s["hidden"], queries),
            "ffn_gate": (s["wide"], s["hidden"]),
            "ffn_up": (s["wide"], s["hidden"]),
            "ffn_down": (s["hidden"], s["wide"]),
        }.items():
            shapes[f"{at}.{name}.weight"] = shape
            if family == "qwen2" and name in ("attn_q", "attn_k", "attn_v"):
                shapes[f"{at}.{name}.bias"] = shape[:1]
    if not tied:
        shapes["output.weight"] = shapes["token_embd.weight"]
    tensors = {n: rng.normal(0, 0.3, shape).astype(np.float32) for n, shape in shapes.items()}
    norms = [f"blk.{i}.{n}.weight" for i in range(s["layers"]) for n in ("attn_norm", "ffn_norm")]
    for name in [*norms, "output_norm.weight"]:
        tensors[name] = rng.uniform(0.5, 1.5, s["hidden"]).astype(np.float32)
    return tensors


def write_gguf(path, family="llama", tensors=None, change=()):
    """A file with these weights and a vocabulary of bytes."""
    from gguf import GGUFWriter, TokenType

    s, writer = SIZES, GGUFWriter(path, family)
    writer.add_block_count(s["layers"])
    writer.add_context_length(512)
    writer.add_embedding_length(s["hidden"])
    writer.add_feed_forward_length(s["wide"])
    writer.add_head_count(s["heads"])
    writer.add_head_count_kv(s["key_heads"])
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_freq_base(THETA)
    writer.add_rope_dimension_count(s["size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if family == "qwen2" else "smollm")
    writer.add_token_list(words())
    kinds = [TokenType.CONTROL] * len(MARKS) + [TokenType.NORMAL] * (len(words()) - len(MARKS))
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for method, value in change:
        getattr(writer, method)(value)
    for name, tensor in (tensors or random_tensors(family)).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def decoder(tensors, tokens, family):
    """Logits after every position, `[L, V]`."""
    s, t = SIZES, {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    x = t["token_embd.weight"][list(tokens)]
    for layer in range(s["layers"]):
        at = f"blk.{layer}"
        y = _norm(x, t[f"{at}.attn_norm.weight"])
        query, key, value = (_heads(t, f"{at}.attn_{n}", y) for n in "qkv")
        query, key = _turned(query, family), _turned(key, family)
        mixed = np.zeros_like(query)
        for here in range(len(x)):
            for head in range(s["heads"]):
                group = head // (s["heads"] // s["key_heads"])
                scores = [
                    query[here, head] @ key[there, group] / math.sqrt(s["size"])
                    for there in range(here + 1)
                ]
                shares = np.exp(scores) / np.exp(scores).sum()
                mixed[here, head] = sum(
                    share * value[there, group] for there, share in enumerate(shares)
                )
        x = x + mixed.reshape(len(x), -1) @ t[f"{at}.attn_output.weight"].T
        y = _norm(x, t[f"{at}.ffn_norm.weight"])
        gate = y @ t[f"{at}.ffn_gate.weight"].T
        wide = gate / (1 + np.exp(-gate)) * (y @ t[f"{at}.ffn_up.weight"].T)
        x = x + wide @ t[f"{at}.ffn_down.weight"].T
    x = _norm(x, t["output_norm.weight"])
    return x @ t.get("output.weight", t["token_embd.weight"]).T


def _norm(x, scale):
    return np.array([row / math.sqrt((row**2).mean() + EPSILON) for row in x]) * scale


def _heads(t, name, y):
    out = y @ t[f"{name}.weight"].T + t.get(f"{name}.bias", 0.0)
    return out.reshape(len(y), -1, SIZES["size"])


def _turned(x, family):
    """Pairs of components as complex numbers, turned: neighbours, or those half a head apart."""
    half, out = SIZES["size"] // 2, np.zeros_like(x)
    for i in range(half):
        one, two = (2 * i, 2 * i + 1) if family == "llama" else (i, i + half)
        for position in range(len(x)):
            angle = position * THETA ** (-2 * i / SIZES["size"])
            turned = (x[position, :, one] + 1j * x[position, :, two]) * np.exp(1j * angle)
            out[position, :, one], out[position, :, two] = turned.real, turned.imag
    return out
