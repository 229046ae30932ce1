"""The parts of a reply: fenced blocks and what stands around them, cleaned of a model's habits.

Nothing is thrown away here: a fence that is never closed runs to the end, text before a lone fence
stays, and each part knows whether the reply simply ended there.
"""

import re
import textwrap
from collections.abc import Iterator
from typing import NamedTuple

_FENCE = re.compile(r"^[ \t>]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^`\n]*$")
_THOUGHT = re.compile(r"\A.*</think(?:ing)?>|\A\s*<think(?:ing)?>.*", re.DOTALL)
_SPECIAL = re.compile(r"<\|[\w ]+\|>|</?s>|<\uff5c[^>\n]*\uff5c>")
_INVISIBLE = dict.fromkeys(map(ord, "\ufeff\u200b\u200c\u200d\u2060\x00"))
_PYTHON = {"", "python", "py", "python3", "py3", "pycon", "ipython", "jax", "flax", "code"}
_PYTHON |= {"text", "txt", "plaintext"}


class Part(NamedTuple):
    """A fenced block, or text outside of one.

    Attributes:
      text: its lines.
      fenced: whether it stood in a fence.
      open: whether the reply ended in it, so that more may have been to come.
    """

    text: str
    fenced: bool
    open: bool


def parts(text: str) -> list[Part]:
    """Splits a reply; blocks marked as another language than Python are left out."""
    found = [part for part, language in _split(clean(text)) if language.lower() in _PYTHON]
    return [part for part in found if part.text.strip()]


def clean(text: str) -> str:
    """Drops thoughts, special tokens and invisible characters; one kind of line break and space."""
    text = _SPECIAL.sub("\n", _THOUGHT.sub("", text)).translate(_INVISIBLE)
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\u00a0", " ").expandtabs(4)


def _split(text: str) -> Iterator[tuple[Part, str]]:
    lines: list[str] = []
    fence = language = ""
    for line in text.rstrip().split("\n"):
        mark = _FENCE.match(line)
        closes = mark and mark[1][:1] == fence[:1] and len(mark[1]) >= len(fence) and not mark[2]
        # A fence with a language inside another one: the first was never closed.
        if mark and (not fence or closes or (mark[2] and mark[1] == fence)):
            yield Part("\n".join(lines), bool(fence), open=False), language
            lines = []
            fence, language = ("", "") if closes else (mark[1], mark[2])
        else:
            lines.append(line)
    yield Part("\n".join(lines), bool(fence), open=True), language


def layouts(text: str) -> Iterator[str]:
    """A part as it is and with the indentation mended in the ways replies have it wrong."""
    yield text
    yield textwrap.dedent(text)
    first, _, rest = text.strip("\n").partition("\n")
    yield f"{first.lstrip()}\n{textwrap.dedent(rest)}"  # only the first line lost its indent
    prompts = re.sub(r"^(>>> |\.\.\. |\.\.\.$|> )", "", textwrap.dedent(text), flags=re.MULTILINE)
    yield prompts
