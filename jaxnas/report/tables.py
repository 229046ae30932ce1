"""Tables of a report: judged cells, candidates, several runs side by side."""

from collections.abc import Sequence

import numpy as np

from jaxnas.report.figures import plain
from jaxnas.report.html import Markup, counts, duration, join, number, table, tag
from jaxnas.report.source import cell
from jaxnas.report.view import View
from jaxnas.runs.rows import Result

_SHOWN = 24


def values(one: View, kind: str, name: str) -> np.ndarray:
    """One metric of all judged cells of a kind, those without it left out."""
    found = [r.metrics.get(name) for r in one.results if r.kind == kind]
    return np.array([value for value in found if isinstance(value, int | float)], float)


def names(one: View) -> list[str]:
    """The metrics of judged cells, fitness first; a banner tells of cells that are not connected."""
    found = dict.fromkeys(n for r in one.results for n in r.metrics if n != "connected")
    return sorted(found, key=lambda name: name != "fitness")


def spread(found: np.ndarray) -> str:
    """Mean and sample standard deviation, with as many decimals as the mean has."""
    if len(found) < 2:
        return number(float(found[0])) if len(found) else "-"
    mean, std = number(float(np.mean(found))), float(np.std(found, ddof=1))
    return f"{mean} ± {std:.2f}" if abs(np.mean(found)) >= 1 else f"{mean} ± {number(std)}"


def results(one: View, noun: str = "cell") -> Markup:
    """What each seed found, the mean, the mean and the best of the random ones, and the hand-made."""
    columns, rows, sums = names(one), list[list[str]](), list[int]()
    whole = {c for c in columns if counts(r.metrics.get(c) for r in one.results)}

    def told(result: Result, column: str) -> str:
        return number(result.metrics.get(column), counted=column in whole)

    found = [r for r in one.results if r.kind == "found"]
    rows += [
        [f"seed {r.seed}", *(told(r, c) for c in columns), cell(r.genotype)] for r in found[:_SHOWN]
    ]
    for kind, word in (("found", "found"), ("random", "random")):
        n = sum(r.kind == kind for r in one.results)
        if n:
            sums.append(len(rows))
            mean = (spread(values(one, kind, column)) for column in columns)
            rows.append([f"{word}, mean of {n}", *mean, ""])
    random = [r for r in one.results if r.kind == "random" and r.metrics.get("fitness") is not None]
    if random:
        best = max(random, key=lambda r: r.metrics["fitness"])
        row = (told(best, c) for c in columns)
        rows.append(["random, best by fitness", *row, cell(best.genotype)])
    made = [r for r in one.results if r.kind not in ("found", "random")]
    made.sort(key=lambda r: -(r.metrics.get("fitness") or -np.inf))
    rows += [[r.kind, *(told(r, c) for c in columns), cell(r.genotype)] for r in made[:_SHOWN]]
    blank = [""] * len(columns)  # methods that no genotype stands for: fitness is all there is
    beside = one.meta.get("beside", {}).items()
    rows += [[name, number(value), *blank] for name, value in beside]
    more = f" The first {_SHOWN} of {len(found)} seeds are listed." if len(found) > _SHOWN else ""
    caption = f"± is the sample standard deviation. All {noun}s were judged alike." + more
    heads = [noun, *map(plain, columns), "genotype"]
    return table(heads, rows, caption=caption, code=["genotype"], text=[noun], sums=sums)


def candidates(one: View) -> Markup:
    """The best different candidates, and those that failed with the reason."""
    measured, distinct = one.run.totals()
    failures = one.run.failures()
    why = ", ".join(f"{n:,} {reason}" for reason, n in failures.items()) or "none"
    counted = f"{measured:,} measured, {distinct:,} different; failed: {why}."
    best = [
        [
            str(i),
            number(c.fitness),
            _short(c.cost),
            str(c.seed),
            str(c.step),
            f"{n:,}",
            cell(c.genotype),
        ]
        for i, (c, n) in enumerate(one.run.top(20), start=1)
    ]
    heads = ["", "fitness", "cost", "seed", "step", "times measured", "genotype"]
    parts = [tag("p", counted), table(heads, best, code=["genotype"])]
    failed = [
        [str(c.seed), str(c.step), c.failure or "unknown", cell(c.genotype)]
        for c in one.run.failed(10)
    ]
    if failed:
        heads = ["seed", "step", "reason", "genotype"]
        parts.append(tag("h3", "Last failures"))
        parts.append(table(heads, failed, code=["genotype"], text=["reason"]))
    return join(parts)


def _short(cost: float | None) -> str:
    return "-" if cost is None else f"{cost:g}"


def compared(views: Sequence[View]) -> Markup:
    """One row for each run."""
    rows = [
        [
            one.name,
            f"{one.run.config.get('recipe', '')} · {one.run.config.get('preset', '')}",
            str(one.run.config.get("seeds", "")),
            str(one.meta.get("status", "")),
            spread(values(one, "found", "fitness")),
            spread(values(one, "random", "fitness")),
            duration(one.meta.get("seconds", 0.0)),
            str(one.meta.get("fitness_label", "")),
        ]
        for one in views
    ]
    heads = ["run", "recipe", "seeds", "status", "found", "random", "time", "fitness is"]
    words = ["run", "recipe", "status", "fitness is"]
    return table(heads, rows, caption="Mean ± sample standard deviation of fitness.", text=words)
