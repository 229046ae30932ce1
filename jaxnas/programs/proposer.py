r"""Who writes programs: a language model, or random edits of a parent in its place.

Example:
    >>> from jaxnas.llm import scripted
    >>> from jaxnas.programs.proposer import Proposal, from_client
    >>> write = from_client(scripted(["\n    pass\n"]), begun="class Model:")
    >>> write([Proposal([{"role": "user", "content": "class Model:"}], [], 0.6, seed=1)])
    ['class Model:\n    pass\n']
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jaxnas.llm import Client, extract
from jaxnas.programs.asking import replies
from jaxnas.programs.edits import edited
from jaxnas.programs.imports import with_imports
from jaxnas.programs.page import spoilt
from jaxnas.programs.proposal import Proposal as Proposal, Proposer as Proposer

_BLOCK = re.compile(r"^```\w*[ \t]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)
_INDENTED = r"""[ \t]+(?=[@\w"'#])(?!class\b|import\b|from\b)"""
# How what is within a class or function goes on, also where its first line has lost its spaces.
_GOES_ON = {
    "class": re.compile(rf"{_INDENTED}|@nn\.compact|def\s+(__call__|setup)\b"),
    "def": re.compile(rf"{_INDENTED}|[\w, ]+[-+*/]?= .*\n+[ \t]+\S|return\b"),
}


def from_client(
    client: Client,
    *,
    wanted: str | None = None,
    max_tokens: int = 512,
    begun: str = "",
    grammar: str | None = None,
) -> Proposer:
    """Programs by a language model, all proposals of a batch under way at once.

    Args:
      client: what is asked, one request for each proposal.
      wanted: name of the class or function; by default what `llm.extract` takes for the network.
      max_tokens: the most tokens of a reply.
      begun: the line of the program that prompts end with, if they end within it. A reply may go
        on from there or begin again.
      grammar: whose sentences replies are, see `programs.grammars`; None leaves the model free.

    Returns:
      The proposer. Imports that replies tend to forget are put before their programs.

    Raises:
      ModelError: by the proposer, see `asking.replies`.
      BudgetError: likewise, if the budget is spent.
    """

    def form(one: Proposal) -> Mapping[str, Any]:
        return {"grammar": grammar}

    def propose(proposals: Sequence[Proposal]) -> list[str]:
        told = replies(client, proposals, max_tokens=max_tokens, form=form)
        return [program(one.text, wanted, begun=begun, finish=one.finish) for one in told]

    return propose


def random_edits(most: int = 3) -> Proposer:
    """One to `most` random edits of the first parent: what a language model has to beat."""

    def propose(proposals: Sequence[Proposal]) -> list[str]:
        return [edited(p.parents[0], p.seed, most=most) for p in proposals]

    return propose


def program(reply: str, wanted: str | None, *, begun: str = "", finish: str = "stop") -> str:
    """The program in a reply, or the reply `spoilt` where there is none.

    Args:
      reply: what a model wrote.
      wanted: see `from_client`.
      begun: likewise.
      finish: why the reply ended.
    """
    readings = _readings(reply, begun, finish)
    codes = [extract(text, wanted, finish=ended) for text, ended in readings]
    found = next((code.source for code in codes if code.source), None)
    return with_imports(found) if found else spoilt(reply, codes[-1].message)


def _readings(reply: str, begun: str, finish: str) -> list[tuple[str, str]]:
    """A reply as a program that goes on where the prompt ended, if it can be, and as a whole one."""
    whole, block = (reply, finish), _BLOCK.search(reply)
    more = (block[1] if block else reply).strip("\n")
    if not (begun and _GOES_ON[begun.split()[0]].match(more)):
        return [whole]
    # Servers strip the spaces that a reply begins with; and a model that goes on does not stop at
    # the end of its program, but writes the next example.
    indented = more if more[0].isspace() else f"    {more}"
    body, *rest = re.split(r"\n(?=[^\s#])", indented, maxsplit=1)
    return [(f"{begun}\n{body}\n", "stop" if rest else finish), whole]
