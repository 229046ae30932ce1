"""Searches on the NAS-Bench-201 table: how good they are, and how many evaluations a second.

Goodness against published and measured figures: random search by validation accuracy at several
budgets (1,000 runs) against the figures of another implementation and against its exact
expectation, aging evolution on `test_seed888` (200 runs), the bit-string toy (50 runs).
Speed of vmapped aging evolution against the same algorithm in plain Python on the same table.
"""

import random
from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
from common import best_of, options, publish, timed
from scipy.special import gammaln

from jaxnas.cells import nas_bench_201
from jaxnas.cells.tabular import tabular
from jaxnas.core import close, run_scan
from jaxnas.core.keys import unrolled
from jaxnas.data.tables import nas_bench_201 as load_table
from jaxnas.evolve.bit_string import BitString
from jaxnas.evolve.random_search import best_of as random_curve, random_search
from jaxnas.evolve.regularized import regularized_evolution

DATASETS = ("cifar10", "cifar100", "ImageNet16-120")
QUERIES = (10, 100, 500, 2000)
# Mean and standard deviation over 1,000 searches, chosen by `valid`, reported by `test`.
RANDOM = {
    "cifar10": ((93.05, 0.58), (93.79, 0.27), (94.02, 0.23), (94.13, 0.22)),
    "cifar100": ((69.70, 1.20), (71.40, 0.86), (72.38, 0.64), (72.86, 0.45)),
    "ImageNet16-120": ((43.28, 1.80), (45.32, 0.81), (45.99, 0.63), (46.33, 0.48)),
}
EVOLUTION = {"cifar10": 91.5235, "cifar100": 73.254, "ImageNet16-120": 47.2825}


def random_rows(table, repeats):
    for name in DATASETS:
        problem = tabular(table, dataset=name)
        key = jax.random.key(1)
        curve = random_curve(problem.fitness, problem.reported, jnp.array(QUERIES), key, repeats)
        for n, values, (mean, spread) in zip(QUERIES, curve.T, RANDOM[name], strict=True):
            got = f"{values.mean():.2f} ± {values.std():.2f}"
            error, exact = spread / np.sqrt(repeats), expected(problem, n)
            apart = (float(values.mean()) - mean) / (error * np.sqrt(1 + repeats / 1000))
            yield (
                f"random search, {n} queries, {name}, test",
                got,
                f"{mean:.2f} ± {spread:.2f}, exactly {exact:.2f}",
                f"{apart:+.1f} s.e., {(float(values.mean()) - exact) / error:+.1f} of the exact",
            )


def expected(problem, n):
    """Mean report of the best of `n` rows drawn without replacement, by order statistics."""
    order = np.argsort(-np.asarray(problem.fitness), kind="stable")
    told = np.asarray(problem.reported, float)[order][: len(order) - n + 1]
    below = len(order) - 1 - np.arange(len(told))  # rows worse than the best one drawn
    share = gammaln(below + 1) - gammaln(below - n + 2) - gammaln(n)
    total = gammaln(len(order) + 1) - gammaln(len(order) - n + 1) - gammaln(n + 1)
    return float((np.exp(share - total) * told).sum())


def evolution_rows(table, runs):
    for name in DATASETS:
        f = evolve(table, name, 500)
        found = f(jax.random.split(jax.random.key(0), runs))
        got = f"{found.mean():.2f} ± {found.std():.2f}"
        off = f"{float(found.mean()) - EVOLUTION[name]:+.3f}"
        yield (
            f"aging evolution, 500 queries, {name}, test seed 888",
            got,
            f"{EVOLUTION[name]:.2f}",
            off,
        )


def evolve(table, name, steps):
    problem = tabular(table, dataset=name, split="test_seed888", report="test_seed888")
    searcher = regularized_evolution(
        problem.sample, nas_bench_201.mutate, population=50, tournament=10
    )
    search = close(searcher, problem)
    return jax.jit(jax.vmap(lambda key: run_scan(search, unrolled(key), steps)[0].fitness))


def toy_rows(runs):
    problem = BitString()
    searchers = {
        "aging evolution": (
            regularized_evolution(problem.sample, problem.mutate, population=100, tournament=10),
            ".906 (.861 to .944)",
        ),
        "random search": (random_search(problem.sample), "best .666"),
    }
    for name, (searcher, published) in searchers.items():
        search = close(searcher, problem)
        f = jax.jit(jax.vmap(lambda key, s=search: run_scan(s, unrolled(key), 1000)[0].fitness))
        best = f(jax.random.split(jax.random.key(0), runs))
        got = f"{best.mean():.3f} ({best.min():.3f} to {best.max():.3f})"
        yield f"bit-string toy, 1,000 models, {name}", got, published, ""


def plain_python(values, cells, steps, seed):
    """Aging evolution as one would write it without JAX."""
    rng = random.Random(seed)
    population, best = deque(), -1.0
    for step in range(steps):
        if step < 50:
            cell = tuple(rng.randrange(5) for _ in range(6))
        else:
            parent = max((population[rng.randrange(50)] for _ in range(10)), key=lambda c: c[1])[0]
            edge, shift = rng.randrange(6), rng.randrange(1, 5)
            cell = (*parent[:edge], (parent[edge] + shift) % 5, *parent[edge + 1 :])
        fitness = values[cells[cell]]
        population.append((cell, fitness))
        if len(population) > 50:
            population.popleft()
        best = max(best, fitness)
    return best


def speed_rows(table, runs, repeats):
    f, keys = evolve(table, "cifar10", 500), jax.random.split(jax.random.key(0), runs)
    compiling = timed(lambda: f(keys))
    rate = runs * 500 / best_of(lambda: f(keys), repeats)
    cells = {tuple(map(int, ops)): i for i, ops in enumerate(table.ops)}
    values = table.test_seed888[:, 0].tolist()
    seconds = min(timed(lambda s=s: plain_python(values, cells, 500, s)) for s in range(20))
    slow = 500 / seconds
    yield (
        f"evaluations a second, {runs} runs side by side",
        rate,
        f"plain Python {slow:,.0f}",
        f"{rate / slow:.0f}x",
    )
    yield "seconds to compile and run once", compiling, "", ""


def main():
    args = options(__doc__).parse_args()
    table = load_table()
    runs = 200 if args.quick else 1000
    rows = [
        *speed_rows(table, 2000 if args.quick else 4000, 3 if args.quick else 10),
        *random_rows(table, runs),
        *evolution_rows(table, 200),
        *toy_rows(50),
    ]
    note = (
        "Reference figures: spec of the table and, for the toy, the paper's notebook over 50 seeds."
    )
    publish(
        args,
        "Searches on the NAS-Bench-201 table",
        ("what", "here", "reference", "difference"),
        rows,
        note,
    )


if __name__ == "__main__":
    main()
