"""What a language model is to the rest of the house: something that completes a request.

Example:
    >>> from jaxnas.llm import ask_all, scripted
    >>> client = scripted(["class Model: ..."])
    >>> question = [{"role": "user", "content": "Improve it."}]
    >>> (completion,) = ask_all([client.complete(question, n=1, temperature=0.6, seed=7)])
    >>> completion.replies[0].text
    'class Model: ...'
"""

import hashlib
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

Kind = Literal["refused", "limited", "server", "timeout", "connection", "malformed"]


class Request(NamedTuple):
    """Everything a reply depends on, apart from the model.

    Attributes:
      messages: the dialogue, each message a mapping with `role` and `content`.
      n: how many replies.
      temperature: of the sampling, 0 for the most likely reply.
      max_tokens: the most tokens one reply may have.
      seed: of the sampling, where the model takes one; also tells equal requests apart in records.
      schema: the JSON schema a reply shall fit; `{"type": "object"}` asks for any JSON object.
      stop: texts before which a reply ends.
      grammar: the grammar in GBNF whose sentences replies are; not together with `schema`.
    """

    messages: tuple[Mapping[str, str], ...]
    n: int = 1
    temperature: float = 1.0
    max_tokens: int = 512
    seed: int = 0
    schema: Mapping[str, Any] | None = None
    stop: tuple[str, ...] = ()
    grammar: str | None = None


class Usage(NamedTuple):
    """Tokens of one request.

    Attributes:
      prompt: read.
      completion: written, over all replies.
    """

    prompt: int
    completion: int


class Reply(NamedTuple):
    """One sample.

    Attributes:
      text: what the model wrote.
      finish: why it ended: `stop`, `length` (cut at `max_tokens`) or another word of the server's.
      parsed: the JSON value in `text` that fits the schema; None without one (`structured`).
      forced: how many of its tokens a grammar or schema put in the place of those the model would
        have written there; None where the server does not say, or nothing constrained it.
    """

    text: str
    finish: str = "stop"
    parsed: Any = None
    forced: int | None = None


class Completion(NamedTuple):
    """The answer to one request.

    Attributes:
      replies: at most the `n` asked for; some servers give fewer, or refuse more than one.
      usage: None if the server does not say.
      model: the model that answered, by the server's name for it.
      latency: seconds from sending to the last token.
    """

    replies: tuple[Reply, ...]
    usage: Usage | None
    model: str
    latency: float


class Client(NamedTuple):
    """A model that can be asked; wrappers replace `send` and keep the rest.

    Attributes:
      model: the model as configured; recordings are kept by it.
      send: answers one request, or raises `ModelError`.
    """

    model: str
    send: Callable[[Request], Awaitable[Completion]]

    async def complete(
        self,
        messages: Sequence[Mapping[str, str]],
        *,
        n: int = 1,
        temperature: float = 1.0,
        max_tokens: int = 512,
        seed: int = 0,
        schema: Mapping[str, Any] | None = None,
        stop: Sequence[str] = (),
        grammar: str | None = None,
    ) -> Completion:
        """Asks for `n` replies; the arguments are those of `Request`.

        Raises:
          ModelError: if the model does not answer.
          ValueError: if an argument is out of range.
        """
        for name, value, least in (("n", n, 1), ("max_tokens", max_tokens, 1), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"`{name}` must be at least {least}, but got {value}.")
        if not 0 <= temperature < math.inf:
            raise ValueError(f"`temperature` must be finite and not negative, not {temperature}.")
        if not messages or not all({"role", "content"} <= set(m) for m in messages):
            raise ValueError(f"`messages` must each have `role` and `content`, but got {messages}.")
        if schema is not None and grammar is not None:
            raise ValueError("`schema` and `grammar` exclude each other; give one of them.")
        plain = tuple(dict(message) for message in messages)
        rest = int(n), float(temperature), int(max_tokens), int(seed), schema, tuple(stop), grammar
        return await self.send(Request(plain, *rest))


class ModelError(ValueError):
    """The model did not answer.

    Attributes:
      kind: `refused` (the server will not have this request), `limited` (too many at a time),
        `server` (its own failure), `timeout`, `connection`, `malformed` (no completion came back).
      status: the HTTP status, if there was one.
      retry_after: seconds the server asks to wait, if it does.
      free: nothing was generated, so nothing is billed.
    """

    def __init__(
        self,
        kind: Kind,
        message: str,
        *,
        status: int | None = None,
        retry_after: float | None = None,
        free: bool = False,
    ) -> None:
        super().__init__(message)
        self.kind: Kind = kind
        self.status = status
        self.retry_after = retry_after
        self.free = free

    def again(self, message: str | None = None) -> "ModelError":
        """The same error anew, without the frames the first one holds on to."""
        new = ModelError(self.kind, message or str(self), status=self.status, free=self.free)
        new.retry_after = self.retry_after
        return new


def canonical(model: str, request: Request) -> dict[str, Any]:
    """A request and its model as plain values; what is not set is left out."""
    fields = {name: value for name, value in request._asdict().items() if value not in (None, ())}
    return {"model": model, **fields}


def request_key(model: str, request: Request) -> str:
    """The content address of a request, by which recordings and ledgers know it."""
    return digest(canonical(model, request))


def digest(value: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of plain values, 64 hexadecimal digits."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
