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
from jax.export import default_export_platform

from jaxnas.data import load
from jaxnas.programs.lessons import classification
from jaxnas.programs.sandbox import Pool
from jaxnas.programs.sandbox.program import Task, trace
from jaxnas.programs.sandbox.trainer import Job
from jaxnas.programs.sandbox.worker import Worker
from jaxnas.train.portable import opened

TASK, RATE = Task((40,), 10, platforms=(default_export_platform(),)), 0.01
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


def loop(step, state, orders):
    """Seconds of steps, each with its batch; state is the first of what a step gives."""
    begin = time.perf_counter()
    for index in orders:
        state, _ = step(state, index)
    jax.block_until_ready(state)
    return time.perf_counter() - begin


def batches(dataset, steps):
    return np.random.default_rng(0).integers(0, len(dataset.train.y), (steps, TASK.batch))


def direct(text, dataset):
    """A step of Flax and optax, how a run begins, and its accuracy."""
    home = {}
    exec(text, home)
    model, tx = home["Model"](), optax.adamw(RATE)
    x, y = (jax.device_put(a) for a in dataset.train)

    @jax.jit
    def begin():
        params = model.init(jax.random.key(0), x[:1])
        return params, tx.init(params)

    @partial(jax.jit, donate_argnums=0)
    def step(state, index):
        params, memory = state

        def loss(params):
            logits = model.apply(params, x[index])
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[index]).mean()

        value, slope = jax.value_and_grad(loss)(params)
        change, memory = tx.update(slope, memory, params)
        return (optax.apply_updates(params, change), memory), value

    @jax.jit
    def accuracy(state):
        return (model.apply(state[0], dataset.valid.x).argmax(-1) == dataset.valid.y).mean()

    return begin, step, accuracy


def exported(text, dataset):
    """The same two through exported programs."""
    programs = opened(trace(text, TASK).programs)
    x, y = (jax.device_put(a) for a in dataset.train)
    key, rate = np.zeros(2, np.uint32), np.float32(RATE)

    @partial(jax.jit, donate_argnums=0)
    def step(state, index):
        return programs.step.call(state, x[index], y[index], key, rate)[:2]

    return lambda: jax.jit(programs.init.call)(key), step


def overhead(dataset, steps, rounds):
    """Rows of milliseconds a step, direct and exported."""
    orders = batches(dataset, steps)
    for name in BODIES:
        ways = [make(source(name), dataset)[:2] for make in (direct, exported)]
        for begin, step in ways:
            loop(step, begin(), orders[:3])  # compiles
        times = [[loop(step, begin(), orders) for begin, step in ways] for _ in range(rounds)]
        own, ours = (1000 * min(column) / steps for column in zip(*times, strict=True))
        yield name, own, ours, f"{100 * (ours / own - 1):+.1f} %"


def alone(text, dataset, steps, evaluate_every=100):
    """Trains one candidate as a script would, judged every so many steps."""
    begin, step, accuracy = direct(text, dataset)
    state = begin()
    for i, index in enumerate(batches(dataset, steps), 1):
        state, _ = step(state, index)
        if i % evaluate_every == 0 or i == steps:
            float(accuracy(state))


ALONE = """
import sys
sys.path.insert(0, {folder!r})
from jaxnas.data import load
from programs import alone
alone(sys.stdin.read(), load("mnist1d"), {steps})
"""


def throughput(dataset, steps, count):
    """Rows of candidates a minute, by one worker and by one process each."""
    texts = [source(name, 70 + i) for i in range(count) for name in BODIES]
    jobs = [Job(trace(t, TASK).programs, np.zeros(2, np.uint32), steps=steps) for t in texts]
    with Worker(classification(dataset).fit) as worker:
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
    if args.quick:
        del BODIES["strided convolutions"], BODIES["residual convolutions"]
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
            "For the kind of device at hand alone, as in a search.",
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
