"""Trains a triplet function that is there as programs: examples, batches and the score.

Chen, Dohan & So, NeurIPS 2023, arXiv:2302.14838: 2,000 steps, judged by validation accuracy, else
as Ibarz et al., LoG 2022, arXiv:2209.11142: Adam with a rate of 1e-3 and gradients clipped to a
norm of 1, batches of 32, sizes of graphs in turn, the best of the evaluations after every 50 steps.
There every batch is new; here batches are drawn from as many examples of each size as are asked
for, so that training is the same for all candidates.

The test set of CLRS-30, of larger graphs, is scored once, by the state that was best.
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
from jaxnas.programs.clrs import Built, Predict, Setting, forms, leaves
from jaxnas.programs.clrs_net import given
from jaxnas.programs.clrs_scores import score, tallies
from jaxnas.train.exported import Trained
from jaxnas.train.portable import PARTS, Refused, agree, read


class Material(NamedTuple):
    """Examples of an algorithm.

    Attributes:
      train: for each size of graphs.
      valid: of the largest size.
      test: of a size of its own; `None` where there is none.
    """

    train: tuple[data.Examples, ...]
    valid: data.Examples
    test: data.Examples | None = None


def draw(
    algorithm: str,
    key: Key[Array, ""],
    *,
    lengths: tuple[int, ...] = data.LENGTHS,
    examples: int = 1000,
    valid: int | None = None,
    test: int | None = None,
) -> Material:
    """Examples to train and to be judged on.

    Args:
      algorithm: one of `data.clrs_probes.ALGORITHMS`.
      key: of the examples.
      lengths: sizes to train on; of string matchers there is one (`data.clrs.lengths`).
      examples: of each size.
      valid: to be judged on; `None` for 64, and more where a run has few predictions.
      test: nodes of the graphs of the test set; `None` for no test set.

    Raises:
      DataError: if dm-clrs is absent.
    """
    sizes = data.lengths(algorithm, lengths)
    *keys, key_valid = jax.random.split(key, len(sizes) + 1)
    train = [data.examples(algorithm, k, examples, n) for k, n in zip(keys, sizes, strict=True)]
    count = valid or 64 * data.MORE.get(algorithm, 1)
    judged = data.examples(algorithm, key_valid, count, max(sizes))
    return Material(tuple(train), judged, data.benchmark(algorithm, test) if test else None)


def setting(algorithm: str, material: Material, **others: Any) -> Setting:
    """What a triplet function is traced for, to be trained on this material.

    Args:
      algorithm: of the material.
      material: of `draw`.
      **others: fields of `Setting`.
    """
    nodes, steps = zip(*map(_size, material.train), strict=True)
    test = _size(material.test) if material.test else None
    return Setting(algorithm, nodes, steps, _size(material.valid), test, **others)


def fit_triplets(
    task: Setting,
    material: Material,
    programs: Mapping[str, bytes],
    *runs: Any,
    tested: bool = True,
    **how: Any,
) -> Trained:
    """Trains a candidate that is there as programs only: `fit` of what `opened` reads.

    Args:
      task: of the material.
      material: what is learned.
      programs: for the task, or where no test set is asked for the task without it.
      *runs: as for `fit`.
      tested: whether to score the test set.
      **how: as for `fit`.

    Raises:
      Refused: as `opened`.
    """
    if not tested:
        task, material = task._replace(test=None), material._replace(test=None)
    return fit(opened(programs, task), jax.device_put(material), task, *runs, **how)


def opened(programs: Mapping[str, bytes], task: Setting) -> Built:
    """Reads programs and refuses those that do more than compute.

    Args:
      programs: of `clrs_trace.exported`.
      task: what they must be for.

    Raises:
      Refused: if one is missing, may do more than compute, or is not as `clrs.forms` says.
    """
    with read(programs, (*PARTS, "test") if task.test else PARTS) as parts:
        state = [Shape(a.shape, a.dtype) for a in parts["init"].out_avals]
        for name, (taken, given_back) in forms(task, state).items():
            one = parts[name]
            wanted, told = jax.tree.structure((taken, {})), jax.tree.structure(given_back)
            if (one.in_tree, one.out_tree) != (wanted, told):
                raise Refused(f"`programs` must be as `clrs.forms` says, but {name} is not.")
            taken, given_back = map(jax.tree.leaves, (taken, given_back))
            arrays = {"takes": (one.in_avals, taken), "gives": (one.out_avals, given_back)}
            agree({f"what {name} {verb}": both for verb, both in arrays.items()})
    step = parts["step"].call

    def predicting(name: str) -> Predict:
        return lambda state, known: parts[name].call(state, leaves(known))

    return Built(
        parts["init"].call,
        lambda state, batches, *others: step(state, tuple(map(leaves, batches)), *others),
        predicting("evaluate"),
        predicting("test") if task.test else None,
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
      Scores in the place of accuracies.

    Raises:
      ValueError: if the examples to be judged on cannot be cut into batches of `task.eval_batch`, or
        those of the test set into batches of `task.test_batch`.
    """
    judge, test = _judge(built.evaluate, material.valid, task, "eval_batch"), None
    if built.test and material.test:
        test = _judge(built.test, material.test, task, "test_batch")
    step = _step(built, material, task)
    start, stops = jax.jit(built.init), [*range(evaluate_every, steps, evaluate_every), steps]
    key_start, key_data = jax.random.split(key)
    runs = []
    for seed, rate in zip(seeds, learning_rates, strict=True):
        key_init, key_noise = jax.random.split(jax.random.fold_in(key_start, seed))
        state = start(jax.random.key_data(key_init))
        advance = partial(step, key_data, key_noise, jnp.float32(rate))
        runs.append(_run(state, advance, judge, test, stops))
    rows = map(np.stack, zip(*runs, strict=True))
    names = ("valid", "last", "test", "best", "curve", "loss", "diverged")
    weights = np.zeros((len(runs), 0), np.float32)  # nothing is inherited here
    return Trained(**dict(zip(names, rows, strict=True)), steps=np.array(stops), weights=weights)


