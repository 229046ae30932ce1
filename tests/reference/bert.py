"""BERT as its paper writes it, in float64, one text and one head at a time.

Weights stand under the names of the published files; linear layers are `[out, in]`.
"""

import json
import math

import numpy as np


def _linear(tensors, name, x):
    return x @ tensors[f"{name}.weight"].astype(np.float64).T + tensors[f"{name}.bias"]


def _norm(tensors, name, x, epsilon):
    rows = []
    for row in x:
        centred = row - row.mean()
        rows.append(centred / math.sqrt((centred**2).mean() + epsilon))
    return np.array(rows) * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def _gelu(x):
    erf = np.array([math.erf(value / math.sqrt(2)) for value in x.ravel()]).reshape(x.shape)
    return x * (1 + erf) / 2


def _attention(query, key, value, seen):
    """One head; positions that are not seen are left out, not masked."""
    out = np.zeros_like(query)
    for here in range(len(query)):
        there = [m for m in range(len(key)) if seen[m]]
        scores = np.array([query[here] @ key[m] / math.sqrt(query.shape[1]) for m in there])
        shares = np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()
        out[here] = sum(share * value[m] for share, m in zip(shares, there, strict=True))
    return out


def bert(tensors, pieces, segments, *, layers, heads, epsilon=1e-12, pad=0):
    """Last hidden state [L, H] and pooled output [H] of one text."""
    table = {
        name: tensors[f"embeddings.{name}_embeddings.weight"].astype(np.float64)
        for name in ("word", "position", "token_type")
    }
    x = np.array(
        [
            table["word"][piece] + table["position"][place] + table["token_type"][segment]
            for place, (piece, segment) in enumerate(zip(pieces, segments, strict=True))
        ]
    )
    x = _norm(tensors, "embeddings.LayerNorm", x, epsilon)
    size = x.shape[1] // heads
    for layer in range(layers):
        at = f"encoder.layer.{layer}"
        q, k, v = (
            _linear(tensors, f"{at}.attention.self.{n}", x) for n in ("query", "key", "value")
        )
        mixed = np.zeros_like(x)
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            mixed[:, part] = _attention(q[:, part], k[:, part], v[:, part], pieces != pad)
        mixed = _linear(tensors, f"{at}.attention.output.dense", mixed)
        x = _norm(tensors, f"{at}.attention.output.LayerNorm", x + mixed, epsilon)
        wide = _gelu(_linear(tensors, f"{at}.intermediate.dense", x))
        x = _norm(
            tensors,
            f"{at}.output.LayerNorm",
            x + _linear(tensors, f"{at}.output.dense", wide),
            epsilon,
        )
    return x, np.tanh(_linear(tensors, "pooler.dense", x[0]))


SETTINGS = {
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 10,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "model_type": "bert",
}
PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##b", "c", "d", "e", "f", "g")


def random_tensors(seed=0):
    """Weights of a tiny BERT of `SETTINGS`, large enough that every part of it matters."""
    rng = np.random.default_rng(seed)
    h, wide = SETTINGS["hidden_size"], SETTINGS["intermediate_size"]
    shapes = {
        "embeddings.word_embeddings.weight": (12, h),
        "embeddings.position_embeddings.weight": (10, h),
        "embeddings.token_type_embeddings.weight": (2, h),
        "embeddings.LayerNorm.weight": (h,),
        "embeddings.LayerNorm.bias": (h,),
        "pooler.dense.weight": (h, h),
        "pooler.dense.bias": (h,),
    }
    parts = {
        "attention.self.query": (h, h),
        "attention.self.key": (h, h),
        "attention.self.value": (h, h),
        "attention.output.dense": (h, h),
        "attention.output.LayerNorm": (h,),
        "intermediate.dense": (wide, h),
        "output.dense": (h, wide),
        "output.LayerNorm": (h,),
    }
    for layer in range(SETTINGS["num_hidden_layers"]):
        for name, shape in parts.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
    return {name: rng.normal(0, 0.7, shape).astype(np.float32) for name, shape in shapes.items()}


def write_folder(folder, tensors, settings=SETTINGS, pieces=PIECES):
    """The three files of a published BERT."""
    header, data = {}, b""
    for name, tensor in tensors.items():
        span = [len(data), len(data) + 4 * tensor.size]
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": span}
        data += tensor.astype("<f4").tobytes()
    raw = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return folder
