"""A step of every one-shot method on both spaces: seconds, memory, one seed and eight.

A step trains the architecture on one batch and the weights on another. Images are noise of 32 x 32
points, sequences noise of 40. Eight seeds are side by side (`vmap`) on sequences and on an
accelerator, one after another within the program (`map`) for images on CPU, as the recipes do.
The NAS-Bench-201 supernet of C=16 N=5 is timed against the same in PyTorch, under
`--torch-python`; memory is what the compiled step needs beside its arguments, and those.
"""

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
    args = parser.parse_args()
    big = {"channels": 16, "layers": 5}
    cases = [
        ("NAS-Bench-201, 1-D, C=16 N=1, batch 64", nas_bench_201, (40, 1), 64, (1, 8), 3),
        ("NAS-Bench-201, 2-D, C=16 N=5, batch 64", nas_bench_201, (32, 32, 3), 64, (1,), 1),
        ("DARTS space, 1-D, C=8 L=3, batch 64", darts_space, (40, 1), 64, (1, 8), 3),
        ("DARTS space, 2-D, C=8 L=3, batch 16", darts_space, (32, 32, 3), 16, (1, 8), 1),
    ]
    sizes = [{"channels": 16, "layers": 1}, big, *[{"channels": 8, "layers": 3}] * 2]
    methods = QUICK if args.quick else METHODS
    base = float("nan")
    if not args.quick:
        torch = Torch(args.torch_python, 16, 5, 64)
        if torch.version:
            base = min(torch.ask("step") for _ in range(4))
        torch.process.terminate()
    rows = []
    for (title, space, shape, batch, seeds, repeats), size in zip(cases, sizes, strict=True):
        if args.quick and (len(shape) == 3 or space is darts_space):
            continue
        for method in methods:
            for count in seeds:
                case = (space, shape, batch, size, method, count, repeats)
                step, compiling, needed = measure(*case)
                ratio = f"{step / base:.2f}" if size is big and base == base else ""
                each = step / count
                rows.append((title, method, count, step, each, compiling, needed, ratio))
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
    note = f"PyTorch's first-order step, least of four: {base:.3f} s."
    publish(args, "A step of every one-shot method", head, rows, note)


if __name__ == "__main__":
    main()
