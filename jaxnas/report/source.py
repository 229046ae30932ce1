"""Candidates that are programs: a name short enough for a table, their source, what changed in it."""

import difflib
import hashlib
import re

from jaxnas.report.html import Markup, join, tag

_LONG = 1_000  # characters of a genotype that no table can hold, on one line or not
_KINDS = {"+": "add", "-": "del", "@": "at"}


def is_source(genotype: str) -> bool:
    """Whether a genotype is the text of a program, or whatever a model said instead of one."""
    return "\n" in genotype.strip() or len(genotype) > _LONG


def short(genotype: str) -> str:
    """A genotype for a line of a table: itself, or a program's name, digest and size."""
    if not is_source(genotype):
        return genotype
    lines = genotype.strip().splitlines()
    named = re.search(r"^class (\w+)", genotype, re.MULTILINE)
    name = named[1] if named else lines[0][:40].strip()
    data = genotype.encode("utf-8", "replace")
    digest = hashlib.sha256(data).hexdigest()[:8]
    return f"{name} {digest} ({len(lines):,} lines, {len(data):,} bytes)"


def cell(genotype: str) -> str:
    """A genotype for a cell of the page's tables: a program unfolds."""
    if not is_source(genotype):
        return genotype
    return tag("details", tag("summary", short(genotype)), code(genotype))


def code(source: str) -> Markup:
    """A source as it stands."""
    return tag("pre", tag("code", source))


def changes(before: str, after: str) -> list[str]:
    """The lines of a unified diff, without the names of files."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=3)
    return list(lines)[2:]


def diff(lines: list[str]) -> Markup:
    """Lines of a unified diff in the colours of what was added and what was taken away."""
    spans = (tag("span", line or " ", class_=_KINDS.get(line[:1], "same")) for line in lines)
    return tag("pre", tag("code", join(spans)), class_="diff")