def _run(
    state: Any,
    advance: Callable[[Any, int], tuple[Any, Array]],
    judge: Callable[[Any], float],
    test: Callable[[Any], float] | None,
    stops: Sequence[int],
) -> tuple[Any, ...]:
    """One training: the fields of `Trained`, but for its steps, without the axis of runs."""
    curve, means = np.full((2, len(stops)), np.nan)
    kept, best = state, 0
    for e, (begin, end) in enumerate(pairwise([0, *stops])):
        losses = []
        for i in range(begin, end):
            state, loss = advance(state, i)
            losses.append(loss)
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad):
            return (-np.inf, -np.inf, -np.inf, 0, curve, means, begin + bad[0])
        means[e], curve[e] = np.mean(losses), judge(state)
        if e == 0 or curve[e] > curve[best]:
            kept, best = state, e
    tested = test(kept) if test else np.nan
    return curve[best], curve[-1], tested, stops[best], curve, means, -1


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


def _judge(
    predict: Predict, examples: data.Examples, task: Setting, batch: str
) -> Callable[[Any], float]:
    """Score of a state on examples, %."""
    count, size = len(examples.lengths), getattr(task, batch)
    if count % size:
        raise ValueError(
            f"`material` must have examples to judge in batches of `task.{batch}` = {size}, but has "
            f"{count}."
        )
    parts = [jax.tree.map(lambda a, i=i: a[i : i + size], examples) for i in range(0, count, size)]
    evaluate, probes = jax.jit(predict), spec(task.algorithm)
    tally = jax.jit(lambda examples, outputs: tallies(probes, examples, outputs))

    def judge(state: Any) -> float:
        counts = [tally(part, evaluate(state, given(part))) for part in parts]
        return float(score(jnp.stack(counts).sum(0)))

    return judge


def _size(examples: data.Examples) -> tuple[int, int]:
    """Nodes, and length of the hints' axis."""
    return examples.inputs["pos"].shape[1], next(iter(examples.hints.values())).shape[1]
