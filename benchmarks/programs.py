"""Programs from sources: how fast they are checked, what they cost, and how fast they are trained.

Three tables. Sources traced a second in the warm sandbox, all different. One training step as an
exported program against the same step of Flax and optax, compiled in this process; interleaved, the
best of several rounds. Candidates trained a minute by one worker against one Python process for each
candidate, which starts, compiles and trains with Flax and optax.
"""

import subprocess
import sys
import time
from functools import partial

import jax
import numpy as np
import optax
from common import options, publish

from jaxnas.data import load
from jaxnas.programs.sandbox import Pool
from jaxnas.programs.sandbox.program import Task, trace
from jaxnas.programs.sandbox.trainer import Job
from jaxnas.programs.sandbox.worker import Worker
from jaxnas.train.exported import fit_exported
from jaxnas.train.portable import opened

TASK, RATE = Task((40,), 10), 0.01
HEAD = "import flax.linen as nn\n\n\nclass Model(nn.Module):\n    @nn.compact\n    def __call__(self, x):\n"
BODIES = {
    "residual perceptron": """
        x = nn.relu(nn.Dense({0})(x))
        x = x + nn.relu(nn.Dense({0})(x))
        return nn.Dense(10)(x)
""",
    "strided convolutions": """
        x = x[..., None]
        for size in (5, 3, 3):
            x = nn.relu(nn.Conv({0} // 4, (size,), strides=2, padding=1)(x))
        return nn.Dense(10)(x.reshape(len(x), -1))
""",
    "residual convolutions": """
        x = nn.relu(nn.Conv({0} // 3, (3,))(x[..., None]))
        x = nn.avg_pool(x + nn.Conv({0} // 3, (3,))(x), (2,), (2,))
        x = nn.avg_pool(nn.relu(nn.Conv({0} // 3, (3,))(x)), (2,), (2,))
        x = nn.relu(nn.Dense(256)(x.reshape(len(x), -1)))
        return nn.Dense(10)(x)
""",
}


def source(name, width=100):
    return HEAD + BODIES[name].format(width)


def checked(count):
    """Rows of sources traced a second, and the level of isolation."""
    for name in BODIES:
        with Pool(TASK, workers=2) as pool:
            pool.check([source(name, 50), source(name, 51)])  # starts both processes
            begin = time.perf_counter()
            verdicts = pool.check([source(name, 60 + i) for i in range(count)])
            seconds = time.perf_counter() - begin
        assert all(v.ok for v in verdicts), verdicts[0].message
        mean = sum(v.seconds for v in verdicts) / count
        yield name, count, count / seconds, mean, verdicts[0].isolation


def direct(text, dataset, steps, evaluate_every=100):
    """Seconds of training steps, compiled before, by an ordinary loop with Flax and optax."""
    home = {}
    exec(text, home)
    model, tx = home["Model"](), optax.adamw(RATE)
    x, y = (jax.device_put(a) for a in dataset.train)
    params = jax.jit(model.init)(jax.random.key(0), x[:1])
    memory = jax.jit(tx.init)(params)

    @partial(jax.jit, donate_argnums=(0, 1))
    def step(params, memory, index):
        def loss(params):
            logits = model.apply(params, x[index])
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[index]).mean()

        value, slope = jax.value_and_grad(loss)(params)
        change, memory = tx.update(slope, memory, params)
        return optax.apply_updates(params, change), memory, value

    right = jax.jit(
        lambda params, split: (model.apply(params, split.x).argmax(-1) == split.y).mean()
    )
    orders = np.random.default_rng(0).integers(0, len(y), (steps + 1, TASK.batch))
    params, memory, _ = step(params, memory, orders[0])
    jax.block_until_ready((params, right(params, dataset.valid)))
    begin = time.perf_counter()
    for i, index in enumerate(orders[1:], 1):
        params, memory, _ = step(params, memory, index)
        if i % evaluate_every == 0 or i == steps:
            float(right(params, dataset.valid))
    jax.block_until_ready(params)
    return time.perf_counter() - begin


def exported(programs, dataset, steps):
    """Seconds of the same through exported programs: a long fit less a short one, both compiled."""

    def fit(steps):
        begin = time.perf_counter()
        fit_exported(programs, dataset, jax.random.key(0), (0,), (RATE,), steps=steps)
        return time.perf_counter() - begin

    return fit(steps + 100) - fit(100)


def overhead(dataset, steps, rounds):
    """Rows of milliseconds a step, direct and exported."""
    for name in BODIES:
        programs = opened(trace(source(name), TASK).programs)
        own, ours = [], []
        for _ in range(rounds):
            own.append(direct(source(name), dataset, steps))
            ours.append(exported(programs, dataset, steps))
        a, b = (1000 * min(times) / steps for times in (own, ours))
        yield name, a, b, f"{100 * (b / a - 1):+.1f} %"


ALONE = """
import json, sys
sys.path.insert(0, {folder!r})
from jaxnas.data import load
from programs import direct
print(direct(sys.stdin.read(), load("mnist1d"), {steps}))
"""


def throughput(dataset, steps, count):
    """Rows of candidates a minute, by one worker and by one process each."""
    texts = [source(name, 70 + i) for i in range(count) for name in BODIES]
    jobs = [Job(trace(t, TASK).programs, np.zeros(2, np.uint32), steps=steps) for t in texts]
    with Worker(dataset) as worker:
        worker.train([jobs[0]._replace(steps=1)], 600.0)
        begin = time.perf_counter()
        outcomes = worker.train(jobs, 600.0)
        ours = time.perf_counter() - begin
    assert not any(o.failure for o in outcomes), outcomes
    code = ALONE.format(folder=sys.path[0], steps=steps)
    begin = time.perf_counter()
    for text in texts:
        subprocess.run(
            [sys.executable, "-c", code],
            input=text,
            text=True,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    theirs = time.perf_counter() - begin
    for way, seconds in (("one worker", ours), ("a process each", theirs)):
        yield way, len(texts), 60 * len(texts) / seconds, f"{theirs / seconds:.2f} x"


def main():
    parser = options(__doc__)
    parser.add_argument("--parts", nargs="+", default=["check", "overhead", "train"])
    args = parser.parse_args()
    dataset = load("mnist1d")
    # A program that was compiled yesterday would make the comparison unfair.
    jax.config.update("jax_enable_compilation_cache", False)
    if "check" in args.parts:
        rows = list(checked(4 if args.quick else 40))
        head = ("network", "sources", "a second", "seconds each", "isolation")
        publish(
            args,
            "Sources checked and traced, two at a time",
            head,
            rows,
            "For CPU, CUDA and TPU at once.",
        )
    if "overhead" in args.parts:
        rows = list(overhead(dataset, *((100, 1) if args.quick else (1000, 5))))
        head = ("network", "direct, ms a step", "exported, ms a step", "overhead")
        publish(
            args, "Training steps of exported programs", head, rows, "Batch 128, AdamW, MNIST-1D."
        )
    if "train" in args.parts:
        steps, count = (20, 1) if args.quick else (1000, 4)
        rows = list(throughput(dataset, steps, count))
        note = f"{steps} steps each, compilation included; tracing in the sandbox is not."
        publish(args, "Candidates trained", ("way", "candidates", "a minute", "speed"), rows, note)


if __name__ == "__main__":
    main()
