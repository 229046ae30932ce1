"""Elements of a page in which every text is escaped, and the style of that page."""

import html
from collections.abc import Iterable, Sequence

CSS = """
:root { --ink: #1c2430; --soft: #5d6878; --line: #dfe3e8; --tint: #f6f7f9; --blue: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 27px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 40px 0 10px; padding-top: 14px; border-top: 1px solid var(--line); }
h3 { font-size: 15px; margin: 22px 0 6px; }
section.run { margin-top: 64px; border-top: 3px solid var(--ink); padding-top: 20px; }
p { margin: 6px 0; max-width: 78ch; }
.soft, figcaption, caption { color: var(--soft); font-size: 13px; }
dl.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr));
  gap: 10px 24px; margin: 18px 0; }
dl.facts dt { color: var(--soft); font-size: 12px; }
dl.facts dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
code, td.code { font: 12.5px/1.45 ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace;
  overflow-wrap: anywhere; }
pre { background: var(--tint); border: 1px solid var(--line); border-radius: 6px; margin: 10px 0;
  padding: 9px 12px; white-space: pre-wrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; margin: 8px 0 4px;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; caption-side: bottom; padding-top: 6px; }
th, td { padding: 5px 12px 5px 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; font-size: 12.5px; vertical-align: bottom; }
td:first-child { white-space: nowrap; }
td.number, th.number { text-align: right; white-space: nowrap; }
tr.sum td { font-weight: 650; background: var(--tint); }
figure { margin: 14px 0; }
figure svg { max-width: 100%; height: auto; display: block; }
.banner { border-left: 4px solid #d55e00; background: #fdf3ec; padding: 9px 14px; margin: 12px 0;
  max-width: none; }
.key { display: inline-block; width: 18px; height: 3px; margin: 0 6px 4px 14px; }
details { margin: 14px 0; }
summary { cursor: pointer; color: var(--blue); }
td details { margin: 0; }
pre.diff span { display: block; min-height: 1.45em; }
.add { background: #e3f4e8; color: #0b5227; }
.del { background: #fce9e6; color: #8a1c12; }
.at { color: var(--soft); }
@media print { main { padding: 0; } h2, figure, tr { break-inside: avoid; } }
"""


class Markup(str):
    """HTML that is already safe."""


def tag(name: str, *children: str, **attributes: str | float) -> Markup:
    """An element; every child that is not `Markup` is escaped.

    Args:
      name: the element's name.
      *children: text and elements.
      **attributes: a trailing `_` is dropped (`class_`), other `_` become `-`.

    Returns:
      The element.
    """
    listed = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{listed}>{join(children)}</{name}>")


def join(children: Iterable[str]) -> Markup:
    """Elements and texts one after another, texts escaped."""
    return Markup(
        "".join(child if isinstance(child, Markup) else html.escape(child) for child in children)
    )


def number(value: object, *, counted: bool = False) -> str:
    """A value for reading: two decimals from 1 up, three digits below, a dash for nothing.

    Args:
      value: of a table.
      counted: whether it is a count, which has no decimals.
    """
    if value is None or value != value:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if counted:
        return f"{value:,.0f}"
    return f"{value:.2f}" if 1 <= abs(value) < 1e5 else f"{value:.3g}"


def counts(values: Iterable[object]) -> bool:
    """Whether values are counts: whole numbers, beyond what a percentage can be."""
    told = [value for value in values if isinstance(value, int | float) and value == value]
    return all(value == round(value) for value in told) and max(map(abs, told), default=0) > 100


def duration(seconds: float) -> str:
    """Seconds in the two units that matter."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s"


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str = "",
    code: Sequence[str] = (),
    text: Sequence[str] = (),
    sums: Sequence[int] = (),
) -> Markup:
    """A table, right-aligned but for its text.

    Args:
      heads: names of the columns.
      rows: cells as text.
      caption: what is to be known about it.
      code: columns that hold genotypes.
      text: columns that hold words.
      sums: positions of the rows that sum up others.

    Returns:
      The table.
    """
    kinds = ["code" if h in code else "text" if h in text else "number" for h in heads]
    head = join(tag("th", h, class_=kind) for h, kind in zip(heads, kinds, strict=True))
    body = join(
        tag(
            "tr",
            *(tag("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)),
            class_="sum" if i in sums else "one",
        )
        for i, row in enumerate(rows)
    )
    said = (tag("caption", caption),) if caption else ()
    inner = tag("table", *said, tag("thead", tag("tr", head)), tag("tbody", body))
    return tag("div", inner, class_="scroll")


def facts(pairs: Iterable[tuple[str, str]]) -> Markup:
    """Short facts in a grid; those without a value are left out."""
    cells = (tag("div", tag("dt", k), tag("dd", v)) for k, v in pairs if v)
    return tag("dl", *cells, class_="facts")


def figure(svg: str, caption: str, legend: str = "") -> Markup:
    """A drawing with what it shows."""
    return tag("figure", Markup(svg), tag("figcaption", caption, legend))
