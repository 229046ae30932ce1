"""Any server that speaks OpenAI's chat completions, through the `openai` package (`jaxnas[llm]`).

The package's own retries are off: retries, budgets and ledgers are ours (`attempts`), and see every
attempt. The key is read from the environment variable whose name is configured, when the connection
is made; it is in no record, no repr and no error, also where the server repeats it.

Example:
    >>> from jaxnas.llm import endpoint
    >>> local = endpoint("http://127.0.0.1:8091/v1", "qwen2.5-coder-1.5b")
    >>> cloud = endpoint("https://api.openai.com/v1", "gpt-4o-mini", key_env="OPENAI_API_KEY")
"""

import asyncio
import json
import math
import os
import time
from email.utils import parsedate_to_datetime
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from jaxnas.llm.client import Client, Completion, Kind, ModelError, Reply, Request, Usage
from jaxnas.llm.loops import per_loop

_KINDS: dict[int, Kind] = {408: "timeout", 429: "limited"}


def endpoint(
    base_url: str,
    model: str,
    *,
    key_env: str | None = None,
    timeout: float = 120.0,
    length_field: str = "max_tokens",
    grammar_field: str = "grammar",
) -> Client:
    """A model behind an OpenAI-compatible HTTP interface.

    Args:
      base_url: up to and without `/chat/completions`.
      model: the server's name for it.
      key_env: name of the environment variable that holds the key; None sends no key of yours.
      timeout: seconds one request may take.
      length_field: how the server calls the limit of a reply; some newer models of OpenAI take
        only `max_completion_tokens`.
      grammar_field: how the server calls a grammar in GBNF, a dot for each level: `grammar` in
        llama.cpp, `structured_outputs.grammar` in vLLM (`guided_grammar` in older versions).

    Returns:
      The client. Nothing is sent until it is asked.

    Raises:
      ValueError: if the URL is none or holds a secret, the variable is not set, or the `openai`
        package is not installed.
    """
    host = _host(base_url)
    _key(key_env)
    openai = _package()

    def connect() -> Any:
        # Connections are not kept open, since a loop may end without closing them.
        closing = {"Connection": "close"}
        options = {"max_retries": 0, "timeout": timeout, "default_headers": closing}
        return openai.AsyncOpenAI(base_url=base_url, api_key=_key(key_env), **options)

    connection = per_loop(connect)

    async def send(request: Request) -> Completion:
        create, secret = connection().chat.completions.with_raw_response.create, _key(key_env)
        begin = time.perf_counter()
        try:
            async with asyncio.timeout(timeout):
                answer = (await create(**_body(request, model, length_field, grammar_field))).text
        except TimeoutError:
            failure = ModelError("timeout", f"no reply from {host} in {timeout:g} s")
        except openai.APIError as error:
            failure = _failure(error, host, secret)
        else:
            completion = _completion(answer, model, time.perf_counter() - begin)
            if completion is not None:
                return completion
            start = _redacted(answer, secret)
            failure = ModelError("malformed", f"no completion but {start!r} from {host}")
        # Raised out here, so that no request with its headers comes along as the context.
        raise failure

    return Client(model, send)


def _host(base_url: str) -> str:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("`base_url` must begin with http:// or https:// and name a host.")
    if parts.username or parts.password or parts.query:
        raise ValueError(
            "`base_url` must hold no user, password or query; give a key by the name of an "
            "environment variable, `key_env`."
        )
    return parts.netloc


def _key(key_env: str | None) -> str:
    """The key, from the environment every time it is needed."""
    key = os.environ.get(key_env, "").strip() if key_env else "none"
    if not key or not key.isascii() or not key.isprintable():
        raise ValueError(f"`key_env` names {key_env}, which must be set to a key in ASCII.")
    return key


def _package() -> Any:
    try:
        return import_module("openai")
    except ModuleNotFoundError:
        raise ValueError(
            "An endpoint needs the `openai` package; install it with pip install 'jaxnas[llm]'."
        ) from None


def _body(request: Request, model: str, length_field: str, grammar_field: str) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": list(request.messages),
        "temperature": request.temperature,
        "seed": request.seed,
        "extra_body": {length_field: request.max_tokens, **_nested(grammar_field, request.grammar)},
    }
    if request.n > 1:
        body["n"] = request.n
    if request.stop:
        body["stop"] = list(request.stop)
    if request.schema == {"type": "object"}:
        body["response_format"] = {"type": "json_object"}
    elif request.schema is not None:
        schema = {"name": "reply", "schema": request.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def _nested(field: str, value: str | None) -> dict[str, Any]:
    """A value under a path of names; nothing for None."""
    if value is None:
        return {}
    first, _, rest = field.partition(".")
    return {first: _nested(rest, value) if rest else value}


def _completion(answer: str, model: str, latency: float) -> Completion | None:
    """What a server answered; None if that is no completion."""
    try:
        fields = json.loads(answer)
        replies = tuple(_reply(choice) for choice in fields["choices"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    named = fields.get("model")
    named = named if isinstance(named, str) else model
    return Completion(replies, _usage(fields.get("usage")), named, latency) if replies else None


def _reply(choice: dict[str, Any]) -> Reply:
    text, finish = choice["message"].get("content") or "", choice.get("finish_reason")
    # Half of a surrogate pair is valid JSON and can be neither stored nor sent.
    whole = text.encode("utf-8", "replace").decode()
    return Reply(whole, finish if isinstance(finish, str) else "unknown")


def _usage(said: Any) -> Usage | None:
    counts = (
        [said.get(f"{part}_tokens") for part in Usage._fields] if isinstance(said, dict) else []
    )
    sound = [c for c in counts if isinstance(c, int) and not isinstance(c, bool) and c >= 0]
    return Usage(*sound) if len(sound) == 2 else None


def _failure(error: Any, host: str, key: str) -> ModelError:
    """Translates an error of the `openai` package."""
    status, cause = getattr(error, "status_code", None), type(error.__cause__).__name__
    if status is None:
        late = "Timeout" in type(error).__name__
        # A connection that never stood has generated nothing.
        words, free = f"no reply from {host} ({cause})", cause.startswith("Connect")
        return ModelError("timeout" if late else "connection", words, free=free)
    kind = _KINDS.get(status, "server" if status >= 500 else "refused")
    wait = _seconds(error.response.headers.get("retry-after", ""))
    words = f"{host}: {_redacted(str(error), key)}"
    # Behind a gateway that gave up (504) the model may have gone on.
    return ModelError(kind, words, status=status, retry_after=wait, free=status != 504)


def _redacted(text: str, key: str) -> str:
    return text.replace(key, "***")[:500] if key != "none" else text[:500]


def _seconds(header: str) -> float | None:
    """The wait a `Retry-After` header asks for: a number of seconds, or a date."""
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None
