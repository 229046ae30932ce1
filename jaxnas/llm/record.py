"""Recordings of replies: a run is repeated without its model, and nothing is asked twice.

A recording is a file of JSON lines that only grows. Each entry lies under the SHA-256 of what the
reply depends on: model, messages, number, temperature, length, seed, schema, stops, grammar. `record` looks
there before it asks; `replay` only looks. Equal requests asked at the same time are sent once, and
of several processes that write one file the first to answer wins, so that all of them go on with
the reply a replay will give. A line cut off by a kill is read over. Failures are written too, and
where a budget was spent: a replay fails and ends as the run did, while `record` asks again. Keys are
no part of a request, so no recording holds one.

Example:
    >>> import tempfile
    >>> from jaxnas.llm import ask_all, record, replay, scripted
    >>> path = tempfile.mkdtemp() + "/replies.jsonl"
    >>> question = [{"role": "user", "content": "A number?"}]
    >>> (first,) = ask_all([record(scripted(["17"]), path).complete(question)])
    >>> (again,) = ask_all([replay(path).complete(question)])
    >>> again == first, again.replies[0].text
    (True, '17')
"""

import asyncio
import fcntl
import json
import os
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from jaxnas.llm.budget import BudgetError
from jaxnas.llm.client import (
    Client,
    Completion,
    ModelError,
    Reply,
    Request,
    Usage,
    canonical,
    digest,
    request_key,
)
from jaxnas.llm.loops import Outcome

BEGINS = b'{"key": '  # every entry, so that what was torn can be told from another file


class MissError(ValueError):
    """A recording does not hold the request."""


def record(client: Client, path: Path | str) -> Client:
    """Answers from a recording what stands there, and adds the rest.

    Args:
      client: what is asked, its budget and its retries included (`Budget.guard`, `attempts`): so a
        reply that is kept is not paid again, and a replay ends where the budget did.
      path: the recording; it and its folder are made where they do not exist.

    Returns:
      The client.

    Raises:
      ValueError: if the file is no recording.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    book = _Book(path)
    busy: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def send(request: Request) -> Completion:
        key = request_key(client.model, request)
        lock = busy.setdefault(key, asyncio.Lock())
        async with lock:
            found = book.find(key)
            if isinstance(found, Completion):
                return found
            try:
                done: Outcome = await client.send(request)
            except (ModelError, BudgetError) as error:
                done = error
            kept = book.add(key, canonical(client.model, request), done)
        return _said(kept)

    return client._replace(send=send)


def replay(path: Path | str, model: str | None = None) -> Client:
    """A client that knows a recording and nothing else.

    Args:
      path: the recording.
      model: whose replies; may be left out where the recording has but one model.

    Returns:
      The client; its `send` raises what the recorded one did, and `MissError` for a request that was
      never recorded.

    Raises:
      ValueError: if the file is no recording, or `model` is needed or not in it.
    """
    path = Path(path)
    book = _Book(path)
    if model is None and len(book.models) == 1:
        (model,) = book.models
    if not book.models:
        raise ValueError(f"`path` must be a recording with replies, but {path} holds none.")
    if model not in book.models:
        raise ValueError(
            f"`model` must be one of those recorded in {path}, {sorted(book.models)}, but got "
            f"{model!r}."
        )

    async def send(request: Request) -> Completion:
        found = book.find(request_key(model, request))
        if found is None:
            raise MissError(
                f"{path} has no reply of {model!r} to the request that begins "
                f"{request.messages[-1]['content'][:60]!r} (n={request.n}, seed={request.seed}, "
                f"temperature={request.temperature}): code, settings or seed are not those of the "
                f"recorded run, or it was stopped before; record it again, or to its end."
            )
        return _said(found)

    return Client(model, send)


def first_request(path: Path | str) -> dict[str, Any]:
    """The oldest request of a recording as plain values, see `client.canonical`; empty if none is.

    Args:
      path: the recording.

    Raises:
      ValueError: if the file is no recording.
    """
    return _Book(Path(path)).first


class _Book:
    """The entries of a recording by key, read as far as the file reached."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.models: set[str] = set()
        self.first: dict[str, Any] = {}
        self._entries: dict[str, Outcome] = {}
        self._read = 0
        self._refresh()

    def find(self, key: str) -> Outcome | None:
        """What lies under a key, reading what others have added only if nothing does."""
        if not isinstance(self._entries.get(key), Completion):
            self._refresh()
        return self._entries.get(key)

    def add(self, key: str, request: dict[str, Any], done: Outcome) -> Outcome:
        """Adds an entry, unless another process has a reply there; returns what then stands."""
        line = json.dumps({"key": key, "request": request, **_plain(done)}).encode() + b"\n"
        with open(self.path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._refresh()
            found = self._entries.get(key)
            if isinstance(found, Completion):
                return found
            end = file.seek(0, os.SEEK_END)
            torn = end > self._read  # a writer was killed in the middle of its line
            file.write(b"\n" + line if torn else line)
        self._refresh()
        return self._entries[key]

    def _refresh(self) -> None:
        with open(self.path, "rb") as file:
            file.seek(self._read)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in filter(None, whole.split(b"\n")):
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            if BEGINS.startswith(line.strip(b"\0")[: len(BEGINS)]):
                return  # torn, then mended by a line break
            entry = {}
        try:
            request, key, done = entry["request"], entry["key"], _entry(entry)
        except (TypeError, KeyError) as error:
            raise ValueError(
                f"`path` must be a recording, but {self.path} has the line {line[:80]!r}."
            ) from error
        if digest(request) != key:
            raise ValueError(f"{self.path} was edited: the request under {key} is another one.")
        self.first = self.first or request
        self.models.add(request["model"])
        if not isinstance(self._entries.get(key), Completion):
            self._entries[key] = done


def _said(kept: Outcome) -> Completion:
    if isinstance(kept, Completion):
        return kept
    raise kept.again()


def _plain(done: Outcome) -> dict[str, Any]:
    if isinstance(done, ModelError):
        return {"error": {**vars(done), "message": str(done)}}
    if isinstance(done, BudgetError):
        return {"spent": vars(done)}
    replies = [_written(reply) for reply in done.replies]
    usage = done.usage and done.usage._asdict()
    rest = {"usage": usage, "model": done.model, "latency": done.latency}
    return {"completion": {"replies": replies, **rest}}


def _written(reply: Reply) -> dict[str, Any]:
    forced = {} if reply.forced is None else {"forced": reply.forced}
    return {"text": reply.text, "finish": reply.finish, **forced}


def _entry(entry: dict[str, Any]) -> Outcome:
    if "error" in entry:
        return ModelError(**entry["error"])
    if "spent" in entry:
        return BudgetError(**entry["spent"])
    done = entry["completion"]
    replies = tuple(Reply(**reply) for reply in done["replies"])
    usage = done["usage"] and Usage(**done["usage"])
    return Completion(replies, usage, done["model"], done["latency"])
