"""A run folder of a search over programs, written straight into the ledger."""

from pathlib import Path
from typing import Any

import numpy as np
from synthetic_runs import config

from jaxnas.runs import Call, Candidate, Result, Run, Snapshot, Step, create

REASONS = ("shape", "parse", "import", "duplicate", "time")


def source(widths: list[int], note: str = "") -> str:
    layers = "".join(f"        x = nn.relu(nn.Dense({width})(x))\n" for width in widths)
    return (
        "import flax.linen as nn\n\n\nclass Model(nn.Module):\n"
        f'    """A perceptron.{note}"""\n\n    @nn.compact\n    def __call__(self, x):\n'
        f"        x = x.reshape(x.shape[0], -1)\n{layers}        return nn.Dense(10)(x)\n"
    )


def cells(rng: np.random.Generator, count: int) -> np.ndarray:
    """Centroids of a few rounds of k-means on uniform points."""
    points, centroids = rng.random((2000, 2)), rng.random((count, 2))
    for _ in range(8):
        nearest = ((points[:, None] - centroids) ** 2).sum(-1).argmin(1)
        centroids = np.array(
            [
                points[nearest == n].mean(0) if (nearest == n).any() else c
                for n, c in enumerate(centroids)
            ]
        )
    return centroids


def programs(folder: Path, *, steps: int = 20, batch: int = 6, count: int = 100) -> Run:
    """Steps of candidates with parents, two archives, and a row for every call."""
    rng = np.random.default_rng(3)
    run = create(folder, config("llmatic", 1))
    found, kept, rows, tried, calls = list[Any](), np.full(count, np.nan), [], [], []
    prompts, snapshots = np.full(12, np.nan), []
    centroids = cells(rng, count)
    for step in range(1, steps + 1):
        for slot in range(batch):
            serial = (step - 1) * batch + slot + 1
            best = sorted(found, key=lambda f: -f[1])[:4]
            chosen = [best[i] for i in rng.permutation(len(best))[: 1 + (slot == 0)]]
            widths = list(chosen[0][2]) if chosen else [16]
            widths.insert(int(rng.integers(len(widths) + 1)), int(rng.integers(8, 200)))
            widths = widths[-5:]
            failed = rng.random() < 0.6 * np.exp(-step / 9) + 0.1
            fitness = (
                None if failed else float(50 + 40 * (1 - np.exp(-serial / 50)) + 4 * rng.normal())
            )
            why = REASONS[int(rng.integers(5) ** 2 // 5)] if failed else None
            parents = " ".join(str(c[0]) for c in chosen) or None
            tried.append(Candidate(step, 0, slot, source(widths), fitness, 1.0, why, parents))
            if not failed:
                found.append((serial, fitness, widths))
                where = int(rng.integers(count))
                kept[where] = np.nanmax([kept[where], fitness])
                prompts[int(rng.integers(12))] = rng.random()
            calls += _calls(rng, step, serial)
        best_now = max((f[1] for f in found), default=None)
        rows.append(Step(step, 0, {"fitness": best_now, "cost": float(step * batch)}))
        snapshots.append(Snapshot(step, 0, "archive_networks", kept.tolist()))
        snapshots.append(Snapshot(step, 0, "archive_prompts", prompts.tolist()))
    with run:
        run.record(rows, snapshots, tried)
        run.put_calls(calls)
        best = max(found, key=lambda f: f[1])
        run.put_results([Result("found", 0, source(best[2]), {"fitness": best[1], "params": 5210})])
        run.put_meta(**_meta(steps, centroids))
    return run


def _calls(rng: np.random.Generator, step: int, serial: int) -> list[Call]:
    done = Call(
        step, f"{serial:064x}", 1, "coder-1.5b", "ok", None, 4 + rng.random(), 700, 220, 0.0008
    )._replace(forced=66)
    if serial % 9:
        return [done]
    busy = "429 from http://127.0.0.1:8091: too many requests at a time"
    failed = done._replace(
        outcome="limited",
        status=429,
        prompt=None,
        completion=None,
        money=None,
        message=busy,
        forced=None,
    )
    return [failed, done._replace(attempt=2)]


def _meta(steps: int, centroids: np.ndarray) -> dict[str, Any]:
    return {
        "status": "finished",
        "steps": steps,
        "seconds": 3725.0,
        "noun": "network",
        "fitness_label": "validation accuracy, % (mnist1d, 400 steps)",
        "search_label": "validation accuracy, %",
        "cost_label": "candidates",
        "archives": {
            "networks": {
                "centroids": centroids.tolist(),
                "axes": [["depth over width", 0.0, 0.5], ["log10 FLOPs", 3.0, 7.0]],
                "fitness": "validation accuracy, %",
            },
            "prompts": {
                "centroids": [[(n + 0.5) / 12] for n in range(12)],
                "axes": [["prompt", 0, 12]],
                "fitness": "curiosity",
            },
        },
    }
