"""Pretrained weights for `nn.lm`, out of GGUF files of the Llama and Qwen2 families."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, PyTree

from jaxnas.data.gguf_files import GgufFile, Packed, unpacked
from jaxnas.llm.decoding import Programs
from jaxnas.llm.tokens import Tokens
from jaxnas.nn.lm import LM, LMConfig

# What each family adds to what the two have in common.
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"biased": False, "pairs": "neighbours"},
    "qwen2": {"biased": True, "pairs": "halves"},
}
SIZES = {
    "hidden": "embedding_length",
    "layers": "block_count",
    "heads": "attention.head_count",
    "intermediate": "feed_forward_length",
    "context": "context_length",
}
# Tensors of a block: those of the file, by the names of `nn.lm`.
DENSE = {
    "query": "attn_q",
    "key": "attn_k",
    "value": "attn_v",
    "attended": "attn_output",
    "gate": "ffn_gate",
    "wide": "ffn_up",
    "narrow": "ffn_down",
}
LARGEST = 1 << 24  # of any size, so that no absurd one is computed with


class Model(NamedTuple):
    """A language model in memory.

    Attributes:
      name: by which recordings know it.
      module: the decoder.
      params: its weights.
      tokens: its vocabulary.
      programs: its compiled functions, shared by all clients of the model.
    """

    name: str
    module: LM
    params: PyTree
    tokens: Tokens
    programs: Programs


def load_lm(file: GgufFile, dtype: DTypeLike = jnp.float32) -> tuple[LM, PyTree]:
    """The decoder that a file holds.

    Args:
      file: from `data.gguf_files.read_gguf`.
      dtype: of weights and arithmetic.

    Raises:
      ValueError: if it is of another family, or settings and tensors do not fit one another.
    """
    config = lm_config(file)
    return LM(config, dtype), lm_params(config, file.tensors, dtype)


def lm_config(file: GgufFile) -> LMConfig:
    """Sizes from the fields of a file.

    Raises:
      ValueError: if the family is not known, or a size is missing or absurd.
    """
    fields, family = file.fields, file.fields.get("general.architecture")
    if family not in FAMILIES:
        raise ValueError(f"`general.architecture` must be one of {[*FAMILIES]}, but is {family!r}.")
    scaled = [f for f in fields if f.startswith(f"{family}.rope.scaling.") and fields[f] != "none"]
    if scaled or "rope_freqs.weight" in file.tensors:
        raise ValueError("Its rotations are scaled for long texts, which is not supported.")
    sizes = {name: _size(fields, f"{family}.{field}") for name, field in SIZES.items()}
    heads, per_head = sizes["heads"], sizes["hidden"] // sizes["heads"]
    kind: dict[str, Any] = FAMILIES[family] | sizes
    config = LMConfig(
        **kind,
        vocabulary=len(fields.get("tokenizer.ggml.tokens", ())),
        key_heads=_size(fields, f"{family}.attention.head_count_kv", heads),
        head_size=_size(fields, f"{family}.attention.key_length", per_head),
        theta=float(fields.get(f"{family}.rope.freq_base", 10_000.0)),
        epsilon=float(fields.get(f"{family}.attention.layer_norm_rms_epsilon", 1e-5)),
        tied="output.weight" not in file.tensors,
    )
    turned = fields.get(f"{family}.rope.dimension_count", config.head_size)
    if heads % config.key_heads or config.head_size % 2 or turned != config.head_size:
        raise ValueError(f"Heads must divide and be rotated whole, but got {config}.")
    return config


def lm_params(
    config: LMConfig, tensors: Mapping[str, Packed], dtype: DTypeLike = jnp.float32
) -> PyTree:
    """Weights in the tree of `nn.lm`.

    Args:
      config: sizes, which all tensors must have.
      tensors: of the file; linear layers are stored `[out, in]`.
      dtype: of the weights; those of norms stay in float32.

    Raises:
      ValueError: if a tensor is missing, has another shape, or is packed in an unknown way.
    """
    c = config
    norm = _take(tensors, "output_norm.weight", (c.hidden,), jnp.float32)
    table = _take(tensors, "token_embd.weight", (c.vocabulary, c.hidden), dtype)
    params = {"tokens": {"embedding": table}, "norm": {"scale": norm}}
    for layer in range(c.layers):
        params[f"blocks_{layer}"] = _block(c, tensors, f"blk.{layer}", dtype)
    if not c.tied:
        output = _take(tensors, "output.weight", (c.vocabulary, c.hidden), dtype)
        params["output"] = {"kernel": output.T}
    return params


def _block(
    config: LMConfig, tensors: Mapping[str, Packed], at: str, dtype: DTypeLike
) -> dict[str, Any]:
    c = config
    queries, keys = c.heads * c.head_size, c.key_heads * c.head_size
    outputs = {"query": queries, "key": keys, "value": keys, "attended": c.hidden}
    inputs = {"attended": queries, "narrow": c.intermediate}
    block: dict[str, Any] = {
        name: {"scale": _take(tensors, f"{at}.{published}.weight", (c.hidden,), jnp.float32)}
        for name, published in (("attention_norm", "attn_norm"), ("norm", "ffn_norm"))
    }
    for name, published in DENSE.items():
        wide = c.hidden if name == "narrow" else outputs.get(name, c.intermediate)
        shape = (wide, inputs.get(name, c.hidden))
        block[name] = {"kernel": _take(tensors, f"{at}.{published}.weight", shape, dtype).T}
        if c.biased and name in ("query", "key", "value"):
            block[name]["bias"] = _take(tensors, f"{at}.{published}.bias", (wide,), dtype)
    return block


def _take(
    tensors: Mapping[str, Packed], name: str, shape: tuple[int, ...], dtype: DTypeLike
) -> Array:
    found = tensors[name].shape if name in tensors else "missing"
    if found != shape:
        raise ValueError(f"`{name}` must be {shape}, but is {found}.")
    return jnp.asarray(unpacked(tensors[name]), dtype)


def _size(fields: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = fields.get(name, default)
    if not isinstance(value, int | np.integer) or not 0 < value < LARGEST:
        raise ValueError(f"`{name}` must be a size, but is {value!r}.")
    return int(value)
