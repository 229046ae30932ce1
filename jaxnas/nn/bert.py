"""BERT: a Transformer encoder of text, and a head to fine-tune it with.

J. Devlin, M.-W. Chang, K. Lee and K. Toutanova, BERT: Pre-training of Deep Bidirectional
Transformers for Language Understanding, NAACL 2019, arXiv:1810.04805. Layers are normed after the
residual sum, positions are learned, GELU is exact. Weights come from `train.pretrained`.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jaxnas.nn.network import Network, from_linen

INITIAL = nn.initializers.normal(0.02)


@dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT; the defaults are those of BERT-base, cased.

    Attributes:
      vocabulary: number of word pieces.
      hidden: width of a position.
      layers: number of blocks.
      heads: of attention, a divisor of `hidden`.
      intermediate: width inside the feed-forward part.
      positions: longest input.
      segments: kinds of sentence, A and B.
      pad: number of the piece that fills up.
      epsilon: of layer norm.
      dropout: of embeddings and blocks.
      attention_dropout: of attention weights.
    """

    vocabulary: int = 28_996
    hidden: int = 768
    layers: int = 12
    heads: int = 12
    intermediate: int = 3_072
    positions: int = 512
    segments: int = 2
    pad: int = 0
    epsilon: float = 1e-12
    dropout: float = 0.1
    attention_dropout: float = 0.1


class Bert(nn.Module):
    """The encoder.

    Attributes:
      config: its sizes.
      dtype: of all arithmetic but norms and softmax.
    """

    config: BertConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Int[Array, "B 2 L"], train: bool) -> Float[Array, "B L H"]:
        """The last hidden state; `x` holds word pieces and segments, padding is not attended to."""
        c = self.config
        if x.shape[-1] > c.positions:
            raise ValueError(
                f"`x` must hold at most {c.positions} pieces a row, but holds {x.shape[-1]}."
            )
        pieces, segments = x[:, 0], x[:, 1]
        y = _embed(c.vocabulary, c, "word")(pieces) + _embed(c.segments, c, "segment")(segments)
        y = y + _embed(c.positions, c, "position")(jnp.arange(x.shape[-1]))
        y = nn.LayerNorm(c.epsilon, dtype=self.dtype, name="norm")(y)
        y = nn.Dropout(c.dropout)(y, deterministic=not train)
        for layer in range(c.layers):
            y = Block(c, self.dtype, name=f"layer_{layer}")(y, pieces != c.pad, train)
        return y


class Block(nn.Module):
    """Attention and feed-forward, each added to its input and normed."""

    config: BertConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L H"], seen: Bool[Array, "B L"], train: bool
    ) -> Float[Array, "B L H"]:
        """One layer; positions that are not `seen` are attended to by none."""
        c = self.config
        heads = (*x.shape[:2], c.heads, c.hidden // c.heads)
        query, key, value = (
            self._dense(c.hidden, name)(x).reshape(heads) for name in ("query", "key", "value")
        )
        logits = jnp.einsum("blhd,bmhd->bhlm", query, key).astype(jnp.float32)
        logits = logits / jnp.sqrt(jnp.float32(heads[-1]))
        logits = jnp.where(seen[:, None, None, :], logits, jnp.finfo(jnp.float32).min)
        shares = jax.nn.softmax(logits).astype(self.dtype)
        shares = nn.Dropout(c.attention_dropout)(shares, deterministic=not train)
        mixed = jnp.einsum("bhlm,bmhd->blhd", shares, value).reshape(x.shape)
        x = self._add(x, self._dense(c.hidden, "attended")(mixed), "attention_norm", train)
        wide = jax.nn.gelu(self._dense(c.intermediate, "wide")(x), approximate=False)
        return self._add(x, self._dense(c.hidden, "narrow")(wide), "norm", train)

    def _dense(self, size: int, name: str) -> nn.Dense:
        return nn.Dense(size, dtype=self.dtype, kernel_init=INITIAL, name=name)

    def _add(self, x: Array, change: Array, name: str, train: bool) -> Array:
        change = nn.Dropout(self.config.dropout)(change, deterministic=not train)
        return nn.LayerNorm(self.config.epsilon, dtype=self.dtype, name=name)(x + change)


class BertClassifier(nn.Module):
    """The encoder, its pooler (tanh of the first position) and a linear head.

    Attributes:
      config: sizes of the encoder.
      outputs: number of classes; 1 for a regression.
      dtype: of all arithmetic but norms, softmax and head.
    """

    config: BertConfig
    outputs: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Int[Array, "B 2 L"], train: bool) -> Float[Array, "B K"]:
        """Logits, or one score a row."""
        c = self.config
        y = Bert(c, self.dtype, name="encoder")(x, train)
        dense = nn.Dense(c.hidden, dtype=self.dtype, kernel_init=INITIAL, name="pooler")
        y = nn.Dropout(c.dropout)(jnp.tanh(dense(y[:, 0])), deterministic=not train)
        return nn.Dense(self.outputs, kernel_init=INITIAL, name="head")(y.astype(jnp.float32))


def fine_tuned(module: BertClassifier, params: PyTree) -> Network:
    """A network that starts from pretrained weights; what they lack is drawn from N(0, 0.02^2).

    Args:
      module: what is trained.
      params: `encoder`, and `pooler` if the pretrained model has one.

    Returns:
      The network. Call `init` outside of `jit`, which would compile the weights in as constants.
    """
    hidden, outputs = module.config.hidden, module.outputs

    def init(key: Key[Array, ""], x: Array) -> PyTree:
        del x
        key_pooler, key_head = jax.random.split(key)
        fresh = {
            "pooler": _fresh(key_pooler, hidden, hidden),
            "head": _fresh(key_head, hidden, outputs),
        }
        return {"params": {**fresh, **params}}

    return Network(init, from_linen(module).apply)


def _fresh(key: Key[Array, ""], inputs: int, outputs: int) -> PyTree:
    return {"kernel": INITIAL(key, (inputs, outputs)), "bias": jnp.zeros(outputs)}


def _embed(size: int, config: BertConfig, name: str) -> nn.Embed:
    return nn.Embed(size, config.hidden, embedding_init=INITIAL, name=name)
