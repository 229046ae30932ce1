"""Pairs of cells as text: a `Genotype` and the two notations it is read from.

The long one is Python, as DARTS prints it: `Genotype(normal=[('sep_conv_3x3', 1), ...],
normal_concat=range(2, 6), reduce=[...], reduce_concat=range(2, 6))`. The short one is
`N[S3<1 ...] cat[2, 3, 4, 5] R[...] cat[2, 3, 4, 5]`, where `S3<1` applies the operation to state 1.
In both, two entries make a node; states 0 and 1 are the inputs of the cell, 2 is the first node.
"""

import difflib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

Entries = tuple[tuple[str, int], ...]

SHORT = {
    "S3": "sep_conv_3x3",
    "S5": "sep_conv_5x5",
    "S7": "sep_conv_7x7",
    "D3": "dil_conv_3x3",
    "D5": "dil_conv_5x5",
    "MP": "max_pool_3x3",
    "AP": "avg_pool_3x3",
    "SK": "skip_connect",
    "C7171": "conv_7x1_1x7",
    "NOISE": "noise",
    "NONE": "none",
}


class Genotype(NamedTuple):
    """A pair of cells.

    Attributes:
      normal: operation and state it reads, two per node.
      normal_concat: states that make up the output.
      reduce: the same of the cell that halves the map.
      reduce_concat: its output.
    """

    normal: Entries
    normal_concat: tuple[int, ...]
    reduce: Entries
    reduce_concat: tuple[int, ...]


class Rules(NamedTuple):
    """What the cells of a space may look like.

    Attributes:
      ops: operations.
      nodes: nodes of each cell.
      distinct: whether the two inputs of a node must differ.
      named: genotypes that may be called by name, in short notation.
    """

    ops: tuple[str, ...]
    nodes: int
    distinct: bool
    named: dict[str, str]


class _Form(NamedTuple):
    """A notation: what stands before each of the four parts and at the end, and its entries."""

    heads: tuple[str, str, str, str]
    end: str
    entry: str
    example: str
    separator: str


_LONG = _Form(
    ("Genotype ( normal =", ", normal_concat =", ", reduce =", ", reduce_concat ="),
    ")",
    r"""[(\[]\s*(?P<quote>['"])(?P<op>[^'"]*)(?P=quote)\s*,\s*(?P<state>[0-9]+)\s*[)\]]""",
    "an entry such as ('sep_conv_3x3', 0)",
    ",",
)
_SHORT = _Form(
    ("N", "cat", "R", "cat"),
    "",
    r"(?P<op>[^\W\d]\w*)<(?P<state>[0-9]+)(?!\w)",
    "an entry such as S3<0",
    "",
)


def read(text: str, rules: Rules) -> Genotype:
    """Reads a genotype in either notation, or by its name.

    Raises:
      ValueError: naming the token that is wrong, where it stands and what was expected.
    """
    name = text.strip()
    if re.fullmatch(r"\w+", name) and name not in rules.named:
        raise ValueError(f"Unknown genotype {name!r}; {_known('names', name, rules.named)}")
    scan = _Scanner(rules.named.get(name, text))
    form = _SHORT if scan.sees(r"N\s*\[") else _LONG
    if form is _LONG and scan.sees(r"\w+\s*=\s*Genotype"):  # as the files of DARTS define it
        scan.take(r"\w+\s*=", "a name")
    parts: list[Any] = []
    for n, head in enumerate(form.heads):
        scan.take(r"\s*".join(map(re.escape, head.split())), repr(head))
        parts.append(_concat(scan, rules) if n % 2 else _entries(scan, form, rules))
    scan.take(re.escape(form.end), repr(form.end))
    scan.take(r"\Z", "the end")
    return Genotype(*parts)


