"""A decoder of the Llama and Qwen2 families: what predicts the next token of a text.

H. Touvron et al., LLaMA, arXiv:2302.13971; A. Yang et al., Qwen2, arXiv:2407.10671. Layers are
normed before (RMSNorm), positions are rotations of queries and keys (J. Su et al.,
arXiv:2104.09864), several query heads share one key head (J. Ainslie et al., arXiv:2305.13245),
the feed-forward part is SwiGLU (N. Shazeer, arXiv:2002.05202). Layers are written out one after
another: a scan over them takes twice the time on a CPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, PyTree

INITIAL = nn.initializers.normal(0.02)


@dataclass(frozen=True)
class LMConfig:
    """Sizes of a decoder; the defaults are those of SmolLM2-135M.

    Attributes:
      vocabulary: number of tokens.
      hidden: width of a position.
      layers: number of blocks.
      heads: of the queries.
      key_heads: of keys and values, a divisor of `heads`.
      head_size: width of a head.
      intermediate: width inside the feed-forward part.
      context: longest input the model was trained on.
      theta: base of the rotations' wave lengths.
      epsilon: of RMSNorm.
      tied: whether the output matrix is that of the embeddings.
      biased: whether queries, keys and values have a bias, as in Qwen2.
      pairs: which components are rotated together, those half a head apart or neighbours; GGUF
        files of the Llama family hold queries and keys permuted for the latter.
    """

    vocabulary: int = 49_152
    hidden: int = 576
    layers: int = 30
    heads: int = 9
    key_heads: int = 3
    head_size: int = 64
    intermediate: int = 1_536
    context: int = 8_192
    theta: float = 100_000.0
    epsilon: float = 1e-5
    tied: bool = True
    biased: bool = False
    pairs: Literal["halves", "neighbours"] = "neighbours"


class Cache(NamedTuple):
    """Keys and values of what has been read, for `S` positions at most.

    Attributes:
      keys: of each layer.
      values: likewise.
      length: how many positions of each row are filled; what lies behind them is never read.
    """

    keys: tuple[Float[Array, "B G S d"], ...]
    values: tuple[Float[Array, "B G S d"], ...]
    length: Int[Array, " B"]


def empty_cache(config: LMConfig, rows: int, size: int, dtype: DTypeLike = jnp.float32) -> Cache:
    """A cache in which nothing has been read.

    Args:
      config: sizes of the decoder.
      rows: how many texts are read side by side.
      size: the most positions of a text.
      dtype: that of the decoder's arithmetic.
    """
    shape = (rows, config.key_heads, size, config.head_size)
    keys, values = (tuple(jnp.zeros(shape, dtype) for _ in range(config.layers)) for _ in range(2))
    return Cache(keys, values, jnp.zeros(rows, jnp.int32))


class LM(nn.Module):
    """The decoder.

    Attributes:
      config: its sizes.
      dtype: of all arithmetic but norms, rotations, softmax and logits.
    """

    config: LMConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        c = self.config
        self.tokens = nn.Embed(c.vocabulary, c.hidden, dtype=self.dtype, embedding_init=INITIAL)
        self.blocks = [Block(c, self.dtype) for _ in range(c.layers)]
        self.norm = nn.RMSNorm(c.epsilon, dtype=jnp.float32)
        if not c.tied:
            self.output = nn.Dense(c.vocabulary, use_bias=False, dtype=self.dtype)

    def __call__(self, x: Int[Array, "B L"]) -> Float[Array, "B L V"]:
        """Logits of the token after each position."""
        return self.logits(self.read(self.embed(x))[0])

    def embed(self, x: Int[Array, "*shape"]) -> Float[Array, "*shape D"]:
        """What stands for tokens at the input; `read` takes other vectors as well."""
        return self.tokens(x)

    def read(
        self, x: Float[Array, "B L D"], cache: Cache | None = None
    ) -> tuple[Float[Array, "B L D"], Cache]:
        """Reads on.

        Args:
          x: embeddings of the next positions.
          cache: what has been read before; None for nothing, and no room beyond `x`.

        Returns:
          The last hidden state, normed, and the cache with these positions in it. A row may be
          filled up at its end with anything, if its `length` is set back afterwards: positions
          never see later ones, and later writes go over them.
        """
        cache = cache or Cache((), (), jnp.zeros(len(x), jnp.int32))
        positions = cache.length[:, None] + jnp.arange(x.shape[1])
        turn = rotation(positions, self.config)
        keys, values = [], []
        for layer, block in enumerate(self.blocks):
            past = (cache.keys[layer], cache.values[layer]) if cache.keys else None
            x, (key, value) = block(x, positions, turn, past)
            keys.append(key)
            values.append(value)
        return self.norm(x), Cache(tuple(keys), tuple(values), cache.length + x.shape[1])

    def logits(self, hidden: Float[Array, "*shape D"]) -> Float[Array, "*shape V"]:
        """Logits of the next token from the last hidden state."""
        hidden = hidden.astype(self.dtype)
        logits = self.tokens.attend(hidden) if self.config.tied else self.output(hidden)
        return logits.astype(jnp.float32)


def run(module: LM, params: PyTree, method: Callable[[Any], Any]) -> Any:
    """What a function of the decoder gives with these weights."""
    return module.apply({"params": params}, method=method)


class Block(nn.Module):
    """Attention and feed-forward, each normed before and added to its input."""

    config: LMConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        positions: Int[Array, "B L"],
        turn: tuple[Array, Array],
        past: tuple[Array, Array] | None,
    ) -> tuple[Float[Array, "B L D"], tuple[Array, Array]]:
        """One layer; also gives keys and values of all positions so far."""
        c = self.config
        y = nn.RMSNorm(c.epsilon, dtype=self.dtype, name="attention_norm")(x)
        query = rotated(self._heads(y, c.heads, "query"), turn, c)
        key = rotated(self._heads(y, c.key_heads, "key"), turn, c)
        value = self._heads(y, c.key_heads, "value")
        if past is not None:
            key, value = _written(past[0], key, positions), _written(past[1], value, positions)
        mixed = attend(query, key, value, positions)
        mixed = jnp.moveaxis(mixed, 1, 2).reshape(*x.shape[:2], -1)
        x = x + self._dense(c.hidden, "attended")(mixed)
        y = nn.RMSNorm(c.epsilon, dtype=self.dtype, name="norm")(x)
        gate, wide = (self._dense(c.intermediate, name)(y) for name in ("gate", "wide"))
        return x + self._dense(c.hidden, "narrow")(nn.silu(gate) * wide), (key, value)

    def _heads(self, x: Array, heads: int, name: str) -> Float[Array, "B H L d"]:
        size = self.config.head_size
        y = self._dense(heads * size, name, bias=self.config.biased)(x)
        return jnp.moveaxis(y.reshape(*x.shape[:2], heads, size), 2, 1)

    def _dense(self, size: int, name: str, bias: bool = False) -> nn.Dense:
        return nn.Dense(size, use_bias=bias, dtype=self.dtype, kernel_init=INITIAL, name=name)


def rotation(
    positions: Int[Array, "B L"], config: LMConfig
) -> tuple[Float[Array, "B 1 L half"], Float[Array, "B 1 L half"]]:
    """Cosine and sine of the angles by which pairs of components turn at each position."""
    half = config.head_size // 2
    waves = config.theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[:, None, :, None].astype(jnp.float32) * waves
    return jnp.cos(angles), jnp.sin(angles)


def rotated(
    x: Float[Array, "B H L d"], turn: tuple[Array, Array], config: LMConfig
) -> Float[Array, "B H L d"]:
    """Queries or keys, each pair of components turned by its angle."""
    cos, sin = turn
    near = config.pairs == "neighbours"
    one, two = (x[..., ::2], x[..., 1::2]) if near else jnp.split(x, 2, axis=-1)
    pair = one * cos - two * sin, one * sin + two * cos
    y = jnp.stack(pair, axis=-1).reshape(x.shape) if near else jnp.concatenate(pair, axis=-1)
    return y.astype(x.dtype)


def attend(
    query: Float[Array, "B H L d"],
    key: Float[Array, "B G S d"],
    value: Float[Array, "B G S d"],
    positions: Int[Array, "B L"],
) -> Float[Array, "B H L d"]:
    """Softmax attention of each position to those up to itself; `H / G` queries share a key."""
    rows, _, length, size = query.shape
    groups = query.reshape(rows, key.shape[1], -1, length, size)
    logits = jnp.einsum("bgrld,bgsd->bgrls", groups, key).astype(jnp.float32) * size**-0.5
    seen = jnp.arange(key.shape[2]) <= positions[..., None]
    logits = jnp.where(seen[:, None, None], logits, -jnp.inf)
    shares = jax.nn.softmax(logits).astype(value.dtype)
    return jnp.einsum("bgrls,bgsd->bgrld", shares, value).reshape(query.shape)


def _written(
    old: Float[Array, "B G S d"], new: Float[Array, "B G L d"], positions: Int[Array, "B L"]
) -> Float[Array, "B G S d"]:
    """Puts keys or values where their positions are."""
    write = jax.vmap(lambda row, part, at: jax.lax.dynamic_update_slice(row, part, (0, at, 0)))
    return write(old, new.astype(old.dtype), positions[:, 0])
