"""NAS-Bench-201 cells, slowly and otherwise than the library does it."""

import numpy as np

NONE, SKIP, CONV1, CONV3, POOL = range(5)
INTO = {1: [0], 2: [0, 1], 3: [0, 1, 2]}  # node -> sources, in the order of the six edges


def edges_of(ops):
    """`{(source, node): operation}`."""
    pairs = [(source, node) for node, sources in INTO.items() for source in sources]
    return dict(zip(pairs, map(int, ops), strict=True))


def topology(ops):
    """The class of a cell by the rule of the benchmark's authors, expanded backwards.

    A node is a row of terms: those of its edges, sorted as texts and laid end to end. An identity
    passes the whole row on (and it is not sorted again, so the rule tells apart some sums that
    differ in their order only). An edge that is zeroed, or reads a row that is one zero, is zero.
    """
    edges = edges_of(ops)

    def row(node):
        if node == 0:
            return ["input"]
        parts = [part(edges[source, node], row(source)) for source in INTO[node]]
        return [term for terms in sorted(parts, key=text) for term in terms]

    def part(op, terms):
        if op == NONE or terms == ["#"]:
            return ["#"]
        return terms if op == SKIP else [(op, tuple(terms))]

    def text(terms):
        # The authors sort by operation names, 'x' and '#': "#" < "(...)@..." < "x".
        names = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
        return "+".join(
            {"#": "#", "input": "x"}[t] if isinstance(t, str) else f"({text(t[1])})@{names[t[0]]}"
            for t in terms
        )

    return tuple(row(3))


def number(ops):
    """What a cell makes of the number .7 when its operations are some functions with f(0) = 0."""
    functions = {
        NONE: lambda x: 0.0,
        SKIP: lambda x: x,
        CONV1: lambda x: np.sin(1.3 * x),
        CONV3: lambda x: np.expm1(0.37 * x),
        POOL: lambda x: 0.61 * x * np.cos(x),
    }
    edges, nodes = edges_of(ops), {0: 0.7}
    for node, sources in INTO.items():
        nodes[node] = sum(functions[edges[source, node]](nodes[source]) for source in sources)
    return nodes[3]


def convolve(x, kernel):
    """`[B, L, C]` by `[k, C, D]` with zeros outside, four loops."""
    batch, length, _ = x.shape
    size = kernel.shape[0]
    y = np.zeros((batch, length, kernel.shape[2]))
    for b in range(batch):
        for at in range(length):
            for tap in range(size):
                source = at + tap - size // 2
                if 0 <= source < length:
                    y[b, at] += x[b, source] @ kernel[tap]
    return y


def normalise(x, epsilon=1e-5):
    """Every channel by the mean and the (biased) variance of this batch."""
    out = np.zeros_like(x)
    for channel in range(x.shape[-1]):
        values = x[..., channel]
        spread = np.sqrt(((values - values.mean()) ** 2).mean() + epsilon)
        out[..., channel] = (values - values.mean()) / spread
    return out


def pool(x):
    """Mean of three neighbours; what lies outside is not counted."""
    y = np.zeros_like(x)
    for at in range(x.shape[1]):
        inside = [i for i in (at - 1, at, at + 1) if 0 <= i < x.shape[1]]
        y[:, at] = sum(x[:, i] for i in inside) / len(inside)
    return y


def mixed_cell(x, mix, kernels):
    """A cell whose every edge is the weighted sum of its operations, on `[B, L, C]`.

    Args:
      x: the input.
      mix: `[6, 5]` weights.
      kernels: `{(source, node, size): [size, C, C]}`.
    """
    weights = dict(zip(edges_of(range(6)), mix, strict=True))
    nodes = {0: x}
    for node, sources in INTO.items():
        total = np.zeros_like(x)
        for source in sources:
            given, w = nodes[source], weights[source, node]
            active = np.maximum(given, 0.0)
            total += w[SKIP] * given + w[POOL] * pool(given)
            for op, size in ((CONV1, 1), (CONV3, 3)):
                total += w[op] * normalise(convolve(active, kernels[source, node, size]))
        nodes[node] = total
    return nodes[3]


def partial_cell(x, mix, edges, kernels, partial):
    """The same where one channel in `partial` goes through, and edges have factors of their own."""
    weights = dict(zip(edges_of(range(6)), zip(mix, edges, strict=True), strict=True))
    part = x.shape[-1] // partial
    nodes = {0: x}
    for node, sources in INTO.items():
        total = np.zeros_like(x)
        for source in sources:
            w, factor = weights[source, node]
            given, rest = nodes[source][..., :part], nodes[source][..., part:]
            active = np.maximum(given, 0.0)
            y = w[SKIP] * given + w[POOL] * pool(given)
            for op, size in ((CONV1, 1), (CONV3, 3)):
                y = y + w[op] * normalise(convolve(active, kernels[source, node, size]))
            whole = factor * np.concatenate([y, rest], -1)
            for channel in range(x.shape[-1]):
                group, place = divmod(channel, part)
                total[..., place * partial + group] += whole[..., channel]
        nodes[node] = total
    return nodes[3]