class _Scanner:
    """Reads a text from left to right and says where it stops making sense."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self._skip()

    def sees(self, pattern: str) -> bool:
        return re.compile(pattern).match(self.text, self.at) is not None

    def take(self, pattern: str, wanted: str) -> re.Match[str]:
        match = re.compile(pattern).match(self.text, self.at)
        if match is None:
            raise self.error(f"expected {wanted}")
        self.at = match.end()
        self._skip()
        return match

    def error(self, complaint: str, at: int | None = None) -> ValueError:
        at = self.at if at is None else at
        token = re.compile(r"[\w<]+|\S|\Z").match(self.text, at)
        found = repr(token.group()) if token and token.group() else "the end of the text"
        return ValueError(f"Genotype, character {at + 1}: {complaint}, but found {found}.")

    def _skip(self) -> None:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1


def _list(scan: _Scanner, separator: str, item: Callable[[int], Any]) -> tuple[Any, ...]:
    scan.take(r"[\[(]", "'['")
    items = []
    while not scan.sees(r"[\])]"):
        items.append(item(len(items)))
        if not scan.sees(r"[\])]"):
            scan.take(separator, f"{separator!r} or ']'")
    scan.take(r"[\])]", "']'")
    return tuple(items)


def _entries(scan: _Scanner, form: _Form, rules: Rules) -> Entries:
    sources: list[int] = []

    def entry(n: int) -> tuple[str, int]:
        node, at = n // 2 + 2, scan.at
        if n == 2 * rules.nodes:
            raise scan.error(f"expected ']' after the two entries of each of {rules.nodes} nodes")
        match = scan.take(form.entry, form.example)
        op, source = match["op"], int(match["state"][:9])
        op = SHORT.get(op, op) if form is _SHORT else op
        if op not in rules.ops:
            shown = [s for s, o in SHORT.items() if o in rules.ops] if form is _SHORT else rules.ops
            known = _known("operations", match["op"], shown)
            raise ValueError(
                f"Genotype, character {at + 1}: unknown operation {match['op']!r} in entry "
                f"{match.group()!r} of node {node}; {known}"
            )
        if source >= node:
            raise scan.error(f"node {node} can read states 0 to {node - 1}", at)
        if rules.distinct and n % 2 and source == sources[-1]:
            raise scan.error(f"the two inputs of node {node} must differ", at)
        sources.append(source)
        return op, source

    found = _list(scan, form.separator, entry)
    if len(found) < 2 * rules.nodes:
        raise scan.error(
            f"expected {2 * rules.nodes} entries, two for each of {rules.nodes} nodes, and read "
            f"{len(found)}"
        )
    return found


def _concat(scan: _Scanner, rules: Rules) -> tuple[int, ...]:
    at, number = scan.at, r"[0-9]{1,4}(?!\w)"
    if scan.sees("range"):
        match = scan.take(r"range\s*\(\s*([0-9]{1,4})\s*,\s*([0-9]{1,4})\s*\)", "range(2, 6)")
        states = tuple(range(int(match[1]), int(match[2])))
    else:
        states = _list(scan, ",", lambda _: int(scan.take(number, "the number of a state").group()))
    last = rules.nodes + 1
    if not states or len(set(states)) < len(states) or not set(states) <= set(range(2, last + 1)):
        raise scan.error(f"the output must name different nodes from 2 to {last}", at)
    return states


def _known(what: str, wrong: str, names: Any) -> str:
    close = difflib.get_close_matches(wrong, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"the {what} are {', '.join(names)}.{hint}"


def to_text(genotype: Genotype) -> str:
    """The long notation, which DARTS and its descendants read.

    Example:
      >>> cell = (("sep_conv_3x3", 0), ("skip_connect", 1))
      >>> to_text(Genotype(cell, (2,), cell, (2,)))[:58]
      "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1)]"
    """
    parts = zip(Genotype._fields, genotype, strict=True)
    return f"Genotype({', '.join(f'{name}={list(part)}' for name, part in parts)})"


def to_short(genotype: Genotype) -> str:
    """The short notation."""
    letters = {op: short for short, op in SHORT.items()}

    def cell(entries: Entries, concat: tuple[int, ...]) -> str:
        return f"[{' '.join(f'{letters[op]}<{s}' for op, s in entries)}] cat{list(concat)}"

    return f"N{cell(*genotype[:2])} R{cell(*genotype[2:])}"
