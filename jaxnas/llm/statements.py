"""Reads text as Python, statement by statement, wherever it is Python; executes nothing.

A text that parses as a whole is simply cut at its statements. One that does not (prose around the
code, a reply that was cut off) is read greedily: from each line at the margin that may begin a
statement to the first line at which what has been read parses.
"""

import ast
import re
import symtable
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, NamedTuple

from jaxnas.llm.replies import Part, layouts

_TRIES = 500  # texts parsed for one layout of a part, so that no reply takes long
_LOOKAHEAD = 40  # lines at the margin that one statement may have
_BEGINS = re.compile(
    r"""(class|def|async\s+def|from|import|try|if|for|while|with)\b
    |@|[rbfuRBFU]{0,2}(\"\"\"|''')|[A-Za-z_][\w.]*\s*[=(\[:,+*/-]""",
    re.VERBOSE,
)
_HEADER = re.compile(r"(?:@.*\n)*(class|def|async\s+def)\s+(\w+).*")
_INSIDE = re.compile(r"\s+(def\s|return\b|@\w)")


class Statement(NamedTuple):
    """One statement at the margin of a part.

    Attributes:
      text: its lines, decorators included.
      part: index of the part.
      ends_reply: whether the reply ends with it.
      error: why it does not parse; empty if it does.
      unfinished: whether it does not parse because there is no more of it.
      defines: name of the class or function; None for other statements.
      is_class: whether it defines a class.
      is_import: whether it is an import.
      is_code: whether it does something: words of prose may parse, and do nothing.
      header: first line of the definition.
      binds: names it gives a value; `*` for all those of a module.
      uses: names it needs from outside.
    """

    text: str
    part: int
    ends_reply: bool
    error: str = ""
    unfinished: bool = False
    defines: str | None = None
    is_class: bool = False
    is_import: bool = False
    is_code: bool = False
    header: str = ""
    binds: frozenset[str] = frozenset()
    uses: frozenset[str] = frozenset()


def statements(part: Part, index: int) -> list[Statement]:
    """The statements of a part, in the first layout that is Python, or has definitions at least.

    Args:
      part: of a reply.
      index: which one it is.
    """
    texts = [text.rstrip().split("\n") for text in layouts(part.text.strip("\n"))]
    whole = [lines for lines in texts if isinstance(_parsed(lines), ast.Module)]
    read = [_read(lines, index, part.open) for lines in whole[:1] or texts]
    return next((found for found in read if any(s.defines for s in found)), read[0])


def _read(lines: Sequence[str], part: int, is_open: bool) -> list[Statement]:
    found: list[Statement] = []
    for begin, end, parsed in _pieces(lines):
        piece, last = lines[begin:end], is_open and end == len(lines)
        if isinstance(parsed, ast.Module):
            found += [_sound(node, piece, part, last) for node in parsed.body]
            continue
        inside = not _HEADER.match(lines[begin]) and any(_INSIDE.match(line) for line in piece)
        if inside and found and found[-1].defines:
            found[-1] = found[-1]._replace(error="other text stands in the middle of it")
        if parsed is not None:
            found.append(_broken(parsed, piece, part, last))
    return found


def _pieces(
    lines: Sequence[str],
) -> Iterator[tuple[int, int, ast.Module | SyntaxError | None]]:
    """Begin, end and content of what is read together; None for a line that is no Python."""
    whole = _parsed(lines)
    if isinstance(whole, ast.Module):
        yield 0, len(lines), whole
        return
    at, tries = 0, _TRIES
    while at < len(lines):
        end, parsed = at + 1, None
        if _BEGINS.match(lines[at]) and tries > 0:
            end, parsed, tried = _grown(lines, at)
            tries -= tried
        yield at, end, parsed
        at = end


def _grown(lines: Sequence[str], at: int) -> tuple[int, ast.Module | SyntaxError, int]:
    """The shortest run of lines from here that parses, or the shortest with its error."""
    margins = (i for i in range(at + 1, len(lines)) if re.match(r"[^\s#]", lines[i]))
    ends, errors = list(islice(chain(margins, [len(lines)]), _LOOKAHEAD)), []
    for end in ends:
        parsed = _parsed(lines[at:end])
        if isinstance(parsed, ast.Module):
            return end, parsed, len(errors) + 1
        errors.append(parsed)
    return ends[0], errors[0], len(errors)


def _parsed(lines: Sequence[str]) -> ast.Module | SyntaxError:
    text = "\n".join(lines) + "\n"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            symtable.symtable(text, "<reply>", "exec")  # sees what the grammar alone lets pass
            return ast.parse(text)
    except SyntaxError as error:
        return error
    except (ValueError, MemoryError, RecursionError) as error:  # nested beyond all measure
        return SyntaxError(str(error) or type(error).__name__)


def _sound(node: ast.stmt, piece: Sequence[str], part: int, last: bool) -> Statement:
    end = node.end_lineno or node.lineno
    rest = [line for line in piece[end:] if line.strip() and not line.strip().startswith("#")]
    decorators = getattr(node, "decorator_list", [])
    begin = min(item.lineno for item in (node, *decorators))
    text = "\n".join(piece[begin - 1 : end])
    if not isinstance(_parsed([text]), ast.Module):
        text = ast.unparse(node)  # it shares a line with a part of another
    table = symtable.symtable(text, "<reply>", "exec")
    binds = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
    names = node.names if isinstance(node, ast.ImportFrom) else []
    is_prose = isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call)
    return Statement(
        text=text,
        part=part,
        ends_reply=last and not rest,
        is_import=isinstance(node, ast.Import | ast.ImportFrom),
        is_code=not is_prose and getattr(node, "value", node) is not None,
        binds=frozenset(binds | {"*" for name in names if name.name == "*"}),
        uses=frozenset(_uses(table)),
        **_definition(text),
    )


def _uses(table: symtable.SymbolTable) -> set[str]:
    """Names looked up outside of a statement, from its functions and classes too."""
    names, todo = set(), [table]
    while todo:  # no recursion: tables nest as deep as the text does
        one = todo.pop()
        top = one.get_type() == "module"
        names |= {
            s.get_name() for s in one.get_symbols() if s.is_referenced() and (top or s.is_global())
        }
        todo += one.get_children()
    return names


def _broken(error: SyntaxError, piece: Sequence[str], part: int, last: bool) -> Statement:
    line = error.lineno or 0
    where = f" in line {line}: {piece[line - 1].strip()}" if 0 < line <= len(piece) else ""
    unfinished = line >= len(piece) or "never closed" in error.msg or "untermin" in error.msg
    definition = _definition("\n".join(piece))
    return Statement("\n".join(piece), part, last, f"{error.msg}{where}", unfinished, **definition)


def _definition(text: str) -> dict[str, Any]:
    header = _HEADER.match(text)
    if not header:
        return {}
    return {"defines": header[2], "is_class": header[1] == "class", "header": header[0]}
