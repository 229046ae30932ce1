"""The tokenizer and the chat format of a GGUF file.

Byte-level BPE with the merges of the file, run by the package `tokenizers` (`jaxnas[local]`). What
stands in a message is text: a mark such as `<|im_end|>` written there is nine signs and no mark.
Chats are written in ChatML, the format of SmolLM2 and Qwen2; files with another one are refused.
"""

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from jaxnas.data.gguf_files import GgufFile

BEGIN, END = "<|im_start|>", "<|im_end|>"
# How text is cut before it is merged, by `tokenizer.ggml.pre`: digits one by one, then words.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CUTS = ("smollm", "qwen2", "gpt-2")
NORMAL, USER = 1, 4  # of `tokenizer.ggml.token_type`; what is neither is a mark


class Tokens(NamedTuple):
    """A vocabulary.

    Attributes:
      bpe: the `tokenizers.Tokenizer`.
      pieces: the bytes of every token; none for marks.
      marks: numbers of the tokens that no text holds, by how they are written.
      ends: numbers of the tokens that end a reply.
      system: what the chat format says where a chat has no system message; empty for nothing.
    """

    bpe: Any
    pieces: tuple[bytes, ...]
    marks: dict[str, int]
    ends: tuple[int, ...]
    system: str


def load_tokens(file: GgufFile) -> Tokens:
    """The tokenizer of a file.

    Args:
      file: from `data.gguf_files.read_gguf`.

    Raises:
      ValueError: if it is no byte-level BPE known here, its chats are not in ChatML, or the package
        `tokenizers` is missing.
    """
    fields = {k.removeprefix("tokenizer."): v for k, v in file.fields.items()}
    cut, template = fields.get("ggml.pre"), fields.get("chat_template", "")
    if fields.get("ggml.model") != "gpt2" or cut not in CUTS:
        raise ValueError(f"`tokenizer.ggml.pre` must be one of {CUTS} of a BPE, but is {cut!r}.")
    if BEGIN not in template:
        raise ValueError(f"Its chat format must be ChatML with {BEGIN}, but is {template[:60]!r}.")
    words, kinds = fields["ggml.tokens"], fields["ggml.token_type"]
    marks = {w: i for i, (w, k) in enumerate(zip(words, kinds, strict=True)) if _is_mark(k)}
    users = [w for w, k in zip(words, kinds, strict=True) if k == USER]
    if not {BEGIN, END} <= marks.keys():
        raise ValueError(f"{BEGIN} and {END} must be tokens of their own.")
    ends = {marks[END], fields["ggml.eos_token_id"], marks.get("<|endoftext|>", marks[END])}
    system = re.search(r"<\|im_start\|>system(?:\n|\\n)([^'\"{}<]+)<\|im_end\|>", template)
    pieces = tuple(_bytes(w, k) for w, k in zip(words, kinds, strict=True))
    bpe = _bpe(words, fields["ggml.merges"], cut, users)
    return Tokens(bpe, pieces, marks, tuple(sorted(ends)), system[1] if system else "")


def encode(tokens: Tokens, text: str) -> list[int]:
    """The tokens of a text."""
    return tokens.bpe.encode(text, add_special_tokens=False).ids


def decode(tokens: Tokens, numbers: Sequence[int]) -> str:
    """The text of tokens; bytes that are no UTF-8 are replaced."""
    return b"".join(tokens.pieces[i] for i in numbers).decode("utf-8", "replace")


def chat(tokens: Tokens, messages: Sequence[Mapping[str, str]]) -> list[int]:
    """The tokens of a dialogue up to where the model goes on.

    Args:
      tokens: the vocabulary.
      messages: with `role` and `content`. If the last is the assistant's, the reply continues it.
    """
    spoken = [(message["role"], message["content"]) for message in messages]
    if tokens.system and spoken[0][0] != "system":
        spoken.insert(0, ("system", tokens.system))
    if spoken[-1][0] != "assistant":
        spoken.append(("assistant", ""))
    begin, end, line = tokens.marks[BEGIN], tokens.marks[END], encode(tokens, "\n")
    said = [[begin, *encode(tokens, f"{role}\n{content}")] for role, content in spoken]
    return [i for part in said[:-1] for i in (*part, end, *line)] + said[-1]


def _bpe(words: Sequence[str], merges: Sequence[str], cut: str, users: Sequence[str]) -> Any:
    try:
        package = import_module("tokenizers")
    except ModuleNotFoundError:
        raise ValueError(
            "A local model needs the `tokenizers` package; pip install 'jaxnas[local]'."
        ) from None
    pre, numbers = package.pre_tokenizers, {word: i for i, word in enumerate(words)}
    pairs = [(one, two) for one, _, two in (merge.partition(" ") for merge in merges)]
    bpe = package.Tokenizer(package.models.BPE(numbers, pairs, ignore_merges=False))
    steps = {
        "smollm": [pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)],
        "gpt-2": [pre.ByteLevel(add_prefix_space=False)],
        "qwen2": [
            pre.Split(package.Regex(QWEN2), "isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ],
    }
    bpe.pre_tokenizer = pre.Sequence(steps[cut])
    bpe.add_tokens(list(users))
    return bpe


def _is_mark(kind: int) -> bool:
    return kind not in (NORMAL, USER)


def _bytes(word: str, kind: int) -> bytes:
    """The bytes that a token stands for."""
    if kind == NORMAL and all(sign in BYTES for sign in word):
        return bytes(BYTES[sign] for sign in word)
    return b"" if _is_mark(kind) else word.encode()


def _signs() -> dict[str, int]:
    """The sign by which byte-level BPE writes each byte: itself if it can be seen, or the next free."""
    seen = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in seen]
    return {chr(b): b for b in seen} | {chr(256 + i): b for i, b in enumerate(hidden)}


BYTES = _signs()
