"""Trains a candidate that is there as exported programs only: the loop, the batches and the score.

All runs of a call see the same batches in the same order; weights and dropout follow the seed of
each. Validation accuracy is taken every so many steps and the best one counts, as in EvoPrompting
(Chen et al., arXiv:2302.14838); what is right is counted here, not by the candidate. A run is
frozen at its first non-finite loss and scores `-inf`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Key, PyTree, UInt32

from jaxnas.data.dataset import Dataset, Split
from jaxnas.train.batches import Data, epoch_orders, on_device, take
from jaxnas.train.portable import Programs, Refused

WAYS = ("auto", "loop", "scan")
_SPLITS = ("train", "valid", "test")


class Trained(NamedTuple):
    """What training gave, for each of `R` runs and `E` evaluations.

    Attributes:
      valid: `[R]` best accuracy on the validation split, %; `-inf` if the run diverged.
      last: `[R]` that after the last step, %; `-inf` if the run diverged.
      test: `[R]` accuracy on the test split when validation was best, %; `-inf` likewise, NaN where
        it was not asked.
      best: `[R]` the step after which that was.
      curve: `[R, E]` accuracy on the validation split, %; NaN once a run has diverged.
      loss: `[R, E]` mean training loss since the evaluation before; NaN once it has diverged.
      steps: `[E]` steps made at each evaluation.
      diverged: `[R]` the step at which the loss stopped being finite, -1 if never.
      weights: `[R, W]` after the last step, where `start` was given, else `[R, 0]`.
    """

    valid: Float[np.ndarray, " R"]
    last: Float[np.ndarray, " R"]
    test: Float[np.ndarray, " R"]
    best: Int[np.ndarray, " R"]
    curve: Float[np.ndarray, "R E"]
    loss: Float[np.ndarray, "R E"]
    steps: Int[np.ndarray, " E"]
    diverged: Int[np.ndarray, " R"]
    weights: Float32[np.ndarray, "R W"]


class _Run(NamedTuple):
    """Runs in training: what one step takes and gives."""

    state: tuple[Array, ...]
    total: Float[Array, " R"]
    diverged: Int[Array, " R"]


class _Fixed(NamedTuple):
    """What stays as it is while runs are trained; the first keys are those of the weights."""

    train: Data
    order: Int[Array, "steps B"]
    keys: UInt32[Array, "keys R 2"]
    rates: Float[Array, " R"]
    given: Float32[Array, " W"] | None


def fit_exported(
    programs: Programs,
    dataset: Dataset,
    key: Key[Array, ""],
    seeds: Sequence[int],
    learning_rates: Sequence[float],
    *,
    steps: int,
    evaluate_every: int = 100,
    way: str = "auto",
    start: Float32[np.ndarray, " W"] | None = None,
    tested: bool = True,
) -> Trained:
    """Trains for each pair of a seed and a learning rate.

    Args:
      programs: the candidate; as many runs as it was made for go side by side, the others after.
      dataset: what is learned, normalised by its own mean and deviation.
      key: of everything random; with it, a seed gives the same wherever it stands.
      seeds: `[R]` whole numbers.
      learning_rates: `[R]`.
      steps: of training, from 1.
      evaluate_every: steps between two evaluations; there is one after the last step in any case.
      way: `loop` over compiled steps, `scan` over as many as lie between two evaluations, or
        `auto`: loop on a CPU, where gradients of convolutions are slow in a scan, else scan.
      start: weights that training begins with, not a number where `init` draws them; the first
        array of the state.
      tested: whether to score the test split.

    Raises:
      Refused: if `start` is given and the first array of the state is no such vector.
      ValueError: for an unknown `way`, unequal lengths, or a batch larger than the training set.
    """
    _check(seeds, learning_rates, steps, evaluate_every, way)
    _check_start(programs, start)
    key_start, key_data = jax.random.split(key)
    shape = programs.step.in_avals[-4].shape[1:]
    splits = _SPLITS if tested else _SPLITS[:-1]
    train, *judged = (_on_device(dataset, s, shape) for s in splits)
    order = _orders(key_data, len(train.y), programs.batch, steps)
    together, n = max(1, programs.runs), len(seeds)
    filled = np.minimum(np.arange(-(-n // together) * together), n - 1)  # with copies of the last
    keys = _keys(key_start, jnp.asarray(seeds, jnp.uint32)[filled], steps)
    rates = jnp.asarray(learning_rates, jnp.float32)[filled]
    given = None if start is None else jnp.asarray(start)
    scan = jax.default_backend() != "cpu" if way == "auto" else way == "scan"
    parts, stops = _parts(programs), [*range(evaluate_every, steps, evaluate_every), steps]
    groups = [
        _fit(parts, _Fixed(train, order, keys[:, at], rates[at], given), judged, stops, scan)
        for at in (slice(i, i + together) for i in range(0, len(filled), together))
    ]
    joined = {f: np.concatenate([getattr(g, f) for g in groups])[:n] for f in Trained._fields}
    return Trained(**{**joined, "steps": groups[0].steps})


def _check(seeds: Sequence[int], rates: Sequence[float], steps: int, every: int, way: str) -> None:
    if not 0 < len(seeds) == len(rates):
        raise ValueError(
            "`seeds` and `learning_rates` must be equally many, at least one each, but got "
            f"{len(seeds)} and {len(rates)}."
        )
    if steps < 1 or every < 1:
        raise ValueError(
            f"`steps` and `evaluate_every` must be at least 1, but got {steps} and {every}."
        )
    if way not in WAYS:
        raise ValueError(f"`way` must be one of {', '.join(WAYS)}, but got {way!r}.")


def _check_start(programs: Programs, start: Float32[np.ndarray, " W"] | None) -> None:
    if start is None:
        return
    runs, first = (programs.runs,) if programs.runs else (), programs.init.out_avals[:1]
    if [(a.shape, a.dtype) for a in first] != [((*runs, len(start)), np.float32)]:
        raise Refused(
            f"`programs` must begin with a vector of the {len(start)} weights that were told of, "
            f"but begin with {first}."
        )


def _on_device(dataset: Dataset, name: str, shape: tuple[int, ...]) -> Data:
    """A split on the device, without the channel axis where the candidate takes none."""
    split: Split = getattr(dataset, name)
    if not len(split.y) or np.prod(split.x.shape[1:]) != np.prod(shape):
        raise ValueError(
            f"`dataset` must have examples of shape {shape} in all three splits, but {name} of "
            f"{dataset.name} is {split.x.shape}."
        )
    data = on_device(dataset, split)
    return data._replace(x=data.x.reshape(-1, *shape))


_orders = jax.jit(epoch_orders, static_argnums=(1, 2, 3))


@partial(jax.jit, static_argnums=2)
def _keys(key: Key[Array, ""], seeds: UInt32[Array, " R"], steps: int) -> UInt32[Array, "keys R 2"]:
    """A key for the weights and one for each step of each run, all drawn at once."""
    each = jax.vmap(jax.random.fold_in, (None, 0))
    of_runs = each(key, seeds)
    at = jnp.arange(1 + steps, dtype=jnp.uint32)
    return jax.random.key_data(jax.vmap(each, (0, None), 1)(of_runs, at))


class _Parts(NamedTuple):
    """The compiled parts of training, which take all runs of a group at once."""

    start: Callable[..., _Run]
    step: Callable[..., _Run]
    steps: Callable[..., _Run]
    judge: Callable[..., Array]


def _parts(programs: Programs) -> _Parts:
    init, step, evaluate = _with_runs(programs)

    def start(keys: UInt32[Array, "R 2"], given: Float32[Array, " W"] | None) -> _Run:
        runs, state = len(keys), init(keys)
        if given is not None:
            state = (jnp.where(jnp.isnan(given), state[0], given), *state[1:])
        return _Run(state, jnp.zeros(runs), jnp.full(runs, -1, jnp.int32))

    def one(run: _Run, i: Int[Array, ""], fixed: _Fixed) -> _Run:
        x, y = take(fixed.train, fixed.order[i])
        state, loss, _ = step(run.state, x, y, fixed.keys[i + 1], fixed.rates)
        alive = run.diverged < 0
        well = jnp.isfinite(loss) & alive
        kept = jax.tree.map(partial(_where, well), state, run.state)
        return _Run(kept, run.total + loss, jnp.where(alive & ~well, i, run.diverged))

    def many(run: _Run, begin: Int[Array, ""], fixed: _Fixed, length: int) -> _Run:
        steps = begin + jnp.arange(length, dtype=jnp.int32)
        return jax.lax.scan(lambda run, i: (one(run, i, fixed), None), run, steps)[0]

    def judge(state: tuple[Array, ...], data: Data) -> Float[Array, " R"]:
        size, batch = data.y.shape[0], programs.eval_batch
        index = jnp.arange(-(-size // batch) * batch).reshape(-1, batch)

        def right(at: Int[Array, " B"]) -> Int[Array, " R"]:
            x, y = take(data, jnp.minimum(at, size - 1))
            return ((evaluate(state, x).argmax(-1) == y) & (at < size)).sum(-1)

        return 100 * jax.lax.map(right, index).sum(0) / size

    return _Parts(
        jax.jit(start),
        jax.jit(one, donate_argnums=0),
        jax.jit(many, donate_argnums=0, static_argnums=3),
        jax.jit(judge),
    )


def _with_runs(programs: Programs) -> Sequence[Callable[..., Any]]:
    """The three programs with a leading axis of runs, of length 1 if they were made for one."""
    init, step, evaluate = (p.call for p in programs[:3])
    if programs.runs:
        return init, step, evaluate

    def only(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[0], tree)

    def again(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: leaf[None], tree)

    return (
        lambda keys: again(init(only(keys))),
        lambda state, x, y, keys, rates: again(step(only(state), x, y, only(keys), only(rates))),
        lambda state, x: again(evaluate(only(state), x)),
    )


def _where(which: Bool[Array, " R"], new: Array, old: Array) -> Array:
    return jnp.where(which.reshape(-1, *[1] * (new.ndim - 1)), new, old)


def _fit(
    parts: _Parts, fixed: _Fixed, judged: Sequence[Data], stops: Sequence[int], scan: bool
) -> Trained:
    """Trains one group of runs; stops early when all have diverged."""
    run, (valid, *test) = parts.start(fixed.keys[0], fixed.given), judged
    runs = len(fixed.rates)
    at, nothing, best = np.zeros(runs, int), np.full(runs, np.nan), np.full(runs, -np.inf)
    tested = best if test else nothing
    curve, losses = [], []
    for begin, end in pairwise([0, *stops]):
        # Placed as a step places it, or the step would be compiled a second time.
        zero = jax.device_put(np.zeros(runs, np.float32), run.total.sharding)
        run = _advance(parts, run._replace(total=zero), fixed, begin, end, scan)
        alive = np.asarray(run.diverged) < 0
        accuracy = np.where(alive, parts.judge(run.state, valid), np.nan)
        better = accuracy > best
        if better.any():
            best, at = np.where(better, accuracy, best), np.where(better, end, at)
            if test:
                tested = np.where(better, parts.judge(run.state, *test), tested)
        curve.append(accuracy)
        losses.append(np.where(alive, np.asarray(run.total) / (end - begin), np.nan))
        if not alive.any():
            break
    missing = [nothing] * (len(stops) - len(curve))
    ended = (np.where(alive, x, -np.inf) for x in (best, curve[-1], tested))
    rows = (np.stack([*x, *missing], axis=1) for x in (curve, losses))
    weights = np.zeros((runs, 0), np.float32)
    if fixed.given is not None:
        weights = np.asarray(run.state[0])
    return Trained(*ended, at, *rows, np.asarray(stops), np.asarray(run.diverged), weights)


def _advance(parts: _Parts, run: _Run, fixed: _Fixed, begin: int, end: int, scan: bool) -> _Run:
    if scan:
        return parts.steps(run, np.int32(begin), fixed, end - begin)
    for i in range(begin, end):
        run = parts.step(run, np.int32(i), fixed)
    return run
