"""One first-order DARTS step on the NAS-Bench-201 supernet, here and plainly in PyTorch.

A step is a gradient of the architecture on one batch and one of the weights on another, with their
updates. PyTorch runs eagerly in a process of its own, under `--torch-python` or this interpreter;
the two take turns step by step, with two threads each. Both count the same multiply-adds: batch
statistics everywhere, scale and shift only in the stem, the reductions and the head. The logits
are compared once, on the same weights. Without PyTorch that row is left out.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = 2
SIZE = 32


def torch_net(channels, layers):  # noqa: C901 (classes need torch, which may be absent)
    import torch  # ty: ignore[import-not-found]
    from torch import nn  # ty: ignore[import-not-found]
    from torch.nn import functional  # ty: ignore[import-not-found]

    def norm(c, affine=True):
        return nn.BatchNorm2d(c, affine=affine, track_running_stats=False)

    def conv(c, d, k, stride=1):
        return nn.Conv2d(c, d, k, stride, k // 2, bias=False)

    class Edge(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.conv1, self.conv3 = conv(c, c, 1), conv(c, c, 3)
            self.norm1, self.norm3 = norm(c, False), norm(c, False)

        def forward(self, x, w):
            pooled = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
            one, three = (
                self.norm1(self.conv1(functional.relu(x))),
                self.norm3(self.conv3(functional.relu(x))),
            )
            return w[1] * x + w[2] * one + w[3] * three + w[4] * pooled

    class Cell(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.edges = nn.ModuleList(Edge(c) for _ in range(6))

        def forward(self, x, mix):
            nodes, edge = [x], 0
            for node in range(1, 4):
                nodes.append(
                    sum(self.edges[edge + j](nodes[j], mix[edge + j]) for j in range(node))
                )
                edge += node
            return nodes[-1]

    class Halve(nn.Module):
        def __init__(self, c):
            super().__init__()
            self.conv_a, self.norm_a = conv(c, 2 * c, 3, 2), norm(2 * c)
            self.conv_b, self.norm_b = conv(2 * c, 2 * c, 3), norm(2 * c)
            self.short = conv(c, 2 * c, 1)

        def forward(self, x, mix):
            y = self.norm_a(self.conv_a(functional.relu(x)))
            return self.norm_b(self.conv_b(functional.relu(y))) + self.short(
                functional.avg_pool2d(x, 2)
            )

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.stem_norm = conv(3, channels, 3), norm(channels)
            parts = []
            for stage in range(3):
                c = channels << stage
                parts += [Halve(c // 2)] if stage else []
                parts += [Cell(c) for _ in range(layers)]
            self.parts = nn.ModuleList(parts)
            self.last, self.head = norm(4 * channels), nn.Linear(4 * channels, 10)

        def forward(self, x, mix):
            x = self.stem_norm(self.stem(x))
            for part in self.parts:
                x = part(x, mix)
            return self.head(functional.relu(self.last(x)).mean((2, 3)))

    torch.manual_seed(0)
    return Net()


def torch_worker(channels, layers, batch):
    """Answers each line of stdin: `step` with its seconds, a path with logits for its weights."""
    import numpy as np
    import torch  # ty: ignore[import-not-found]
    from torch.nn import functional  # ty: ignore[import-not-found]

    torch.set_num_threads(THREADS)
    net, alphas = torch_net(channels, layers), torch.zeros(6, 5, requires_grad=True)
    weights = list(net.parameters())
    descend = torch.optim.SGD(weights, 0.025, momentum=0.9, weight_decay=3e-4)
    adam = torch.optim.Adam([alphas], 3e-4, betas=(0.5, 0.999), weight_decay=1e-3)
    x, y = torch.randn(batch, 3, SIZE, SIZE), torch.randint(0, 10, (batch,))

    def step():
        loss = functional.cross_entropy(net(x, alphas.softmax(-1)), y)
        (alphas.grad,) = torch.autograd.grad(loss, [alphas])
        adam.step()
        loss = functional.cross_entropy(net(x, alphas.detach().softmax(-1)), y)
        for w, g in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            w.grad = g
        torch.nn.utils.clip_grad_norm_(weights, 5.0)
        descend.step()

    print(torch.__version__, flush=True)
    for line in map(str.strip, sys.stdin):
        if line == "step":
            begin = time.perf_counter()
            step()
            print(time.perf_counter() - begin, flush=True)
        elif line == "memory":
            print(peak_memory(), flush=True)
        else:
            given = {k: torch.from_numpy(v) for k, v in np.load(line).items()}
            images, mix = given.pop("x"), given.pop("mix")
            net.load_state_dict(given)
            print(json.dumps(net(images, mix).tolist()), flush=True)


def peak_memory():
    """MiB resident at most in this process so far."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Torch:
    """The other process; `ask` sends a line and returns the answer, `version` is empty without it."""

    def __init__(self, python, channels, layers, batch):
        work = [python, __file__, "--worker", str(channels), str(layers), str(batch)]
        env = os.environ | {"OMP_NUM_THREADS": str(THREADS)}
        self.process = subprocess.Popen(
            work, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
        )
        self.version = self._answer()

    def ask(self, line):
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()
        return json.loads(self._answer())

    def _answer(self):
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()


