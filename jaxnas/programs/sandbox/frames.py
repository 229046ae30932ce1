"""Messages over a pipe: two lengths, a JSON header, raw bytes. Never pickle.

What comes from a sandbox may be anything, so lengths are checked before memory is taken, and
everything that is no message raises one error, `FrameError`.
"""

import json
import os
import select
import struct
import time
from typing import Any

HEAD = struct.Struct("!4sII")  # mark, bytes of the header, bytes of what follows
MARK = b"jxn1"
HEADER = 256 << 10  # bytes a header may have


class FrameError(ValueError):
    """What came is no message."""


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """A message as bytes."""
    text = json.dumps(header, ensure_ascii=False).encode("utf-8", "surrogatepass")
    return HEAD.pack(MARK, len(text), len(body)) + text + body


def unpack(data: bytes, most: int) -> tuple[dict[str, Any], bytes]:
    """Header and body of a whole message.

    Args:
      data: exactly one message.
      most: bytes the body may have.

    Raises:
      FrameError: if it is anything else.
    """
    text, body = lengths(data, most)
    if len(data) != HEAD.size + text + body:
        raise FrameError(f"a message of {text + body} bytes has {len(data) - HEAD.size}.")
    return _header(data[HEAD.size : HEAD.size + text]), data[HEAD.size + text :]


def lengths(data: bytes, most: int) -> tuple[int, int]:
    """The lengths of header and body that a message begins with."""
    if len(data) < HEAD.size:
        raise FrameError(f"a message has {len(data)} bytes.")
    mark, text, body = HEAD.unpack(data[: HEAD.size])
    if mark != MARK or text > HEADER or body > most:
        raise FrameError("what came is no message, or is too long.")
    return text, body


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"a header is no JSON: {error}") from None
    if not isinstance(header, dict):
        raise FrameError("a header is no object.")
    return header


def send(file: int, header: dict[str, Any], body: bytes = b"") -> None:
    """Writes a message whole to a file descriptor."""
    left = memoryview(pack(header, body))
    while left:
        left = left[os.write(file, left) :]


def receive(
    file: int, most: int, deadline: float | None = None
) -> tuple[dict[str, Any], bytes] | None:
    """Reads one message.

    Args:
      file: descriptor of a pipe.
      most: bytes the body may have.
      deadline: on the clock of `time.monotonic`.

    Returns:
      Header and body, None at the end of the pipe.

    Raises:
      FrameError: if what comes is no message.
      TimeoutError: at the deadline.
    """
    head = _read(file, HEAD.size, deadline)
    if not head:
        return None
    rest = _read(file, sum(lengths(head, most)), deadline)
    return unpack(head + rest, most)


def _read(file: int, count: int, deadline: float | None) -> bytes:
    """So many bytes, or fewer at the end of the pipe."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    parts: list[bytes] = []
    while count:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not poll.poll(None if left is None else left * 1000):
            raise TimeoutError
        part = os.read(file, min(count, 1 << 20))
        if not part:
            break
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
