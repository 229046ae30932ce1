"""Training many different candidates: candidates x steps a second under each plan.

One NAS-Bench-201 network per random cell, all cells in one program (`any_network`), in 1-D
(MNIST-1D) and in 2-D (32 x 32 images of random content), for 1, 8 and 64 candidates. Each plan is
timed over the same epochs after a first, compiling epoch; plans are interleaved.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from common import options, publish, timed

from jaxnas.cells import nas_bench_201
from jaxnas.cells.nas_bench_201_net import any_network
from jaxnas.data import Dataset, Split, load
from jaxnas.train.fit import Recipe, trainer
from jaxnas.train.plan import EXECUTIONS


def images(steps, batch):
    rng = np.random.default_rng(0)
    train, rest = (
        Split(rng.integers(0, 256, (n, 32, 32, 3), np.uint8), rng.integers(0, 10, n, np.int32))
        for n in (steps * batch, batch)
    )
    half = (0.5,) * 3
    names = tuple("0123456789")
    return Dataset("noise", train, rest, rest, names, half, half, "none", "generated")


def signals(steps, batch):
    data = load("mnist1d")
    few = Split(data.train.x[: steps * batch], data.train.y[: steps * batch])
    some = Split(data.valid.x[:batch], data.valid.y[:batch])
    return Dataset("mnist1d", few, some, some, data.classes, data.mean, data.std, "", "")


def rows(dimensions, data, steps, batch, channels, counts, repeats):
    make = partial(any_network, classes=10, channels=channels, layers=1)
    recipe = Recipe(epochs=1, batch=batch, augment=False)
    for count in counts:
        genotypes = nas_bench_201.sample(jax.random.key(1), count)
        trainers = {e: trainer(make, data, recipe, execution=e) for e in EXECUTIONS}
        calls = {
            e: partial(fit, jax.random.key(0), genotypes, jnp.ones(count, jnp.int32))
            for e, fit in trainers.items()
        }
        compiling = {e: timed(call) for e, call in calls.items()}
        best = dict.fromkeys(calls, float("inf"))
        for _ in range(repeats):
            for e, call in calls.items():
                best[e] = min(best[e], timed(call))
        rates = {e: count * steps / seconds for e, seconds in best.items()}
        top = max(rate for e, rate in rates.items() if e != "auto")
        for e, rate in rates.items():
            share = f"{100 * rate / top:.0f} %"
            yield (
                f"{dimensions}-D, C={channels} N=1, batch {batch}",
                count,
                e,
                rate,
                share,
                compiling[e],
            )


def main():
    parser = options(__doc__)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[1, 2], choices=[1, 2])
    args = parser.parse_args()
    counts, repeats = ((1, 8), 2) if args.quick else ((1, 8, 64), 4)
    table = []
    if 1 in args.dimensions:
        table += rows(1, signals(16, 64), 16, 64, 8, counts, repeats)
    if 2 in args.dimensions and not args.quick:
        table += rows(2, images(4, 16), 4, 16, 16, counts, 2)
    head = (
        "network",
        "candidates",
        "execution",
        "candidates x steps / s",
        "of the best",
        "first call, s",
    )
    note = "Evaluation on one batch each of validation and test data is included in every call."
    publish(args, "Training many candidates", head, table, note)


if __name__ == "__main__":
    main()
