"""Grammars that a reply must follow, token by token, through `llguidance` (`jaxnas[local]`).

Before each token the grammar says which ones may come next; the sampler draws among those alone.
Grammars are written in GBNF (llama.cpp), which servers take as well, or are JSON schemas. A grammar
makes any model write valid sentences, so how much of that is the model's own doing must be said
beside it: `Reply.forced` counts the tokens that the grammar changed, `validity` compares replies
with and without.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int32

from jaxnas.llm.client import Client, Completion, ModelError, Request
from jaxnas.llm.loops import ask_all
from jaxnas.llm.tokens import Tokens, encode

HOW = "Grammars need the `llguidance` package; pip install 'jaxnas[local]'."


class Validity(NamedTuple):
    """What a grammar does.

    Attributes:
      free: share of valid replies without it.
      constrained: share of valid replies with it.
      forced: share of all tokens that it put in the place of the model's own; not a number if the
        server does not say.
    """

    free: float
    constrained: float
    forced: float


def constrained(client: Client, grammar: str) -> Client:
    """A client whose replies all follow a grammar.

    Args:
      client: what is asked.
      grammar: in GBNF; requests that have a grammar or a schema of their own keep it.
    """

    async def send(request: Request) -> Completion:
        is_free = request.grammar is None and request.schema is None
        return await client.send(request._replace(grammar=grammar) if is_free else request)

    return client._replace(send=send)


def validity(
    client: Client, requests: Sequence[Request], grammar: str, valid: Callable[[str], bool]
) -> Validity:
    """Asks the same with a grammar and without.

    Args:
      client: what is asked.
      requests: what it is asked.
      grammar: in GBNF.
      valid: judges the text of a reply.

    Raises:
      ModelError: if the model does not answer.
      BudgetError: if the budget is spent.
    """
    pairs = [request._replace(grammar=g) for g in (None, grammar) for request in requests]
    done: list[Completion] = []
    for outcome in ask_all(_sent(client, request) for request in pairs):
        if not isinstance(outcome, Completion):
            raise outcome
        done.append(outcome)
    free, bound = done[: len(requests)], done[len(requests) :]
    shares = [
        np.mean([valid(reply.text) for completion in part for reply in completion.replies])
        for part in (free, bound)
    ]
    changed = [np.nan if r.forced is None else r.forced for c in bound for r in c.replies]
    written = sum(c.usage.completion if c.usage else 0 for c in bound)
    return Validity(*map(float, shares), float(np.sum(changed) / max(written, 1)))


async def _sent(client: Client, request: Request) -> Completion:
    return await client.send(request)


def constraint(tokens: Tokens) -> Callable[[Request], Any]:
    """Matchers for the requests of a model.

    Args:
      tokens: its vocabulary.

    Returns:
      A function that gives a fresh `llguidance.LLMatcher` for a request, None if nothing constrains
      it; it raises a `ModelError` where the grammar is none, or the package is missing.
    """
    made: list[Any] = []

    def matcher(request: Request) -> Any:
        if request.grammar is None and request.schema is None:
            return None
        package = _package()
        if not made:
            made.append(_tokenizer(package, tokens))
        found = package.LLMatcher(made[0], _written(package, request))
        if found.is_error():
            raise _refused(found.get_error())
        return found

    return matcher


def allow(matchers: Mapping[int, Any], masks: Int32[np.ndarray, "B W"]) -> None:
    """Writes which tokens may come next, a bit each, into the rows that have a matcher."""
    masks[:] = -1
    for row, matcher in matchers.items():
        import_module("llguidance.numpy").fill_next_token_bitmask(matcher, masks, row)


def _written(package: Any, request: Request) -> str:
    """The grammar as `llguidance` has it."""
    if request.schema is not None:
        # Weak models fill the white space that JSON allows until the reply is full.
        compact = {"x-guidance": {"whitespace_flexible": False}}
        return package.LLMatcher.grammar_from_json_schema(json.dumps({**request.schema, **compact}))
    # A regular grammar becomes one expression, which is followed sign by sign as GBNF means it. Of
    # what stands in the root rule, texts would be read as words, the longest first: where one word
    # begins another, sentences would be lost.
    whole = re.sub(r"(?m)^root(\s*::=)", r"the-whole-reply\1", request.grammar or "")
    try:
        return package.grammar_from("gbnf", f"root ::= the-whole-reply\n{whole}")
    except ValueError as error:
        raise _refused(str(error)) from None


def _tokenizer(package: Any, tokens: Tokens) -> Any:
    """The vocabulary as `llguidance` asks for it."""
    names = {number: name.encode() for name, number in tokens.marks.items()}

    class Vocabulary:
        eos_token_id, bos_token_id = tokens.ends[-1], None
        special_token_ids = sorted(names)

        def __init__(self) -> None:
            self.tokens = [names.get(i, piece) for i, piece in enumerate(tokens.pieces)]

        def __call__(self, text: str) -> list[int]:
            return encode(tokens, text)

    wrapped = package.TokenizerWrapper(Vocabulary())
    return package.LLTokenizer(wrapped, len(tokens.pieces), eos_token=list(tokens.ends))


def _refused(words: str) -> ModelError:
    return ModelError(
        "refused", f"The grammar cannot be used: {words[:400]}", status=400, free=True
    )


def _package() -> Any:
    try:
        return import_module("llguidance")
    except ModuleNotFoundError:
        raise ModelError("refused", HOW, status=501, free=True) from None
