"""The page: what was run, what it found, how it got there."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxnas.report import figures, tree
from jaxnas.report.archive import PREFIX, archives
from jaxnas.report.calls import calls
from jaxnas.report.cell import draw, legend
from jaxnas.report.figures import Line, plain
from jaxnas.report.front import pareto
from jaxnas.report.html import CSS, Markup, duration, facts, figure, join, number, table, tag
from jaxnas.report.lineage import ancestry
from jaxnas.report.source import code, is_source, short
from jaxnas.report.tables import candidates, compared, results, values
from jaxnas.report.validity import validity
from jaxnas.report.view import View, answer, graphs, noun, view
from jaxnas.runs.rows import Curve

_TRAINING = "training/"
_SPREAD = "Median over seeds; the band holds the middle half of them."


def report(folders: Sequence[Path | str], out: Path | str | None = None) -> Path:
    """Writes one self-contained page about one run, or about several side by side.

    Args:
      folders: run folders; they are only read.
      out: the file; `report.html` in the folder of a single run if `None`.

    Returns:
      Where the page is.

    Raises:
      ValueError: if `folders` is empty or one is no run folder, or several come without `out`.
    """
    if not folders or (out is None and len(folders) > 1):
        raise ValueError(
            f"`folders` must name a run, and `out` a file when they are several, but got "
            f"{len(folders)} folders and `out` is {out}."
        )
    views = _named([view(Path(folder)) for folder in folders])
    out = Path(folders[0]) / "report.html" if out is None else Path(out)
    body = [_comparison(views)] if len(views) > 1 else []
    body += [_run(one, several=len(views) > 1) for one in views]
    title = " and ".join(dict.fromkeys(_title(one) for one in views))
    head = [tag("title", title), Markup('<meta charset="utf-8">')]
    head += [Markup('<meta name="viewport" content="width=device-width, initial-scale=1">')]
    page = tag(
        "html", tag("head", *head, tag("style", Markup(CSS))), tag("body", tag("main", *body))
    )
    partial = out.with_name(out.name + ".partial")
    partial.write_text(f"<!DOCTYPE html>\n{page}\n", encoding="utf-8")
    os.replace(partial, out)
    return out


def _named(views: list[View]) -> list[View]:
    names = [one.name for one in views]
    whole = [f"{one.run.folder.resolve().parent.name}/{one.name}" for one in views]
    return [
        one._replace(name=long) if names.count(one.name) > 1 else one
        for one, long in zip(views, whole, strict=True)
    ]


def _title(one: View) -> str:
    config = one.run.config
    return " · ".join(str(config[key]) for key in ("recipe", "preset") if key in config) or one.name


def _run(one: View, *, several: bool) -> Markup:
    title = f"{one.name}: {_title(one)}" if several else _title(one)
    parts = [tag("h1", title), tag("p", f"fitness is {_fitness(one)}", class_="soft")]
    parts += [_facts(one), *_banners(one)]
    sections = (
        (f"Found {noun(one)}s", _results(one)),
        ("Source of the best", _source(one)),
        (f"Shapes of {noun(one)}s", _shapes(one)),
        ("Search", _search([one])),
        (f"Training of {noun(one)}s", _trained(one)),
        ("Traversal", _traversal(one)),
        ("Archives", archives(one)),
        ("Front", pareto(one)),
        ("Lineage", ancestry(one)),
        ("Validity", validity(one)),
        ("Calls of language models", calls(one)),
        ("Training", _metrics(one)),
        ("Mixing weights", _weights(one)),
        ("Strength of operations", _strengths(one)),
        ("Candidates", candidates(one) if one.run.totals()[0] else ""),
        ("Settings", _settings(one)),
    )
    parts += [join([tag("h2", head), body]) for head, body in sections if body]
    return tag("section", *parts, class_="run" if several else "only")


def _facts(one: View) -> Markup:
    config, meta = one.run.config, one.meta
    devices = [str(device) for device in config.get("devices", ())]
    rate = meta.get("ms_per_step")
    where = ", ".join(f"{devices.count(d)} x {d}" for d in dict.fromkeys(devices))
    shown = facts(
        [
            ("seeds", str(config.get("seeds", ""))),
            ("steps", f"{one.run.last()} of {meta.get('steps', '?')}"),
            ("time", duration(meta.get("seconds", 0.0))),
            ("per step, all seeds", f"{number(float(rate))} ms" if rate else ""),
            ("backend", " ".join([str(config.get("backend", "")), f"({where})" if where else ""])),
            ("versions", _versions(config)),
            ("key", str(config.get("key", ""))),
            ("created", str(config.get("created", ""))[:16].replace("T", " ")),
            ("status", str(meta.get("status", "not started"))),
        ]
    )
    command = config.get("command")
    return join([shown, tag("pre", tag("code", str(command)))] if command else [shown])


def _versions(config: dict[str, object]) -> str:
    named = ("jaxnas", "jax", "python")
    return " · ".join(f"{name} {config[name]}" for name in named if name in config)


def _fitness(one: View) -> str:
    return str(one.meta.get("fitness_label", "not described in this run"))


def _banners(one: View) -> list[Markup]:
    said = []
    if "collapsed" in one.metrics:
        seeds = np.flatnonzero(figures.recorded(one.metrics["collapsed"]).values[-1] == 1)
        if len(seeds):
            said.append(
                f"Collapsed: {len(seeds)} of {one.metrics['collapsed'].values.shape[1]} searches "
                f"ended in a degenerate cell (seed {_listed(seeds)}). Their cells are no evidence "
                f"for the method."
            )
    found = [r for r in one.results if r.kind == "found"]
    dead = [r.seed for r in found if r.metrics.get("connected") == 0]
    if dead:
        said.append(
            f"Dead: nothing reaches the output of {len(dead)} of {len(found)} found cells (seed "
            f"{_listed(dead)}). Their networks can only guess."
        )
    ended = one.run.ended()
    barren = one.run.barren() if ended else []
    if barren:
        said.append(
            f"Nothing found: of seed {_listed(barren)} no candidate could be measured, so there is "
            f"no answer to judge."
        )
    if one.meta.get("early") and ended:
        said.append(
            f"Ended early, after {one.run.last()} of {one.meta.get('steps', '?')} steps: "
            f"{one.meta['early']} What had been found by then is judged; `jaxnas resume` goes on "
            f"where there is more to spend."
        )
    if not ended:
        said.append(
            f"Not finished: {one.run.last()} of {one.meta.get('steps', '?')} steps are recorded, the "
            f"status is “{one.meta.get('status', 'not started')}”. Resuming continues bit for bit."
        )
    return [tag("p", text, class_="banner") for text in said]


def _listed(seeds: Sequence[int] | np.ndarray, most: int = 20) -> str:
    return ", ".join(map(str, seeds[:most])) + (" …" if len(seeds) > most else "")


def _results(one: View) -> Markup | str:
    if not one.results:
        return ""
    best, drawn = answer(one), list[Markup]()
    if best and best.graph:
        for name, graph in graphs(best.graph).items():
            what = f"{name} {noun(one)}".strip()
            caption = f"The best {what} found (seed {best.seed})"
            if "tree" in graph:
                latex = tag("code", str(graph["latex"])) if "latex" in graph else ""
                said = f"{caption}, in its shortest form. "
                drawn.append(figure(tree.draw(graph["tree"]), said, latex))
            else:
                caption += "; grey carries no operation."
                drawn.append(figure(draw(graph, one.colours), caption, legend(one.colours, graph)))
    return join([results(one, noun(one)), *drawn])


def _source(one: View) -> Markup | str:
    """The program that is the answer; of a run without one, the best candidate so far."""
    best = answer(one)
    texts = [best.genotype] if best else [tried.genotype for tried, _ in one.run.top(1)]
    if not texts or not is_source(texts[0]):
        return ""
    return join([tag("p", short(texts[0]), class_="soft"), code(texts[0])])


def _shapes(one: View) -> Markup | str:
    """What found functions of one variable look like, beside those that people made."""
    found, others = list[Line](), list[Line]()
    for r in one.results:
        if r.graph and "shape" in r.graph:
            x, y = (np.array(r.graph["shape"][axis], float) for axis in ("x", "y"))
            (found if r.kind == "found" else others).append(Line(_label(r.genotype), x, y, y, y))
    if not found:
        return ""
    return figure(figures.training(found[:8], others, x="x", y="value"), "Dashed: hand-made.")


def _label(genotype: str) -> str:
    """A genotype for a legend: programs begin alike, so they go by their digests."""
    named = short(genotype)
    return named if len(named) <= 44 else named[:43] + "…"


def _search(views: Sequence[View]) -> Markup | str:
    shown = [one for one in views if _some(one) or (_references(one) and _found(one).size)]
    if not shown:
        return ""
    lines = [_line(one, one.name if len(views) > 1 else _title(one)) for one in shown]
    every = [curve for one in shown for curve in _references(one)]
    curves = {c.name: c for c in sorted(every, key=lambda c: c.points["x"][-1])}  # the longest
    references = [
        Line(c.name, *(np.array(c.points[k], float) for k in ("x", "mean", "low", "high")))
        for c in curves.values()
    ]
    svg = figures.search(
        lines,
        references,
        x=str(shown[0].meta.get("cost_label", "cost")),
        y=f"best so far: {_searched(shown[0])}",
    )
    notes = " ".join(f"{c.name}: {c.note}." for c in curves.values() if c.note)
    spread = _SPREAD if all(map(_some, shown)) else "What a search found is level over all costs."
    return figure(svg, f"{spread} {notes}")


def _searched(one: View) -> str:
    """What the search saw, where that is not what its answers are judged by."""
    return str(one.meta.get("search_label", one.meta.get("fitness_label", "fitness")))


def _references(one: View) -> list[Curve]:
    return [curve for curve in one.run.curves() if not curve.name.startswith(_TRAINING)]


def _trained(one: View) -> Markup | str:
    """How what was found trains, beside what people made."""
    found, others = list[Line](), list[Line]()
    for curve in one.run.curves():
        if curve.name.startswith(_TRAINING):
            kind = curve.name.split("/")[1]
            values = (np.array(curve.points[name], float) for name in ("x", "mean", "low", "high"))
            (found if kind == "found" else others).append(Line(_label(curve.note), *values))
    if not found:
        return ""
    svg = figures.training(found[:8], others, x="step", y="training loss")
    said = "Mean over seeds; the band reaches from the least to the greatest. Dashed: hand-made."
    return figure(svg, said)


def _traversal(one: View) -> Markup | str:
    """The way through the super-tree that each seed took."""
    ways = one.meta.get("traversal", [])
    parts = []
    for seed, way in enumerate(ways[:4]):
        rows = [
            [
                str(level),
                here["node"],
                str(here["scores"]),
                "   ".join(f"{text} {mean:.4g} ({n})" for text, mean, n in here["children"][:4]),
            ]
            for level, here in enumerate(way)
        ]
        heads = ["level", "node", "scores", "best children: mean score (how many)"]
        caption = f"Seed {seed}. A hole is written _."
        parts.append(table(heads, rows, caption=caption, code=["node", heads[-1]]))
    return join(parts)


def _line(one: View, label: str) -> Line:
    """The best so far; for searches that measure only their answers, the level of those."""
    if _some(one):
        return figures.best_so_far(label, one.metrics["fitness"], one.metrics.get("cost"))
    x = np.array(_references(one)[0].points["x"], float)
    return Line(f"{label}: found", x, *np.outer(np.quantile(_found(one), [0.5, 0.25, 0.75]), x**0))


def _found(one: View) -> np.ndarray:
    return values(one, "found", "fitness")


def _some(one: View) -> bool:
    return "fitness" in one.metrics and bool(np.isfinite(one.metrics["fitness"].values).any())


def _metrics(one: View) -> Markup | str:
    hidden = ("fitness", "cost", "collapsed")
    shown = {
        name: series
        for name, series in one.metrics.items()
        if name not in hidden and np.isfinite(series.values).any()
    }
    return figure(figures.metrics(shown), _SPREAD) if shown else ""


def _weights(one: View) -> Markup | str:
    drawn = []
    for name, series in one.snapshots.items():
        if series.values.ndim != 4 or "/" in name or name.startswith(PREFIX):
            continue
        edges, operations = series.values.shape[2:]
        named = [str(x) for x in one.meta.get("edges", ())]
        if named and len(named) != edges:  # something else that has operations
            continue
        svg = figures.weights(
            series,
            named or [f"edge {i}" for i in range(edges)],
            _operations(one, operations),
            one.colours,
        )
        drawn.append(figure(svg, f"{plain(name)}: mean over seeds in full, single seeds faint."))
    return join(drawn)


def _strengths(one: View) -> Markup | str:
    if "strength/accuracy" not in one.snapshots:
        return ""
    weight, accuracy, edge = (
        one.snapshots[f"strength/{name}"].values[-1] for name in ("weight", "accuracy", "edge")
    )
    named = {i: str(name) for i, name in enumerate(one.meta.get("edges", ()))}
    edges = [named.get(int(i), f"edge {int(i)}") for i in edge[0]]
    svg = figures.strengths(
        weight, accuracy, edges, _operations(one, weight.shape[-1]), one.colours
    )
    said = (
        "What each operation weighs in the mixture, and the validation accuracy of the supernet "
        "when the edge is cut down to it; a dot for each seed. Where magnitude told strength, the "
        "dots would rise to the right."
    )
    return figure(svg, said)


def _operations(one: View, count: int) -> list[str]:
    known = [str(x) for x in one.meta.get("operations", ())]
    return known if len(known) == count else [f"operation {i}" for i in range(count)]


def _comparison(views: Sequence[View]) -> Markup:
    parts = [tag("h1", f"{len(views)} runs compared"), compared(views)]
    rows = [
        (one.name, values(one, "found", "fitness"), values(one, "random", "fitness"))
        for one in views
    ]
    if any(len(found) for _, found, _ in rows):
        label = " / ".join(dict.fromkeys(map(_fitness, views)))
        caption = "Each dot is a judged cell, the bar their mean; random cells in grey."
        parts.append(figure(figures.dots(rows, x=label), caption))
    alike: dict[tuple[str, str], list[View]] = {}
    for one in views:
        alike.setdefault((_fitness(one), str(one.meta.get("cost_label"))), []).append(one)
    return join([*parts, *map(_search, alike.values())])


def _settings(one: View) -> Markup:
    text = json.dumps(one.run.config.get("config", {}), indent=2, ensure_ascii=False)
    return tag("details", tag("summary", "All settings"), tag("pre", tag("code", text)))
