"""Operations and cells of the DARTS space in plain numpy, point by point, in any dimension."""

import numpy as np

INPUTS = {2: [0, 1], 3: [0, 1, 2], 4: [0, 1, 2, 3], 5: [0, 1, 2, 3, 4]}  # node -> states


def points(size, k, stride, dilation=1):
    """For every output point its place, and the kernel points with what lies under them."""
    out = [-(-n // stride) for n in size]
    for at in np.ndindex(*out):
        under = []
        for tap in np.ndindex(*k):
            source = tuple(
                a * stride + (t - (w - 1) // 2) * dilation
                for a, t, w in zip(at, tap, k, strict=True)
            )
            if all(0 <= s < n for s, n in zip(source, size, strict=True)):
                under.append((tap, source))
        yield at, under


def windows(x, k, stride, of):
    size = x.shape[1:-1]
    y = np.zeros((x.shape[0], *[-(-n // stride) for n in size], x.shape[-1]))
    for at, under in points(size, (k,) * len(size), stride):
        y[(slice(None), *at)] = of([x[(slice(None), *source)] for _, source in under])
    return y


def max_pool(x, stride=1, k=3):
    return windows(x, k, stride, lambda values: np.max(values, axis=0))


def avg_pool(x, stride=1):
    return windows(x, 3, stride, lambda values: np.mean(values, axis=0))


def convolve(x, kernel, stride=1, dilation=1, depthwise=False):
    size = x.shape[1:-1]
    y = np.zeros((x.shape[0], *[-(-n // stride) for n in size], kernel.shape[-1]))
    for at, under in points(size, kernel.shape[:-2], stride, dilation):
        for tap, source in under:
            value, row = x[(slice(None), *source)], kernel[tap]
            y[(slice(None), *at)] += value * row[0] if depthwise else value @ row
    return y


def normalise(x, epsilon=1e-5):
    out = np.zeros_like(x)
    for channel in range(x.shape[-1]):
        values = x[..., channel]
        out[..., channel] = (values - values.mean()) / np.sqrt(values.var() + epsilon)
    return out


def relu(x):
    return np.maximum(x, 0.0)


def kernels(params):
    """The kernels of a module in the order in which it uses them."""
    found = []
    for name in sorted(params):
        found += (
            [np.asarray(params[name], np.float64)] if name == "kernel" else kernels(params[name])
        )
    return found


def separable(x, params, stride, dilation, repeats):
    for n in range(repeats):
        depth = np.asarray(params[f"Depthwise_{n}"]["kernel"], np.float64)
        point = np.asarray(params[f"Conv_{n}"]["kernel"], np.float64)
        x = convolve(relu(x), depth, 1 if n else stride, dilation, depthwise=True)
        x = normalise(convolve(x, point))
    return x


def factorized(x, params):
    even, odd = kernels(params)
    x = relu(x)
    size = x.shape[1:-1]
    shifted = np.zeros_like(x)
    for at in np.ndindex(*size):
        source = tuple(a + 1 for a in at)
        if all(s < n for s, n in zip(source, size, strict=True)):
            shifted[(slice(None), *at)] = x[(slice(None), *source)]
    halves = convolve(x, even, 2), convolve(shifted, odd, 2)
    return normalise(np.concatenate(halves, -1))


def operation(op, x, params, stride, search):
    """What a named operation makes of `x`; `search` puts norms behind pools."""
    if op in ("max_pool_3x3", "avg_pool_3x3"):
        y = (max_pool if op == "max_pool_3x3" else avg_pool)(x, stride)
        return normalise(y) if search else y
    if op == "skip_connect":
        return x if stride == 1 else factorized(x, params["FactorizedReduce_0"])
    if op == "none":
        return np.zeros_like(x[(slice(None), *[slice(None, None, stride)] * (x.ndim - 2))])
    if op == "conv_7x1_1x7":
        y, steps = relu(x), kernels(params)
        for n, kernel in enumerate(steps):
            y = convolve(y, kernel, stride if n == len(steps) - 1 else 1)
        return normalise(y)
    repeats, dilation = (2, 1) if op.startswith("sep") else (1, 2)
    return separable(x, params, stride, dilation, repeats)


def entrance(x, params, reduced):
    if reduced:
        return factorized(x, params)
    return normalise(convolve(relu(x), kernels(params)[0]))


def mixed_cell(before, last, params, ops, mix, factors, *, reduction, reduced, partial=1):
    """A cell whose every edge is the weighted sum of its operations.

    Args:
      before: first input.
      last: second input.
      params: of the cell; each operation's lie stacked, edge after edge, by the state read.
      ops: `[14]` names of the operations of each edge.
      mix: `[14][K]` weights.
      factors: `[14]` factor of each edge.
      reduction: whether the cell halves the map.
      reduced: whether the first input is still larger.
      partial: one in so many channels goes through the operations.
    """
    states = {
        0: entrance(before, params["input_0"], reduced),
        1: entrance(last, params["input_1"], False),
    }
    edge, seen = 0, {}
    for node, sources in INPUTS.items():
        total = 0.0
        for source in sources:
            x, stride = states[source], 2 if reduction and source < 2 else 1
            width = x.shape[-1] // partial
            y = 0.0
            for op, weight in zip(ops[edge], mix[edge], strict=True):
                place = seen.get((source, op), 0)
                seen[source, op] = place + 1
                home = params.get(f"stacked_{source}_{op}", {})
                own = {} if not home else take(next(iter(home.values())), place)
                y = y + weight * operation(op, x[..., :width], own, stride, True)
            if partial > 1:
                rest = x[..., width:] if stride == 1 else max_pool(x[..., width:], 2, 2)
                y = deal(np.concatenate([y, rest], -1), partial)
            total = total + factors[edge] * y
            edge += 1
        states[node] = total
    return np.concatenate([states[node] for node in INPUTS], -1)


def take(tree, place):
    """The parameters at one place of the leading axis."""
    if isinstance(tree, dict):
        return {name: take(part, place) for name, part in tree.items()}
    return np.asarray(tree, np.float64)[place]


def deal(x, groups):
    """Channels dealt from `groups` equal piles in turn."""
    piles = np.split(x, groups, axis=-1)
    return np.stack([pile[..., i] for i in range(piles[0].shape[-1]) for pile in piles], -1)
