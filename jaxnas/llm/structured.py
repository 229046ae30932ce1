r"""Replies that fit a JSON schema, by the strictest means the server has.

Three rungs: the server constrains the reply to the schema; it constrains it to be JSON; it is only
asked nicely, and the JSON is looked for in what it says. On the lower two the schema is written
into the prompt. A rung that the server refuses (400, 404, 422, 501) while it answers on a lower one
is not tried again, and the first requests wait for one another, so that it is refused once.

Example:
    >>> from jaxnas.llm import ask_all, scripted, structured
    >>> client = structured(scripted(["Sure:\n```json\n{\"layers\": 3}\n```"]))
    >>> schema = {"type": "object", "required": ["layers"]}
    >>> question = [{"role": "user", "content": "How many layers?"}]
    >>> (completion,) = ask_all([client.complete(question, schema=schema)])
    >>> completion.replies[0].parsed
    {'layers': 3}
"""

import asyncio
import json
import re
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from jaxnas.llm.client import Client, Completion, ModelError, Reply, Request
from jaxnas.llm.loops import per_loop

_REFUSALS = (400, 404, 422, 501)
_STARTS = 200  # brackets in a reply at which JSON may begin, so that no reply takes long
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


def structured(client: Client) -> Client:
    """Fills `Reply.parsed` of requests that have a schema.

    Args:
      client: what is asked.

    Returns:
      The client. `parsed` is None where no JSON value that fits was found; type, enum, required,
      properties and items of the schema are checked here, what else it says only by the server.
    """
    rung, settled = 0, False
    first = per_loop(asyncio.Lock)

    async def climb(request: Request) -> Completion:
        nonlocal rung, settled
        for lower in range(rung, len(_RUNGS)):
            try:
                done = await client.send(_RUNGS[lower](request))
            except ModelError as error:
                if error.status not in _REFUSALS or lower == len(_RUNGS) - 1:
                    raise
            else:
                rung, settled = max(rung, lower), True
                return done
        raise AssertionError("the lowest rung answers or raises")

    async def send(request: Request) -> Completion:
        schema = request.schema
        if schema is None:
            return await client.send(request)
        async with nullcontext() if settled else first():
            done = await climb(request)
        replies = (reply._replace(parsed=_fitting(reply, schema)) for reply in done.replies)
        return done._replace(replies=tuple(replies))

    return client._replace(send=send)


def _as_json(request: Request) -> Request:
    return _in_words(request)._replace(schema={"type": "object"})


def _in_words(request: Request) -> Request:
    *before, last = request.messages
    schema = json.dumps(request.schema, separators=(",", ":"))
    words = f"{last['content']}\n\nAnswer with nothing but JSON that fits this schema:\n{schema}"
    return request._replace(messages=(*before, {**last, "content": words}), schema=None)


_RUNGS = (lambda request: request, _as_json, _in_words)


def _fitting(reply: Reply, schema: Mapping[str, Any]) -> Any:
    return next((value for value in values(reply.text) if not misfit(value, schema)), None)


def values(text: str) -> list[Any]:
    """The text itself as JSON, or the objects and arrays in it, outermost ones only."""
    try:
        return [json.loads(text)]
    except (ValueError, RecursionError):
        found, at, decoder = [], 0, json.JSONDecoder()
    for _ in range(_STARTS):
        start = re.compile(r"[{[]").search(text, at)
        if start is None:
            break
        try:
            value, at = decoder.raw_decode(text, start.start())
            found.append(value)
        except (ValueError, RecursionError):
            at = start.end()
    return found


def misfit(value: Any, schema: Mapping[str, Any], path: str = "$") -> str | None:
    """Says where a value does not fit a schema, as far as it is checked here; None if it fits."""
    kinds = schema.get("type", list(_TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    allowed = tuple(kind for name in kinds for kind in _TYPES.get(name, (object,)))
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        return f"{path} must be of type {' or '.join(kinds)}"
    if value not in schema.get("enum", [value]):
        return f"{path} must be one of {schema['enum']}"
    if isinstance(value, dict):
        missing = [name for name in schema.get("required", ()) if name not in value]
        parts = schema.get("properties", {})
        inner = [misfit(value[k], parts[k], f"{path}.{k}") for k in parts if k in value]
        inner += [f"{path}.{name} is missing" for name in missing]
    else:
        of = schema.get("items", {}) if isinstance(value, list) else {}
        items = value if isinstance(value, list) else ()
        inner = [misfit(item, of, f"{path}[{i}]") for i, item in enumerate(items)]
    return next(filter(None, inner), None)
