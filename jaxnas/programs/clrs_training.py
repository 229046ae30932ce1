"""Trains a triplet function that is there as programs: examples, batches and the score.

Chen, Dohan & So, NeurIPS 2023, arXiv:2302.14838: 2,000 steps, judged by validation accuracy, else
as Ibarz et al., LoG 2022, arXiv:2209.11142: Adam with a rate of 1e-3 and gradients clipped to a
norm of 1, batches of 32, sizes of graphs in turn, the best of the evaluations after every 50 steps.
There every batch is new; here batches are drawn from as many examples of each size as are asked
for, so that training is the same for all candidates.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct as Shape
from jaxtyping import Array, Key

from jaxnas.data import clrs as data
from jaxnas.data.clrs_probes import spec
from jaxnas.programs.clrs import Built, Setting, forms, leaves
from jaxnas.programs.clrs_net import given
from jaxnas.programs.clrs_scores import score, tallies
from jaxnas.train.exported import Trained
from jaxnas.train.portable import Refused, agree, read


class Material(NamedTuple):
    """Examples of an algorithm.

    Attributes:
      train: for each size of graphs.
      valid: of the largest size.
    """

    train: tuple[data.Examples, ...]
    valid: data.Examples


def draw(
    algorithm: str,
    key: Key[Array, ""],
    *,
    lengths: tuple[int, ...] = data.LENGTHS,
    examples: int = 1000,
    valid: int | None = None,
) -> Material:
    """Examples to train and to be judged on.

    Args:
      algorithm: one of `data.clrs_probes.ALGORITHMS`.
      key: of the examples.
      lengths: sizes to train on; of string matchers there is one (`data.clrs.lengths`).
      examples: of each size.
      valid: to be judged on; `None` for 64, and more where a run has few predictions.

    Raises:
      DataError: if dm-clrs is absent.
    """
    sizes = data.lengths(algorithm, lengths)
    *keys, key_valid = jax.random.split(key, len(sizes) + 1)
    train = [data.examples(algorithm, k, examples, n) for k, n in zip(keys, sizes, strict=True)]
    count = valid or 64 * data.MORE.get(algorithm, 1)
    return Material(tuple(train), data.examples(algorithm, key_valid, count, max(sizes)))


def setting(algorithm: str, material: Material, **others: Any) -> Setting:
    """What a triplet function is traced for, to be trained on this material.

    Args:
      algorithm: of the material.
      material: of `draw`.
      **others: fields of `Setting`.
    """
    sizes = [(e.inputs["pos"].shape[1], _steps(e)) for e in (*material.train, material.valid)]
    nodes, steps = zip(*sizes[:-1], strict=True)
    return Setting(algorithm, nodes, steps, sizes[-1], **others)


def fit_triplets(
    task: Setting,
    material: Material,
    programs: Mapping[str, bytes],
    *runs: Any,
    **how: Any,
) -> Trained:
    """Trains a candidate that is there as programs only: `fit` of what `opened` reads.

    Raises:
      Refused: as `opened`.
    """
    return fit(opened(programs, task), jax.device_put(material), task, *runs, **how)


def opened(programs: Mapping[str, bytes], task: Setting) -> Built:
    """Reads programs and refuses those that do more than compute.

    Args:
      programs: of `clrs_trace.exported`.
      task: what they must be for.

    Raises:
      Refused: if one is missing, may do more than compute, or is not as `clrs.forms` says.
    """
    with read(programs) as parts:
        state = [Shape(a.shape, a.dtype) for a in parts["init"].out_avals]
        for name, (taken, given_back) in forms(task, state).items():
            one = parts[name]
            wanted, told = jax.tree.structure((taken, {})), jax.tree.structure(given_back)
            if (one.in_tree, one.out_tree) != (wanted, told):
                raise Refused(f"`programs` must be as `clrs.forms` says, but {name} is not.")
            taken, given_back = map(jax.tree.leaves, (taken, given_back))
            arrays = {"takes": (one.in_avals, taken), "gives": (one.out_avals, given_back)}
            agree({f"what {name} {verb}": both for verb, both in arrays.items()})
    step, evaluate = parts["step"].call, parts["evaluate"].call
    return Built(
        parts["init"].call,
        lambda state, batches, *others: step(state, tuple(map(leaves, batches)), *others),
        lambda state, known: evaluate(state, leaves(known)),
    )


def fit(
    built: Built,
    material: Material,
    task: Setting,
    key: Key[Array, ""],
    seeds: Sequence[int] = (0,),
    learning_rates: Sequence[float] = (1e-3,),
    *,
    steps: int = 2000,
    evaluate_every: int = 50,
) -> Trained:
    """Trains for each pair of a seed and a learning rate, one after another.

    All see the same batches; weights and noise follow the seed of each. A run ends at the first
    evaluation before which a loss is no number, and scores `-inf`.

    Args:
      built: of `clrs.build`, or `opened`.
      material: of the task's sizes.
      task: what was built for.
      key: of everything random.
      seeds: `[R]` whole numbers.
      learning_rates: `[R]` of Adam.
      steps: of training, from 1.
      evaluate_every: steps between two evaluations; there is one after the last step in any case.

    Returns:
      Scores in the place of accuracies; there are none of a test set.

    Raises:
      ValueError: if the validation examples cannot be cut into batches of `task.eval_batch`.
    """
    judge, step = _judge(built, material.valid, task), _step(built, material, task)
    start, stops = jax.jit(built.init), [*range(evaluate_every, steps, evaluate_every), steps]
    key_start, key_data = jax.random.split(key)
    runs = []
    for seed, rate in zip(seeds, learning_rates, strict=True):
        key_init, key_noise = jax.random.split(jax.random.fold_in(key_start, seed))
        state = start(jax.random.key_data(key_init))
        advance = partial(step, key_data, key_noise, jnp.float32(rate))
        runs.append(_run(state, advance, judge, stops))
    rows = map(np.stack, zip(*runs, strict=True))
    names = ("valid", "last", "test", "best", "curve", "loss", "diverged")
    weights = np.zeros((len(runs), 0), np.float32)  # nothing is inherited here
    return Trained(**dict(zip(names, rows, strict=True)), steps=np.array(stops), weights=weights)


def _run(
    state: Any,
    advance: Callable[[Any, int], tuple[Any, Array]],
    judge: Callable[[Any], float],
    stops: Sequence[int],
) -> tuple[Any, ...]:
    """One training: the fields of `Trained`, but for its steps, without the axis of runs."""
    curve, means = np.full((2, len(stops)), np.nan)
    for e, (begin, end) in enumerate(pairwise([0, *stops])):
        losses = []
        for i in range(begin, end):
            state, loss = advance(state, i)
            losses.append(loss)
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad):
            return (-np.inf, -np.inf, -np.inf, 0, curve, means, begin + bad[0])
        means[e], curve[e] = np.mean(losses), judge(state)
    best = int(curve.argmax())
    return curve[best], curve[-1], np.nan, stops[best], curve, means, -1


def _step(
    built: Built, material: Material, task: Setting
) -> Callable[[Key[Array, ""], Key[Array, ""], Array, Any, int], tuple[Any, Array]]:
    """One step, from a batch of the size whose turn it is; the other batches are not looked at."""
    compiled = jax.jit(built.step)

    @jax.jit
    def drawn(examples: data.Examples, key: Key[Array, ""], i: Array) -> data.Examples:
        rows = jax.random.randint(
            jax.random.fold_in(key, i), (task.batch,), 0, len(examples.lengths)
        )
        return jax.tree.map(lambda a: a[rows], examples)

    batches = [jax.tree.map(lambda a: a[: task.batch], e) for e in material.train]
    idle = [
        jax.tree.map(lambda a: jnp.zeros((task.batch, *a.shape[1:]), a.dtype), b) for b in batches
    ]

    def step(
        key_data: Key[Array, ""], key_noise: Key[Array, ""], rate: Array, state: Any, i: int
    ) -> tuple[Any, Array]:
        which = i % len(idle)
        now = list(idle)
        now[which] = drawn(material.train[which], key_data, jnp.int32(i))
        noise = jax.random.key_data(jax.random.fold_in(key_noise, i))
        return compiled(state, tuple(now), jnp.int32(which), noise, rate)

    return step


def _judge(built: Built, valid: data.Examples, task: Setting) -> Callable[[Any], float]:
    """Validation score of a state, %."""
    count, size = len(valid.lengths), task.eval_batch
    if count % size:
        raise ValueError(
            f"`material` must have validation examples in batches of `task.eval_batch` = {size}, "
            f"but has {count}."
        )
    parts = [jax.tree.map(lambda a, i=i: a[i : i + size], valid) for i in range(0, count, size)]
    evaluate, probes = jax.jit(built.evaluate), spec(task.algorithm)
    tally = jax.jit(lambda examples, outputs: tallies(probes, examples, outputs))

    def judge(state: Any) -> float:
        counts = [tally(part, evaluate(state, given(part))) for part in parts]
        return float(score(jnp.stack(counts).sum(0)))

    return judge


def _steps(examples: data.Examples) -> int:
    return next(iter(examples.hints.values())).shape[1]
