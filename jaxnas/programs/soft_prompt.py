"""Soft prompts: vectors before a prompt, tuned so that a frozen language model writes like examples.

B. Lester, R. Al-Rfou and N. Constant, The Power of Scale for Parameter-Efficient Prompt Tuning,
EMNLP 2021, arXiv:2104.08691; between the rounds of A. Chen, D. M. Dohan and D. R. So, EvoPrompting,
NeurIPS 2023, arXiv:2302.14838: 16 vectors, batches of 16, 5 epochs, learning rate 0.1. That rate is
relative to the size of the vectors, as Adafactor has it; Adam moves each component by it, which is
about as much as the components of SmolLM2's embeddings are large, and wants some 0.02.

What to expect of SmolLM2-135M: 50 steps of Adam at 0.02 on 15 valid programs took the training loss
from 1.28 to 0.36, and of 24 free replies none was valid before or after; 110 steps at a higher rate
gave 4 of 24. So loss and validity are to be reported both.

Example (needs the extra `local` and a model):
    model = load_model()
    tuning = soft_prompt(model, messages=messages)
    state = tuning.tune(tuning.init(key), key, sources)
    client = serve(model, soft_prompt=state.vectors)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jaxnas.llm.decoding import bucket
from jaxnas.llm.pretrained import Model
from jaxnas.llm.tokens import END, chat, encode
from jaxnas.nn.lm import LM, run


class SoftPrompt(NamedTuple):
    """What is tuned.

    Attributes:
      vectors: stand before the embeddings of a prompt.
      losses: of the epochs tuned last, in nats a token; not a number before.
    """

    vectors: Float[Array, "P D"]
    losses: Float[Array, " E"]


class Tuning(NamedTuple):
    """How it is tuned; the first two functions of a `programs.evoprompting.Tuner`.

    Attributes:
      init: `(key) -> state`: embeddings of random tokens.
      tune: `(state, key, sources) -> state`.
    """

    init: Callable[[Key[Array, ""]], SoftPrompt]
    tune: Callable[[SoftPrompt, Key[Array, ""], Sequence[str]], SoftPrompt]


def soft_prompt(
    model: Model,
    *,
    messages: Sequence[Mapping[str, str]] = (),
    length: int = 16,
    batch: int = 16,
    epochs: int = 5,
    context: int = 512,
    together: int = 2,
    optimizer: optax.GradientTransformation | None = None,
) -> Tuning:
    """Tunes a soft prompt on programs.

    Args:
      model: stays as it is.
      messages: what is asked before a program; the loss is of the program alone. None: programs
        stand alone.
      length: number of vectors.
      batch: programs a step.
      epochs: how often each program is seen.
      context: the most tokens of a text; the rest is cut.
      together: programs computed side by side; memory grows with it.
      optimizer: by default Adafactor at the constant rate 0.1.

    Returns:
      The tuner; no sources leave the vectors as they are.

    Raises:
      ValueError: if `together` does not divide `batch`, or by `tune` if the messages fill `context`.
    """
    if batch % together:
        raise ValueError(f"`together` must divide `batch`, but {batch} % {together} is not 0.")
    table = model.params["tokens"]["embedding"]
    update = optimizer or optax.adafactor(0.1)
    step = jax.jit(_stepper(model.module, update, together), donate_argnums=0)

    def init(key: Key[Array, ""]) -> SoftPrompt:
        chosen = jax.random.randint(key, (length,), 0, len(table))
        return SoftPrompt(table[chosen].astype(jnp.float32), jnp.full(epochs, jnp.nan))

    def tune(state: SoftPrompt, key: Key[Array, ""], sources: Sequence[str]) -> SoftPrompt:
        if not sources:
            return state
        examples = _examples(model, messages, sources, context)
        now, losses = (jnp.array(state.vectors), update.init(state.vectors)), []
        for key_epoch in jax.random.split(key, epochs):
            sums = []
            for rows in _batches(key_epoch, len(sources), batch):
                now, loss = step(now, model.params, *(part[rows] for part in examples))
                sums.append(loss)
            losses.append(jnp.stack(sums).mean())
        return SoftPrompt(now[0], jnp.stack(losses))

    return Tuning(init, tune)


def text_loss(
    module: LM,
    params: PyTree,
    vectors: Float[Array, "P D"],
    tokens: Int[Array, "B L"],
    wanted: Bool[Array, "B L"],
) -> Float[Array, ""]:
    """Cross-entropy of the wanted tokens after the vectors, summed, in nats."""

    def logits(module: LM) -> Float[Array, "B L V"]:
        x = module.embed(tokens)
        before = jnp.broadcast_to(vectors.astype(x.dtype), (len(x), *vectors.shape))
        hidden, _ = module.read(jnp.concatenate([before, x], axis=1))
        return module.logits(hidden[:, len(vectors) - 1 : -1])

    scores = run(module, params, logits)
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, tokens)
    return (losses * wanted).sum()


def _stepper(
    module: LM, update: optax.GradientTransformation, together: int
) -> Callable[..., tuple[PyTree, Float[Array, ""]]]:
    """One step; gradients are summed over parts of the batch, since logits are large."""

    def step(
        now: tuple[Array, PyTree],
        params: PyTree,
        tokens: Int[Array, "B L"],
        wanted: Bool[Array, "B L"],
    ) -> tuple[tuple[Array, PyTree], Float[Array, ""]]:
        vectors, memory = now
        parts = jax.tree.map(lambda x: x.reshape(-1, together, x.shape[1]), (tokens, wanted))

        def add(total: PyTree, part: tuple[Array, Array]) -> tuple[PyTree, None]:
            both = jax.value_and_grad(lambda v: text_loss(module, params, v, *part))(vectors)
            return jax.tree.map(jnp.add, total, both), None

        zero = jnp.zeros(()), jnp.zeros_like(vectors)
        total = jax.lax.scan(add, zero, parts)[0]
        loss, gradient = jax.tree.map(lambda x: x / wanted.sum(), total)
        change, memory = update.update(gradient, memory, vectors)
        return (jax.tree.map(jnp.add, vectors, change), memory), loss

    return step


def _examples(
    model: Model, messages: Sequence[Mapping[str, str]], sources: Sequence[str], context: int
) -> tuple[Int[Array, "N L"], Bool[Array, "N L"]]:
    """Tokens of the programs with what is asked before them, and which of them are wanted."""
    before = chat(model.tokens, messages) if messages else []
    if len(before) >= context:
        raise ValueError(f"`messages` has {len(before)} tokens, and `context` is {context}.")
    end = model.tokens.marks[END]
    texts = [[*before, *encode(model.tokens, source), end][:context] for source in sources]
    size = bucket(max(map(len, texts)))
    tokens, wanted = np.zeros((2, len(texts), size), np.int32)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = text
        wanted[row, len(before) : len(text)] = 1
    return jnp.asarray(tokens), jnp.asarray(wanted == 1)


def _batches(key: Key[Array, ""], n: int, batch: int) -> Int[Array, "S batch"]:
    """All examples in random order; the last batch is filled up with the first ones again."""
    order = jax.random.permutation(key, n)
    return jnp.resize(order, (-(-n // batch), batch))
