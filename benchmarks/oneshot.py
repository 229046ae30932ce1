"""A step of every one-shot method on both spaces: seconds, memory, one seed and eight.

A step trains the architecture on one batch and the weights on another. Images are noise of 32 x 32
points, sequences noise of 40. Eight seeds are side by side (`vmap`) on sequences and on an
accelerator, one after another within the program (`map`) for images on CPU, as the recipes do.
The NAS-Bench-201 supernet of C=16 N=5 is timed against the same in PyTorch, under
`--torch-python`; memory is what the compiled step needs beside its arguments, and those. Most of the
time goes into compiling; what has not begun after `--minutes` is left out and named, and `--only` measures it.
"""

import re
import sys
import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from common import options, publish, timed
from supernet_step import Torch

from jaxnas.core import over_seeds
from jaxnas.oneshot import darts_space, nas_bench_201
from jaxnas.oneshot.bilevel import Schedule, bilevel
from jaxnas.oneshot.darts import darts
from jaxnas.oneshot.drnas import drnas
from jaxnas.oneshot.pc_darts import pc_darts
from jaxnas.oneshot.sdarts import sdarts
from jaxnas.oneshot.sgas import sgas
from jaxnas.train.batches import Data

# name -> (relaxation of the choices, one in so many channels, order)
METHODS = {
    "DARTS, first order": (darts, 1, "first"),
    "DARTS, second order": (darts, 1, "second"),
    "DARTS, exact order": (darts, 1, "exact"),
    "weights alone": (darts, 1, "fixed"),
    "PC-DARTS, K=4": (pc_darts, 4, "first"),
    "SDARTS-RS": (lambda choices: sdarts(darts(choices)), 1, "first"),
    "SDARTS-ADV": (lambda choices: sdarts(darts(choices), form="adversarial"), 1, "first"),
    "SGAS": (lambda choices: sgas(choices, per_epoch=100), 1, "first"),
    "DrNAS": (drnas, 1, "first"),
    "DrNAS, K=4": (drnas, 4, "first"),
}
QUICK = ("DARTS, first order", "PC-DARTS, K=4")
# The DARTS supernet compiles for a minute: there the orders and a second K=4 are left out.
ONCE = ("DARTS, second order", "DARTS, exact order", "DrNAS, K=4")
FIRST = ("DARTS, first order",)
CELLS_1D = "NAS-Bench-201, 1-D, C=16 N=1, batch 64"
CELLS_2D = "NAS-Bench-201, 2-D, C=16 N=5, batch 64"
PAIRS_1D = "DARTS space, 1-D, C=8 L=3, batch 64"
PAIRS_2D = "DARTS space, 2-D, C=8 L=3, batch 16"


def noise(shape, batch):
    x = jax.random.normal(jax.random.key(0), (2 * batch, *shape))
    channels = shape[-1]
    return Data(x, jnp.arange(2 * batch) % 10, jnp.zeros(channels), jnp.ones(channels))


def measure(space, shape, batch, sizes, method, seeds, repeats):
    """Seconds of a step, of compiling it, and MiB it needs."""
    relaxation, partial, order = METHODS[method]
    net = space.supernet(classes=10, partial=partial, **sizes)
    data, schedule = noise(shape, batch), replace(Schedule(batch=batch), order=order)
    search = bilevel(net, data, data, relaxation(net.choices), schedule)
    keys = jax.random.split(jax.random.key(0), seeds)
    serial = jax.default_backend() == "cpu" and len(shape) == 3
    search = over_seeds(search, "map" if serial else "vmap")
    state = jax.jit(search.init)(keys)
    begin = time.perf_counter()
    step = jax.jit(search.step).lower(keys, state).compile()
    compiling = time.perf_counter() - begin
    found: Any = step.memory_analysis()
    needed = (found.temp_size_in_bytes + found.argument_size_in_bytes) / 2**20
    timed(lambda: step(keys, state))
    return min(timed(lambda: step(keys, state)) for _ in range(repeats)), compiling, needed


def main():
    parser = options(__doc__)
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has torch")
    parser.add_argument("--minutes", type=float, default=20, help="no case begins later")
    parser.add_argument("--only", default="", help="cases `SUPERNET, METHOD, SEEDS` to search for")
    args = parser.parse_args()
    begin = time.perf_counter()
    small, big, pairs = ({"channels": c, "layers": n} for c, n in ((16, 1), (16, 5), (8, 3)))
    line, image = (40, 1), (32, 32, 3)
    distinct = [name for name in METHODS if name not in ONCE]
    cases = [  # title, what is measured, and by which methods for how many seeds
        (CELLS_1D, (nas_bench_201, line, 64, small), QUICK, 8, 3),
        (CELLS_1D, (nas_bench_201, line, 64, small), QUICK if args.quick else METHODS, 1, 3),
        (CELLS_2D, (nas_bench_201, image, 64, big), METHODS, 1, 1),
        (PAIRS_1D, (darts_space, line, 64, pairs), distinct, 1, 3),
        (PAIRS_2D, (darts_space, image, 16, pairs), QUICK, 1, 1),
        (PAIRS_1D, (darts_space, line, 64, pairs), FIRST, 8, 3),
    ]
    cases = [
        (title, method, seeds, what, repeats)
        for title, what, methods, seeds, repeats in (cases[:2] if args.quick else cases)
        for method in methods
        if re.search(args.only, f"{title}, {method}, {seeds}")
    ]
    base = float("nan")
    if any(title == CELLS_2D for title, *_ in cases):
        torch = Torch(args.torch_python, 16, 5, 64)
        if torch.version:
            base = min(torch.ask("step") for _ in range(4))
        torch.process.terminate()
    rows, left = [], []
    for title, method, seeds, what, repeats in cases:
        if time.perf_counter() - begin > 60 * args.minutes:
            left.append(f"{title}, {method}, {seeds}")
            continue
        step, compiling, needed = measure(*what, method, seeds, repeats)
        ratio = f"{step / base:.2f}" if title == CELLS_2D and base == base else ""
        rows.append((title, method, seeds, step, step / seeds, compiling, needed, ratio))
        jax.clear_caches()
    head = (
        "supernet",
        "method",
        "seeds",
        "step, s",
        "of it a seed, s",
        "compile, s",
        "memory, MiB",
        "of PyTorch's DARTS",
    )
    known = base == base
    note = f"PyTorch's first-order step, least of four: {base:.3f} s." if known else "No PyTorch."
    note += f" Left out for want of time: {'; '.join(left)}." if left else ""
    publish(args, "A step of every one-shot method", head, rows, note)


if __name__ == "__main__":
    main()
