r"""Replies that fit a JSON schema, by the strictest means the server has.

Three rungs: the server constrains the reply to the schema; it constrains it to be JSON; it is only
asked nicely, and the JSON is looked for in what it says, fenced or not. On the lower two the schema
is written into the prompt. A rung that the server refuses (400, 404, 422, 501) while it answers on a
lower one is not tried again, and the first requests wait for one another, so that it is refused
once. The last rung is a second chance: a reply that does not fit is shown to the model again, with
where it does not, and what the model then says counts.

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
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from jaxnas.llm.client import Client, Completion, ModelError, Reply, Request, Usage
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
Send = Callable[[Request], Awaitable[Completion]]
_LENGTHS = {str: {"minLength": "maxLength"}, list: {"minItems": "maxItems"}}
KNOWN = {"type", "enum", "const", "pattern", "anyOf", "properties", "required", "items"}
KNOWN |= {"additionalProperties", "minimum", "maximum", "minLength", "maxLength"}
KNOWN |= {"minItems", "maxItems"}
_NOTES = {"$schema", "title", "description", "default", "examples"}


def structured(client: Client) -> Client:
    """Fills `Reply.parsed` of requests that have a schema.

    Args:
      client: what is asked.

    Returns:
      The client. `parsed` is None where no JSON value that fits was found, in the second reply
      either; usage and latency are those of both. Its `send` raises a `ValueError` for a schema
      with words that `misfit` does not know.
    """
    ask = _by_strictest(client)

    async def send(request: Request) -> Completion:
        if request.schema is None:
            return await client.send(request)
        _refuse_unknown(request.schema)
        done = await ask(request)
        return _joined(
            done, await asyncio.gather(*(_mended(ask, request, r) for r in done.replies))
        )

    return client._replace(send=send)


def _by_strictest(client: Client) -> Send:
    """Sends requests by the strictest means that the server has, of which it keeps account."""
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

    async def ask(request: Request) -> Completion:
        async with nullcontext() if settled else first():
            return await climb(request)

    return ask


async def _mended(ask: Send, request: Request, reply: Reply) -> tuple[Reply, Completion | None]:
    """A reply with what was parsed, and the call that it took if there was one."""
    schema = request.schema or {}
    wrong, value = _read(reply.text, schema)
    if not wrong:
        return reply._replace(parsed=value), None
    try:
        again = await ask(_with_objection(request, reply.text, wrong))
    except ModelError:  # the first reply is paid for
        return reply, None
    second = again.replies[0]
    return second._replace(parsed=_read(second.text, schema)[1]), again


def _joined(done: Completion, pairs: Sequence[tuple[Reply, Completion | None]]) -> Completion:
    """A completion with its replies mended."""
    more = [again for _, again in pairs if again]
    usages = [each.usage for each in (done, *more)]
    known = [usage for usage in usages if usage]
    return done._replace(
        replies=tuple(reply for reply, _ in pairs),
        usage=Usage(*map(sum, zip(*known, strict=True))) if len(known) == len(usages) else None,
        latency=done.latency + max((again.latency for again in more), default=0.0),
    )


def _with_objection(request: Request, text: str, wrong: str) -> Request:
    said = [
        {"role": "assistant", "content": text},
        {"role": "user", "content": f"That does not fit: {wrong}. Answer again, mended."},
    ]
    return request._replace(messages=(*request.messages, *said), n=1)


def _as_json(request: Request) -> Request:
    return _in_words(request)._replace(schema={"type": "object"})


def _in_words(request: Request) -> Request:
    *before, last = request.messages
    schema = json.dumps(request.schema, separators=(",", ":"))
    words = f"{last['content']}\n\nAnswer with nothing but JSON that fits this schema:\n{schema}"
    return request._replace(messages=(*before, {**last, "content": words}), schema=None)


_RUNGS = (lambda request: request, _as_json, _in_words)


def _read(text: str, schema: Mapping[str, Any]) -> tuple[str | None, Any]:
    """What is wrong with a reply, if anything is, and the first value in it that fits."""
    found = values(text)
    objections = [misfit(value, schema) for value in found]
    fitting = [value for value, wrong in zip(found, objections, strict=True) if not wrong]
    if fitting:
        return None, fitting[0]
    return next(iter(objections), "there is no JSON in it"), None


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
    """Says where a value does not fit a schema; None if it fits.

    Args:
      value: of JSON.
      schema: with the words of `KNOWN`; others are passed over. A whole number with a decimal point
        is no `integer` here.
      path: of the value, for the message.
    """
    checks = (_of_type, _as_said, _in_bounds, _by_parts)
    return next(filter(None, (check(value, schema, path) for check in checks)), None)


def _of_type(value: Any, schema: Mapping[str, Any], path: str) -> str | None:
    kinds = schema.get("type", list(_TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    allowed = tuple(kind for name in kinds for kind in _TYPES[name])
    if isinstance(value, allowed) and (not isinstance(value, bool) or bool in allowed):
        return None
    return f"{path} must be of type {' or '.join(kinds)}"


def _as_said(value: Any, schema: Mapping[str, Any], path: str) -> str | None:
    chosen = [schema["const"]] if "const" in schema else schema.get("enum", [value])
    if not any(type(value) is type(one) and value == one for one in chosen):
        return f"{path} must be one of {chosen}"
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return f"{path} must match {schema['pattern']}"
    wrong = [misfit(value, form, path) for form in schema.get("anyOf", ())]
    return " or ".join(map(str, wrong)) if wrong and all(wrong) else None


def _in_bounds(value: Any, schema: Mapping[str, Any], path: str) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    size = value if number else len(value) if isinstance(value, str | list) else 0
    words = {"minimum": "maximum"} if number else _LENGTHS.get(type(value), {})
    for least, most in words.items():
        if size < schema.get(least, size) or size > schema.get(most, size):
            bounds = {word: schema[word] for word in (least, most) if word in schema}
            return f"{path} must have {bounds}"
    return None


def _by_parts(value: Any, schema: Mapping[str, Any], path: str) -> str | None:
    if isinstance(value, list):
        of = schema.get("items", {})
        inner = [misfit(item, of, f"{path}[{i}]") for i, item in enumerate(value)]
    elif isinstance(value, dict):
        parts, more = schema.get("properties", {}), schema.get("additionalProperties", True)
        inner = [misfit(value[k], parts[k], f"{path}.{k}") for k in parts if k in value]
        inner += [f"{path}.{k} is missing" for k in schema.get("required", ()) if k not in value]
        inner += [f"{path}.{k} is not wanted" for k in value if k not in parts and not more]
    else:
        return None
    return next(filter(None, inner), None)


def _refuse_unknown(schema: Mapping[str, Any]) -> None:
    """Raises a `ValueError` for a schema that says more than `misfit` can check."""
    unknown = sorted(set(schema) - KNOWN - _NOTES)
    if unknown or not isinstance(schema.get("additionalProperties", True), bool):
        raise ValueError(
            f"`schema` may have {', '.join(sorted(KNOWN))}, `additionalProperties` as a truth value, "
            f"but got {', '.join(unknown) or schema['additionalProperties']}."
        )
    inner = [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
    for part in [*inner, schema["items"]] if "items" in schema else inner:
        _refuse_unknown(part)
