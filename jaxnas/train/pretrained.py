"""Pretrained weights for the networks of `nn`: BERT under the names of its own release.

The names are those of Hugging Face's BertModel, with or without the prefix `bert.`, norms also as
`gamma` and `beta` as in Google's release. Heads of other tasks are passed over.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxnas.data.bert_files import REMEDY, find_bert, read_bert
from jaxnas.data.dataset import DataError
from jaxnas.nn.bert import BertConfig

# Name in config.json of each field; the first six have no default.
SETTINGS = {
    "vocabulary": "vocab_size",
    "hidden": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "intermediate": "intermediate_size",
    "positions": "max_position_embeddings",
    "segments": "type_vocab_size",
    "pad": "pad_token_id",
    "epsilon": "layer_norm_eps",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
REQUIRED = tuple(SETTINGS)[:6]
# What this BERT is; other values would silently be another network.
FIXED = {"hidden_act": "gelu", "position_embedding_type": "absolute", "model_type": "bert"}
SQUARE = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attended": "attention.output.dense",
}


def load_bert(folder: Path | None = None) -> tuple[BertConfig, PyTree]:
    """A pretrained BERT.

    Args:
      folder: holds `config.json`, `model.safetensors` and `vocab.txt`; `None` takes
        `jaxnas.data.bert_files.find_bert()`.

    Returns:
      Its sizes and its weights in float32: `encoder` for `nn.bert.Bert`, and `pooler` if it has
      one; both for `nn.bert.fine_tuned`.

    Raises:
      DataError: if files are absent or damaged, or hold no BERT.
    """
    folder = folder or find_bert()
    files = read_bert(folder)
    try:
        config = bert_config(files.settings)
        return config, bert_params(config, files.tensors)
    except ValueError as error:
        raise DataError(folder, f"it holds no BERT this module knows ({error})", REMEDY) from error


def bert_config(settings: Mapping[str, Any]) -> BertConfig:
    """Sizes from the table in `config.json`.

    Raises:
      ValueError: if one is missing or absurd, or the network is none of this kind.
    """
    for name, value in FIXED.items():
        if settings.get(name, value) != value:
            raise ValueError(f"`{name}` must be {value!r}, but is {settings[name]!r}.")
    missing = [SETTINGS[field] for field in REQUIRED if SETTINGS[field] not in settings]
    if missing:
        raise ValueError(f"`{missing[0]}` is missing.")
    given = {field: settings[name] for field, name in SETTINGS.items() if name in settings}
    for field, value in given.items():
        kind = type(getattr(BertConfig, field))
        low, high = (int(field != "pad"), 1 << 31) if kind is int else (0, 1)
        if type(value) not in (int, kind) or not low <= value < high:
            raise ValueError(
                f"`{SETTINGS[field]}` must be {kind.__name__} within [{low}, {high}), "
                f"but is {value!r}."
            )
    config = BertConfig(**given)
    if config.hidden % config.heads:
        raise ValueError(
            f"`num_attention_heads` must divide {config.hidden}, but is {config.heads}."
        )
    return config


def bert_params(config: BertConfig, tensors: Mapping[str, np.ndarray]) -> PyTree:
    """Weights in the tree of `nn.bert` from tensors under their published names.

    Args:
      config: sizes, which all tensors must have.
      tensors: by name; linear layers are stored `[out, in]`.

    Returns:
      `encoder`, and `pooler` if there is one.

    Raises:
      ValueError: if a tensor is missing or has another shape, or there are more layers.
    """
    tensors = {_plain(name): tensor for name, tensor in tensors.items()}
    if any(name.startswith(f"encoder.layer.{config.layers}.") for name in tensors):
        raise ValueError(f"`num_hidden_layers` is {config.layers}, but there are more.")
    tables = (
        ("word", "word", config.vocabulary),
        ("position", "position", config.positions),
        ("segment", "token_type", config.segments),
    )
    h = config.hidden
    encoder = {
        name: {"embedding": _take(tensors, f"embeddings.{published}_embeddings.weight", size, h)}
        for name, published, size in tables
    }
    encoder["norm"] = _norm(tensors, "embeddings.LayerNorm", h)
    for layer in range(config.layers):
        encoder[f"layer_{layer}"] = _block(config, tensors, f"encoder.layer.{layer}")
    if "pooler.dense.weight" not in tensors:
        return {"encoder": encoder}
    return {"encoder": encoder, "pooler": _dense(tensors, "pooler.dense", h, h)}


def _plain(name: str) -> str:
    """A name without prefix, its norm called as PyTorch does."""
    name = name.removeprefix("bert.").replace("LayerNorm.gamma", "LayerNorm.weight")
    return name.replace("LayerNorm.beta", "LayerNorm.bias")


def _block(config: BertConfig, tensors: Mapping[str, np.ndarray], at: str) -> PyTree:
    h, wide = config.hidden, config.intermediate
    return {
        **{name: _dense(tensors, f"{at}.{published}", h, h) for name, published in SQUARE.items()},
        "attention_norm": _norm(tensors, f"{at}.attention.output.LayerNorm", h),
        "wide": _dense(tensors, f"{at}.intermediate.dense", h, wide),
        "narrow": _dense(tensors, f"{at}.output.dense", wide, h),
        "norm": _norm(tensors, f"{at}.output.LayerNorm", h),
    }


def _dense(tensors: Mapping[str, np.ndarray], name: str, inputs: int, outputs: int) -> PyTree:
    kernel = _take(tensors, f"{name}.weight", outputs, inputs).T
    return {"kernel": kernel, "bias": _take(tensors, f"{name}.bias", outputs)}


def _norm(tensors: Mapping[str, np.ndarray], name: str, size: int) -> PyTree:
    scale = _take(tensors, f"{name}.weight", size)
    return {"scale": scale, "bias": _take(tensors, f"{name}.bias", size)}


def _take(tensors: Mapping[str, np.ndarray], name: str, *shape: int) -> Array:
    """One tensor on the device; a copy, since a file may change under a view of it."""
    found = tensors[name].shape if name in tensors else "missing"
    if found != shape:
        raise ValueError(f"`{name}` must be {shape}, but is {found}.")
    return jnp.array(tensors[name], jnp.float32)
