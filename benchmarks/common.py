"""What every benchmark shares: its options, its table, and the record in RESULTS.md."""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import jax

RESULTS = Path(__file__).with_name("RESULTS.md")


def options(text: str) -> argparse.ArgumentParser:
    """A parser with `--quick` (under a minute, not recorded) and `--json`."""
    parser = argparse.ArgumentParser(description=text, allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="under a minute, not recorded")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return parser


def timed(f: Callable[[], Any]) -> float:
    """Seconds until the result of `f` is there."""
    begin = time.perf_counter()
    jax.block_until_ready(f())
    return time.perf_counter() - begin


def best_of(f: Callable[[], Any], repeats: int) -> float:
    """Least seconds of several calls, the first of which compiles and does not count."""
    jax.block_until_ready(f())
    return min(timed(f) for _ in range(repeats))


def publish(
    args: argparse.Namespace,
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[Any]],
    note: str,
) -> None:
    """Prints the table; a full run is appended to RESULTS.md with date, machine and commit."""
    cells = [[f"{x:,.4g}" if isinstance(x, float) else str(x) for x in row] for row in rows]
    lines = [head, ["---"] * len(head), *cells]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    where = f"{date.today()}, {machine()}, jax {jax.__version__}, commit {commit()}"
    if args.json:
        facts = {
            "title": title,
            "where": where,
            "rows": [dict(zip(head, r, strict=True)) for r in rows],
        }
        print(json.dumps(facts | {"note": note, "quick": args.quick}))
    else:
        print(f"{title} ({where})\n\n{table}\n\n{note}")
    if not args.quick:
        words = [Path(word).name if word.startswith("/") else word for word in sys.argv[1:]]
        command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *words])
        entry = f"\n## {title}\n\n{where}. `{command}`\n\n{table}\n\n{note}\n"
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(entry)


def machine() -> str:
    """The accelerator, or the processor and its cores."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        return f"{len(jax.devices())} x {device.device_kind}"
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            s.split(":")[1] for s in info.read_text().splitlines() if s.startswith("model name")
        ]
        return f"{len(names)} cores of {names[0].strip()}"
    return model


def commit() -> str:
    """Short name of the commit, with a plus where the tree differs from it."""
    run = ["git", "-C", str(RESULTS.parent), "describe", "--always", "--dirty=+"]
    return subprocess.run(run, capture_output=True, text=True, check=False).stdout.strip() or "?"
