"""What a search asks of whoever writes programs."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Proposal(NamedTuple):
    """The wish for one new program.

    Attributes:
      messages: the dialogue for a language model, each message with `role` and `content`.
      parents: sources the program is made from, the most important one first.
      temperature: how freely it is written, as of a language model.
      seed: of all that is random about it; equal proposals with other seeds give other programs.
      wish: what the program is to be, in words, for who is not asked by `messages`.
    """

    messages: Sequence[Mapping[str, str]]
    parents: Sequence[str]
    temperature: float
    seed: int
    wish: str = ""


Proposer = Callable[[Sequence[Proposal]], list[str]]
"""`(proposals) -> sources`, one each in order: what is no program comes `spoilt`, with the reason."""
