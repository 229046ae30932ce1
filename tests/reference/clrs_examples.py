"""Runs of no algorithm, in the form of one of CLRS-30: for tests that need no dm-clrs.

Inputs differ from example to example. Hints and outputs are drawn once for all of them, so a network
can learn them.
"""

import jax.numpy as jnp
import numpy as np

from jaxnas.data.clrs import Examples
from jaxnas.data.clrs_probes import POINTERS, shape, spec, staged
from jaxnas.programs.clrs_training import Material


def material(algorithm="bfs", sizes=((3, 3), (4, 5)), examples=16, valid=8, test=None):
    """Examples of each size, nodes and length of the hints' axis, and of the last for validation.

    Of the size of a test set there are 16.
    """
    train = tuple(made(algorithm, n, examples, *size) for n, size in enumerate(sizes))
    tested = test and made(algorithm, 7, 16, *test)
    return Material(train, made(algorithm, len(sizes) - 1, valid, *sizes[-1]), tested)


def made(algorithm, seed, number, nodes, steps):
    rng = np.random.default_rng(seed)

    def drawn(probe, *leading):
        form = (*leading, *shape(probe, nodes))
        if probe.kind in POINTERS:
            return rng.integers(0, nodes, form, dtype=np.int32)
        if probe.kind in ("mask_one", "categorical"):
            return np.eye(form[-1], dtype=np.float32)[rng.integers(0, form[-1], form[:-1])]
        return rng.integers(0, 2, form) if probe.kind == "mask" else rng.random(form)

    def values(stage, *leading):
        return {p.name: drawn(p, *leading) for p in staged(spec(algorithm), stage)}

    def floats(values):
        return {
            name: jnp.asarray(v, v.dtype if v.dtype == np.int32 else np.float32)
            for name, v in values.items()
        }

    truth = [values("hint", steps), values("output")]
    hints, outputs = ({k: np.repeat(v[None], number, 0) for k, v in of.items()} for of in truth)
    inputs = values("input", number) | {"pos": np.tile(np.arange(nodes) / nodes, (number, 1))}
    lengths = rng.integers(2, steps + 1, number, dtype=np.int32)
    return Examples(floats(inputs), floats(hints), floats(outputs), jnp.asarray(lengths))
