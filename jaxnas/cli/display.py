"""What commands show: how far a run is, what it found, warnings and tables."""

import json
import sys
from collections.abc import Iterable
from typing import Any

from jaxnas.cli.ctrl_c import STOPPED


def progress(steps: int, label: str) -> Any:
    """How a run of so many steps shows how far it is; after Ctrl-C it ends with the next step."""
    from jaxnas.runs.progress import Progress

    return Progress(steps, label, stopped=STOPPED.is_set)


def show_outcome(outcome: Any, *, as_json: bool) -> None:
    """What a run found, as a table or one JSON object; its report; on stderr what to beware of."""
    from jaxnas.report import report
    from jaxnas.report.source import is_source, short
    from jaxnas.runs.rows import to_json

    page = report([outcome.run.folder], outcome.run.folder / "report.html")
    config, best = outcome.run.config, outcome.best if outcome.found else None
    warnings = [*_early(outcome), *_barren(outcome), *_collapse(outcome), *_dead(outcome)]
    for warning in warnings:
        print(f"jaxnas: warning: {warning}", file=sys.stderr)
    facts = {
        "recipe": config["recipe"],
        "preset": config["preset"],
        "seeds": config["seeds"],
        "best": best and best.genotype,
        "fitness": best and best.metrics["fitness"],
        "fitness_label": outcome.run.meta()["fitness_label"],
        "metrics": best and best.metrics,
        "evaluations": outcome.evaluations,
        "seconds": round(outcome.seconds, 3),
        "run": str(outcome.run.folder),
        "report": str(page),
        "found": [{"seed": r.seed, "genotype": r.genotype, **r.metrics} for r in outcome.found],
        "random": [{"genotype": r.genotype, **r.metrics} for r in outcome.random],
        "warnings": warnings,
    }
    if as_json:
        print(to_json(facts))
        return
    others = [r for r in outcome.run.results() if r.kind not in ("found", "random")]
    judged = [*outcome.found, *outcome.random, *others]
    names = list(judged[0].metrics)[:2] if judged else []  # fitness, and what is reported
    rows = [
        (str(r.kind), short(r.genotype), *(_number(r.metrics.get(name)) for name in names))
        for r in judged
    ]
    show_table(("", str(outcome.run.meta().get("noun", "cell")), *names), rows)
    print(f"fitness: {facts['fitness_label']}")
    if best and is_source(best.genotype):
        print(f"source of the best: jaxnas export {outcome.run.folder} --out best.py")
    print(f"{outcome.evaluations} evaluations in {outcome.seconds:.1f} s; see {page}")


def _number(value: float | int | None) -> str:
    return "-" if value is None else f"{value:.2f}"  # the ledger keeps what is not finite as null


def _early(outcome: Any) -> list[str]:
    if not outcome.early:
        return []
    run = outcome.run
    return [
        f"the search ended early, after {run.last()} of {run.meta()['steps']} steps: {outcome.early} "
        f"What it had found by then is judged. With more to spend it goes on: jaxnas resume "
        f"{run.folder} --set NAME=VALUE"
    ]


def _barren(outcome: Any) -> list[str]:
    seeds = [str(seed) for seed in outcome.run.barren()]
    if not seeds:
        return []
    why = ", ".join(f"{count} {reason}" for reason, count in outcome.run.failures().items())
    return [
        f"nothing was found by seed {', '.join(seeds)}: none of its candidates could be measured"
        f"{f' (failures of all seeds: {why})' if why else ''}"
    ]


def _collapse(outcome: Any) -> list[str]:
    told = [row for row in outcome.run.steps() if "collapsed" in row.metrics]
    last = told[-outcome.run.config["seeds"] :]
    seeds = [str(row.seed) for row in last if row.metrics.get("collapsed")]
    if not seeds:
        return []
    return [
        f"the search collapsed for seed {', '.join(seeds)}: skip connections lead on more than "
        f"half of the edges, or no edge leads to an operation with weights"
    ]


def _dead(outcome: Any) -> list[str]:
    seeds = [str(row.seed) for row in outcome.found if not row.metrics.get("connected", True)]
    if not seeds:
        return []
    return [
        f"nothing reaches the output of what was found by seed {', '.join(seeds)}: such a cell can "
        f"only guess"
    ]


def show_facts(facts: dict[str, Any], *, as_json: bool) -> None:
    """Facts by name, as a table or one JSON object."""
    if as_json:
        print(json.dumps(facts))
    else:
        show_table(("", ""), [(name, str(value)) for name, value in facts.items()])


def show_table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Rows of text in columns of one terminal."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    Console(soft_wrap=False).print(table)
