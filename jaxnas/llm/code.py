r"""Finds the program in a reply: the wanted class or function and what it needs, nothing else.

All Python in the reply is read statement by statement (`statements`), so prose around the code,
notes between blocks and broken lines cost only themselves; nothing is ever executed. The answer is
the last definition of what is wanted (a model that repeats its parent first means the second one)
with the imports, helpers and constants it uses, taken from its own block before others. Usage
examples and test calls are left behind, since nothing needs them. Where the last definition is
broken or cut off, that is the answer, never an earlier one: a parent must not pass for its child.

Example:
    >>> from jaxnas.llm import extract
    >>> reply = "Sure!\n```python\nimport math\ndef area(r):\n    return math.pi * r**2\n```"
    >>> extract(reply, "area").source
    'import math\n\n\ndef area(r):\n    return math.pi * r**2\n'
    >>> extract("I would rather not.", "area").failure
    'no_code'
"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxnas.llm.replies import parts
from jaxnas.llm.statements import Statement, statements

FAILURES = {
    "empty": "the reply is empty",
    "no_code": "the reply holds no Python",
    "truncated": "the reply ends in the middle of the program",
    "syntax": "the program does not parse",
    "missing": "there is Python, but not what was asked for",
}
_LONGEST = 100_000  # characters that are read at most


class Code(NamedTuple):
    """What was found.

    Attributes:
      source: a module that defines `name`; None after a failure.
      name: of the class or function.
      failure: one of `FAILURES`; None where `source` is given.
      message: what is wrong, in words a model can use to mend it.
    """

    source: str | None
    name: str | None
    failure: str | None = None
    message: str = ""


def extract(reply: str, wanted: str | None = None, *, finish: str = "stop") -> Code:
    """The program in a reply.

    Args:
      reply: what the model wrote. Where it goes on from a prompt that ends in the middle of the
        program, put the program's beginning before it.
      wanted: name of the class or function; by default the last class derived from some `Module`
        that no other class uses, else the last class.
      finish: why the reply ended (`Reply.finish`); after `length` a program that the reply ends
        with counts as cut off, even if it parses.

    Returns:
      The source, or the reason why there is none. Never raises.
    """
    cut = finish == "length" or len(reply) > _LONGEST
    blocks = parts(reply[:_LONGEST])
    if not blocks and not cut:
        return Code(None, wanted, "empty", FAILURES["empty"])
    everything = [s for i, block in enumerate(blocks) for s in statements(block, i)]
    fenced = [s for s in everything if blocks[s.part].fenced]
    for pool in (fenced, everything):
        answer = _answer(pool, wanted)
        if answer is not None:
            return _judged(answer, pool, cut)
    return _without(everything, fenced, wanted, cut)


def _answer(pool: Sequence[Statement], wanted: str | None) -> Statement | None:
    """The last definition of what is wanted, whole or broken."""
    if wanted is not None:
        return next((s for s in reversed(pool) if s.defines == wanted), None)
    classes = [s for s in pool if s.is_class]
    modules = [s for s in classes if "Module" in s.header] or classes
    roots = [s for s in modules if not any(s.defines in other.uses for other in classes)]
    return next(reversed(roots or modules), None)


def _judged(answer: Statement, pool: Sequence[Statement], cut: bool) -> Code:
    name = answer.defines
    if answer.ends_reply and (cut or answer.unfinished):
        return Code(None, name, "truncated", f"the reply ends in the middle of `{name}`")
    if answer.error:
        return Code(None, name, "syntax", f"`{name}` does not parse: {answer.error}")
    return Code(_module(answer, pool), name)


def _module(answer: Statement, pool: Sequence[Statement]) -> str:
    """The statement with all it needs, imports first."""
    chosen, todo = [answer], set(answer.uses)
    usable = [s for s in pool if not s.error and answer.defines not in s.binds]
    while todo:
        name = todo.pop()
        for needed in _binders(name, answer.part, usable):
            if needed not in chosen:
                chosen.append(needed)
                todo |= needed.uses
    always = [s for s in usable if "*" in s.binds or (s.is_import and "__future__" in s.text)]
    chosen += [s for s in always if s not in chosen]
    order = {id(s): i for i, s in enumerate(pool)}
    chosen.sort(key=lambda s: (s.part == answer.part, order[id(s)]))
    imports = dict.fromkeys(s.text for s in chosen if s.is_import)
    futures = sorted(imports, key=lambda text: "__future__" not in text)
    rest = dict.fromkeys(s.text for s in chosen if not s.is_import)
    return "\n\n\n".join(filter(None, ["\n".join(futures), *rest])) + "\n"


def _binders(name: str, part: int, usable: Sequence[Statement]) -> list[Statement]:
    """What gives a name its value: in the answer's own block, else in the last that does."""
    bound = [s for s in usable if name in s.binds]
    homes = {s.part for s in bound}
    home = part if part in homes else max(homes, default=part)
    return [s for s in bound if s.part == home]


def _without(
    everything: Sequence[Statement], fenced: Sequence[Statement], wanted: str | None, cut: bool
) -> Code:
    """Why what is wanted is not there."""
    defined = [s.defines for s in everything if s.defines]
    broken = [s for s in everything if s.error and (s.defines or s in fenced)]
    what = f"`{wanted}`" if wanted else "a class"
    if cut:
        return Code(None, wanted, "truncated", f"the reply ends before {what} is defined")
    if broken:
        return Code(None, wanted, "syntax", f"the program does not parse: {broken[-1].error}")
    if any(s.is_code for s in everything):
        there = f"; there is {', '.join(defined)}" if defined else ""
        return Code(None, wanted, "missing", f"{what} is not defined{there}")
    return Code(None, wanted, "no_code", FAILURES["no_code"])