def as_torch(weights, layers):
    """Our weights under the names of `torch_net`; every edge gets its slice of a fused kernel."""
    import jax
    import numpy as np

    def conv(module):
        return np.transpose(module["kernel"], (3, 2, 0, 1))

    def norm(name, module):
        return {f"{name}.weight": module["scale"], f"{name}.bias": module["bias"]}

    named = {"stem.weight": conv(weights["Conv_0"])} | norm("stem_norm", weights["Norm_0"])
    named |= norm("last", weights["Norm_1"])
    named |= {
        "head.weight": weights["Dense_0"]["kernel"].T,
        "head.bias": weights["Dense_0"]["bias"],
    }
    parts = iter(f"parts.{i}" for i in range(3 * layers + 2))
    for stage in range(3):
        if stage:
            halve, to = weights[f"Residual_{stage - 1}"], next(parts)
            for ours, theirs in enumerate(("conv_a", "conv_b", "short")):
                named[f"{to}.{theirs}.weight"] = conv(halve[f"Conv_{ours}"])
            named |= norm(f"{to}.norm_a", halve["Norm_0"]) | norm(f"{to}.norm_b", halve["Norm_1"])
        for layer in range(layers):
            cell = jax.tree.map(lambda leaf, i=layer: leaf[i], weights[f"stacked_{stage}"])
            to = next(parts)
            for (size, j), kernel in edge_kernels(cell):
                named[f"{to}.edges.{j}.conv{size}.weight"] = conv({"kernel": kernel})
    return {k: np.ascontiguousarray(v) for k, v in named.items()}


def edge_kernels(cell):
    """`((size, edge), kernel)` of a cell, one for each target."""
    import numpy as np

    for size, source in ((s, j) for s in (1, 3) for j in range(3)):
        stacked = np.asarray(cell[f"stacked_conv{size}_{source}"]["kernel"])
        for target, kernel in enumerate(stacked, source + 1):
            yield (size, target * (target - 1) // 2 + source), kernel


def difference(torch, net, weights, layers, batch):
    """Largest difference of the logits on the same weights and images."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxnas.oneshot.supernet import Mix

    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch, SIZE, SIZE, 3)).astype(np.float32)
    mix = rng.dirichlet(np.ones(5), 6).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "weights.npz")
        arrays = as_torch(jax.device_get(weights), layers)
        np.savez(path, **arrays, x=x.transpose(0, 3, 1, 2), mix=mix)
        theirs = np.asarray(torch.ask(path))
    key = jax.random.key(0)
    weighed = Mix(jnp.asarray(mix), jnp.ones(6))
    ours = np.asarray(jax.jit(net.logits)(weights, weighed, x, key))
    return float(np.abs(ours - theirs).max())


def our_step(net, batch):
    """The state of a search on noise, its compiled step, and seconds to trace and compile."""
    import jax
    import jax.numpy as jnp

    from jaxnas.oneshot.bilevel import Schedule, bilevel
    from jaxnas.oneshot.darts import darts
    from jaxnas.train.batches import Data

    x = jax.random.normal(jax.random.key(0), (2 * batch, SIZE, SIZE, 3))
    data = Data(x, jnp.arange(2 * batch) % 10, jnp.zeros(3), jnp.ones(3))
    search = bilevel(net, data, data, darts(net.choices), Schedule(batch=batch))
    state = jax.jit(search.init)(jax.random.key(0))
    begin = time.perf_counter()
    step = jax.jit(search.step).lower(jax.random.key(0), state).compile()
    return state, step, time.perf_counter() - begin


def main():
    import jax
    from common import options, publish, timed

    from jaxnas.oneshot.nas_bench_201 import supernet

    parser = options(__doc__)
    for name, default in (("channels", 16), ("layers", 5), ("batch", 64), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--torch-python", default=sys.executable, help="a Python that has torch")
    args = parser.parse_args()
    if args.quick:
        args.layers, args.batch, args.repeats = 1, 16, 3
    net = supernet(classes=10, channels=args.channels, layers=args.layers)
    state, step, compiling = our_step(net, args.batch)
    torch = Torch(args.torch_python, args.channels, args.layers, args.batch)
    there = bool(torch.version)
    error = difference(torch, net, state.weights, args.layers, args.batch) if there else None

    ours, theirs = [], []
    for _ in range(args.repeats + 1):
        ours.append(timed(lambda: step(jax.random.key(0), state)))
        if there:
            theirs.append(torch.ask("step"))
    ours, theirs = ours[1:], theirs[1:]
    base = min(theirs) if there else float("nan")
    rows = [
        ("jaxnas", statistics.median(ours), min(ours), compiling, min(ours) / base, peak_memory())
    ]
    note = "No PyTorch under `--torch-python`: its row is left out."
    if there:
        rows += [
            ("PyTorch", statistics.median(theirs), base, 0.0, 1.0, torch.ask("memory")),
        ]
        note = f"PyTorch {torch.version}. Logits on the same weights differ by at most {error:.1e}."
    title = f"A DARTS step, C={args.channels} N={args.layers}, batch {args.batch}"
    head = ("", "median, s", "least, s", "compile, s", "of PyTorch's least", "peak memory, MiB")
    publish(args, title, head, rows, note)
    torch.process.terminate()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        torch_worker(*map(int, sys.argv[2:]))
    else:
        main()
