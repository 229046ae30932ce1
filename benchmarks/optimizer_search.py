"""Optimizer search on MNISTNET: how long a search takes, and how many rules a second.

A whole search of 128 evaluations (10 rates and 10 seeds of 100 steps each) from a cold start. The
same rules evaluated by each back-end and, beside them, by a program compiled for each expression,
as implementations without batching do. Distinct rules screened for 20 steps in one run.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from common import options, publish, timed

from jaxnas.core import close, compiled, run_host
from jaxnas.formulas.filters import known, screener
from jaxnas.formulas.grow import sample
from jaxnas.formulas.judge import Judge
from jaxnas.formulas.mnistnet import mnistnet
from jaxnas.formulas.optimizer_search import optimizer_search
from jaxnas.formulas.rules import one_rule
from jaxnas.formulas.training import prepare, train, trainer
from jaxnas.formulas.update_rules import space


def search_row(quick):
    begin = time.perf_counter()
    grammar = space("gnn")
    judge = Judge(mnistnet(steps=10 if quick else 100), grammar)
    searcher = optimizer_search(grammar, judge.screen, samples=8 if quick else 32, levels=4)
    *_, (_, state, _) = run_host(close(searcher, judge), jax.random.key(0), 12)
    seconds = time.perf_counter() - begin
    return ["whole search", int(state.cost), f"{seconds:.1f} s", f"best {float(state.fitness):.4f}"]


def distinct(grammar, count):
    """So many rules that pass the tests, all with different prints."""
    screen, found, prints = screener(grammar), [], np.zeros((count, 25), np.float32)
    draw = jax.jit(lambda key: sample(key, grammar, 2048, constrained=True))
    key, drawn = jax.random.key(1), 0
    while len(found) < count:
        key, key_draw = jax.random.split(key)
        tapes = draw(key_draw)
        told = jax.device_get(screen(tapes))
        drawn += len(tapes)
        for tape, good, answer in zip(np.asarray(tapes), told.good, told.prints, strict=True):
            if good and len(found) < count and known(prints[: len(found)], answer) < 0:
                prints[len(found)] = answer
                found.append(tape)
    return np.stack(found), drawn


def throughput_rows(quick, steps):
    """Rules a second with 10 rates of one seed, compilation included."""
    grammar, task = space("gnn"), mnistnet(steps=steps)
    tapes, _ = distinct(grammar, 32 if quick else 256)
    few = tapes[: 2 if quick else 8]
    rates = jnp.asarray(task.rates, jnp.float32)
    keys = jnp.broadcast_to(jax.random.key(0), rates.shape)
    runs = jax.vmap(lambda key: prepare(task, key))(keys)
    each = timed(lambda: [in_turn(task, grammar, tape, rates, runs) for tape in few]) / len(few)
    side = timed(lambda: [alone(task, grammar, tape, rates, runs) for tape in few]) / len(few)
    yield [f"{steps} steps, a program each, rates in turn", len(few), 1 / each, 1.0]
    yield [f"{steps} steps, a program each, rates vmapped", len(few), 1 / side, each / side]
    for how in ("group", "map"):
        run, grid = trainer(task, grammar, how), jnp.tile(rates, (len(tapes), 1))
        seconds = timed(lambda run=run, grid=grid: run(tapes, grid, keys).score) / len(tapes)
        yield [f"{steps} steps, {how}", len(tapes), 1 / seconds, each / seconds]


def alone(task, grammar, tape, rates, runs):
    return compiled(lambda rates, runs: train(task, one_rule(grammar, tape), rates, runs))(
        rates, runs
    )


def in_turn(task, grammar, tape, rates, runs):
    run = compiled(lambda rates, runs: train(task, one_rule(grammar, tape), rates, runs))
    each = [jax.tree.map(lambda x, r=r: x[r : r + 1], (rates, runs)) for r in range(len(rates))]
    return [jax.block_until_ready(run(*one)) for one in each]


def screening_row(quick):
    grammar, task = space("conv"), mnistnet(steps=20)
    begin = time.perf_counter()
    tapes, drawn = distinct(grammar, 64 if quick else 5000)
    sampled = time.perf_counter() - begin
    rates = jnp.asarray(task.rates, jnp.float32)
    keys = jnp.broadcast_to(jax.random.key(0), rates.shape)
    grid = jnp.tile(rates, (len(tapes), 1))
    run = trainer(task, grammar, "map")
    seconds = timed(lambda: run(tapes, grid, keys).score)
    score = np.asarray(run(tapes[:64], grid[:64], keys).score).max()
    return [
        f"distinct rules of {drawn:,} drawn ({sampled:.0f} s), 20 steps, 10 rates",
        len(tapes),
        f"{seconds:.0f} s",
        f"{len(tapes) / seconds:.1f} rules a second; best of the first 64: {score:.3f}",
    ]


def main():
    args = options(__doc__).parse_args()
    publish(
        args,
        "Optimizer search: whole runs",
        ["what", "rules", "time, compilation included", "note"],
        [search_row(args.quick), screening_row(args.quick)],
        "The paper's search took 0.92 h on an RTX 2080 Ti.",
    )
    publish(
        args,
        "Optimizer search: rules a second",
        ["10 rates, 1 seed", "rules", "rules a second", "of a program each"],
        [row for steps in (20, 100) for row in throughput_rows(args.quick, steps)],
        "Compilation is included throughout. A program each is compiled for every expression.",
    )


if __name__ == "__main__":
    main()
