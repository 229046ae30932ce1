r"""Edits of single lines, short enough for a weak model to write: its reply is applied, never run.

Example:
    >>> from jaxnas.programs.line_edits import apply_edit
    >>> source = '''class Model(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         return nn.Dense(10)(x)
    ... '''
    >>> print(apply_edit(source, "insert after line 3: x = nn.Dense(32)(x)"), end="")
    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.Dense(32)(x)
            return nn.Dense(10)(x)
"""

import ast
import re
from typing import NamedTuple

_EDIT = re.compile(r"\s*(?:(delete) line (\d+)|(insert after|replace) line (\d+): (\S.*?))\s*")
_SPATIAL = re.compile(r"Conv\(|_pool\(|\.\.\., None\]|expand_dims")
_FLAT = re.compile(r"reshape|mean\(|flatten|ravel")


class Place(NamedTuple):
    """A line that a layer can be put after.

    Attributes:
      line: its number, from 1.
      is_step: whether it is a layer itself, so that it can be deleted or replaced.
      is_spatial: whether what it leaves has spatial axes.
    """

    line: int
    is_step: bool
    is_spatial: bool


def places(source: str, *, is_spatial: bool = False) -> tuple[str, list[Place]]:
    """Where a program can be edited line by line.

    Args:
      source: its text.
      is_spatial: whether its input has spatial axes and channels.

    Returns:
      The name of the input of its last `__call__`, and the lines, the first being that before the
      body; none where it has no such method, or does not parse.
    """
    try:
        nodes = list(ast.walk(ast.parse(source)))
    except (SyntaxError, ValueError):
        return "", []
    calls = [n for n in nodes if isinstance(n, ast.FunctionDef) and n.name == "__call__"]
    if not calls or len(calls[-1].args.args) < 2 or calls[-1].body[0].lineno == calls[-1].lineno:
        return "", []
    name, body = calls[-1].args.args[1].arg, calls[-1].body
    found, spatial = [Place(body[0].lineno - 1, is_step=False, is_spatial=is_spatial)], is_spatial
    lines = source.split("\n")
    for step in body[:-1]:
        text = "\n".join(lines[step.lineno - 1 : step.end_lineno])
        was, spatial = spatial, bool(_SPATIAL.search(text)) or (spatial and not _FLAT.search(text))
        if _goes_on(step, name):
            found.append(Place(step.lineno, is_step=was == spatial, is_spatial=spatial))
    return name, found


def apply_edit(source: str, reply: str, *, is_spatial: bool = False) -> str:
    """Applies an edit.

    Args:
      source: the program.
      reply: `delete line 4`, `insert after line 4: x = ...` or `replace line 4: x = ...`.
      is_spatial: as in `places`.

    Returns:
      The new program.

    Raises:
      ValueError: if the reply is no such edit of such a line.
    """
    edit = _EDIT.fullmatch(reply)
    if edit is None:
        raise ValueError(f"`reply` must be an edit of one line, but got {reply[:80]!r}.")
    verb, number, text = edit[1] or edit[3], int(edit[2] or edit[4]), edit[5]
    _, found = places(source, is_spatial=is_spatial)
    if number not in [p.line for p in found if p.is_step or verb == "insert after"]:
        raise ValueError(f"`reply` must name a line that can be edited, but got {reply[:80]!r}.")
    lines = source.split("\n")
    old = lines[number if number == found[0].line else number - 1]
    new = [] if verb == "delete" else [old[: len(old) - len(old.lstrip())] + text]
    lines[number - (verb != "insert after") : number] = new
    return "\n".join(lines)


def _goes_on(step: ast.stmt, name: str) -> bool:
    """Whether a statement of one line is `name = ... name ...`."""
    if not isinstance(step, ast.Assign) or step.lineno != step.end_lineno:
        return False
    targets = [ast.unparse(target) for target in step.targets]
    used = {n.id for n in ast.walk(step.value) if isinstance(n, ast.Name)}
    return targets == [name] and name in used
