"""Run folders of three kinds, written straight into the ledger."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxnas.runs import Candidate, Curve, Result, Run, Snapshot, Step, create

NB_OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NB_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
DARTS_OPS = ("max_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_5x5")


def config(recipe: str, seeds: int, **more: Any) -> dict[str, Any]:
    settings = {"population": 100, "tournament": 10, "dataset": "cifar10"}
    return {
        "recipe": recipe,
        "preset": "default",
        "seeds": seeds,
        "key": 0,
        "config": settings,
        "jaxnas": "0.1.0",
        "jax": "0.10.2",
        "python": "3.11.7",
        "backend": "cpu",
        "devices": ["cpu"],
        "created": "2030-01-02T03:04:05+00:00",
        "command": f"jaxnas run {recipe} --seeds {seeds}",
        **more,
    }


def nb_text(ops: np.ndarray) -> str:
    return ",".join(NB_OPS[i] for i in ops)


def nb_graph(ops: np.ndarray) -> dict[str, Any]:
    edges = [[j, i, NB_OPS[o]] for (j, i), o in zip(NB_EDGES, ops, strict=True)]
    return {"nodes": ["input", "1", "2", "output"], "edges": edges}


def tabular(folder: Path, *, seeds: int = 8, steps: int = 300, failures: bool = False) -> Run:
    rng = np.random.default_rng(0)
    run = create(folder, config("regularized_evolution", seeds))
    rows, tried, best = [], [], np.full(seeds, -np.inf)
    for step in range(1, steps + 1):
        for seed in range(seeds):
            fitness = min(94.37, 60 + 8 * np.log1p(step) * rng.random() + 10 * rng.random())
            failed = failures and step % 7 == seed
            best[seed] = best[seed] if failed else max(best[seed], fitness)
            rows.append(Step(step, seed, {"fitness": best[seed], "cost": float(step)}))
            why = ("non-finite", "out of memory")[step % 2] if failed else None
            score = -np.inf if failed else fitness
            text = nb_text(rng.integers(0, 5, 6))
            tried.append(Candidate(step, seed, 0, text, score, 1.0, why))
    curve = np.linspace(1, steps, 50)
    mean = 80 + 2.2 * np.log1p(curve)
    points = {"x": curve, "mean": mean, "low": mean - 1, "high": mean + 1}
    with run:
        run.record(rows, candidates=tried)
        note = "1,000 repetitions, mean and quartiles"
        run.put_curve(Curve("random search (equal budget)", points, note))
        run.put_results(_nb_results(rng, seeds))
        run.put_meta(
            status="interrupted" if failures else "finished",
            steps=2 * steps if failures else steps,
            seconds=12.5,
            ms_per_step=0.21,
            fitness_label="validation accuracy, % (cifar10, 200 epochs, mean of seeds)",
            cost_label="cells evaluated",
        )
    return run


def _nb_results(rng: np.random.Generator, seeds: int) -> list[Result]:
    found = []
    for seed in range(seeds):
        ops = rng.integers(0, 5, 6)
        metrics = {"fitness": 91.0 + seed / 4, "test_accuracy": 93.5 + seed / 8, "params_M": 0.75}
        found.append(Result("found", seed, nb_text(ops), metrics, nb_graph(ops)))
    for seed in range(16):
        metrics = {"fitness": 80.0 + seed / 2, "test_accuracy": 82.0 + seed / 2, "params_M": 0.5}
        found.append(Result("random", seed, nb_text(rng.integers(0, 5, 6)), metrics))
    return found


def supernet(folder: Path, *, seeds: int = 4, steps: int = 600, collapsed: bool = True) -> Run:
    rng = np.random.default_rng(1)
    run = create(folder, config("darts", seeds))
    rows, kept = [], []
    pull = rng.normal(0, 0.4, (seeds, 6, 5)) + np.array([0.0, 1.2, 0.2, 0.6, -0.4])
    for step in range(1, steps + 1):
        far = step / steps
        weights = np.exp(2.5 * far * pull)
        weights /= weights.sum(-1, keepdims=True)
        for seed in range(seeds):
            entropy = float(-(weights[seed] * np.log(weights[seed])).sum(-1).mean())
            metrics = {
                "train_loss": 2.3 * np.exp(-2 * far) + 0.15 * rng.random(),
                "valid_loss": 2.3 * np.exp(-1.5 * far) + 0.2 * rng.random(),
                "entropy": entropy,
                "skips": int((weights[seed].argmax(-1) == 1).sum()),
                "collapsed": int(collapsed and far > 0.8 and seed in (1, 3)),
                "valid_accuracy": 100 * (1 - np.exp(-2 * far)) * (0.9 + 0.02 * rng.random()),
            }
            rows.append(Step(step, seed, metrics))
            if step % 10 == 0:
                kept.append(Snapshot(step, seed, "weights", weights[seed].tolist()))
    with run:
        run.record(rows, kept)
        run.put_results(_nb_results(rng, seeds))
        run.put_meta(
            status="finished",
            steps=steps,
            seconds=5025.0,
            ms_per_step=812.3,
            fitness_label="validation accuracy, % (cifar10, 200 epochs, mean of seeds)",
            operations=NB_OPS,
            edges=[f"{j} → {i}" for j, i in NB_EDGES],
        )
    return run


def darts_cells() -> dict[str, Any]:
    nodes = ["c_{k-2}", "c_{k-1}", "0", "1", "2", "3", "c_{k}"]
    pairs = [(0, 2), (1, 2), (0, 3), (2, 3), (1, 4), (3, 4), (0, 5), (4, 5)]
    edges = [[j, i, DARTS_OPS[n % 4]] for n, (j, i) in enumerate(pairs)]
    normal = {"nodes": nodes, "edges": [*edges, *([i, 6, ""] for i in range(2, 6))]}
    every = [(j, i) for i in range(2, 6) for j in range(i)]
    full = [[j, i, (*DARTS_OPS, "none")[n % 5]] for n, (j, i) in enumerate(every)]
    return {"normal": normal, "reduce": {"nodes": nodes[:6], "edges": full}}
