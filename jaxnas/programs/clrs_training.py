"""Trains a triplet function that is there as programs: examples, batches and the score.

Chen, Dohan & So, NeurIPS 2023, arXiv:2302.14838: 2,000 steps, judged by validation accuracy, else
as Ibarz et al., LoG 2022, arXiv:2209.11142: Adam with a rate of 1e-3 and gradients clipped to a
norm of 1, batches of 32, sizes of graphs in turn, the best of the evaluations after every 50 steps.
There every batch is new; here batches are drawn from as many examples of each size as are asked
for, so that training is the same for all candidates.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.export import deserialize
from jaxtyping import Array, Float, Int, Key

from jaxnas.data import clrs as data
from jaxnas.data.clrs_probes import spec
from jaxnas.programs.clrs import Built, Setting, leaves
from jaxnas.programs.clrs_net import given
from jaxnas.programs.clrs_scores import score, tallies
from jaxnas.train.portable import refusal

PROGRAMS = ("init", "step", "evaluate")


class Material(NamedTuple):
    """Examples of an algorithm.

    Attributes:
      train: for each size of graphs.
      valid: of the largest size.
    """

    train: tuple[data.Examples, ...]
    valid: data.Examples


class Trained(NamedTuple):
    """What training gave.

    Attributes:
      valid: best validation score, %; `-inf` if training diverged.
      last: that after the last step, %; `-inf` likewise.
      best: the step after which the best was.
      curve: validation scores, %; NaN from where training had diverged.
      loss: mean training loss since the evaluation before.
      steps: steps made at each evaluation.
    """

    valid: float
    last: float
    best: int
    curve: Float[np.ndarray, " E"]
    loss: Float[np.ndarray, " E"]
    steps: Int[np.ndarray, " E"]


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


def opened(programs: Mapping[str, bytes]) -> Built:
    """Reads programs and refuses those that do more than compute.

    Args:
      programs: of `clrs_trace.exported`.

    Raises:
      ValueError: if one is missing, may do more than compute, or has another form.
    """
    if set(programs) != set(PROGRAMS):
        raise ValueError(f"`programs` must be {', '.join(PROGRAMS)}, but are {sorted(programs)}.")
    read = {name: deserialize(bytearray(programs[name])) for name in PROGRAMS}
    for name, program in read.items():
        if objection := refusal(program):
            raise ValueError(f"`programs` must only compute, but {name} {objection}.")
    step, evaluate = read["step"].call, read["evaluate"].call
    return Built(
        read["init"].call,
        lambda state, batches, *others: step(state, tuple(map(leaves, batches)), *others),
        lambda state, known: evaluate(state, leaves(known)),
    )


def fit(
    built: Built,
    material: Material,
    task: Setting,
    key: Key[Array, ""],
    *,
    steps: int = 2000,
    learning_rate: float = 1e-3,
    evaluate_every: int = 50,
) -> Trained:
    """Trains, and judges every so many steps; ends where the loss is no number.

    Args:
      built: of `clrs.build`, or `opened`.
      material: of the task's sizes.
      task: what was built for.
      key: of the initial weights, the batches and the noise.
      steps: of training.
      learning_rate: of Adam.
      evaluate_every: steps between two evaluations; there is one after the last step in any case.

    Raises:
      ValueError: if the validation examples cannot be cut into batches of `task.eval_batch`.
    """
    judge = _judge(built, material.valid, task)
    step = _step(built, material, task, learning_rate)
    key_start, key_steps = jax.random.split(key)
    state = jax.jit(built.init)(jax.random.key_data(key_start))
    at, curve, means, losses = [], [], [], []
    for i in range(steps):
        state, loss = step(state, i, jax.random.fold_in(key_steps, i))
        losses.append(loss)
        if (i + 1) % evaluate_every and i + 1 < steps:
            continue
        means.append(float(jnp.stack(losses).mean()))
        at.append(i + 1)
        curve.append(judge(state) if np.isfinite(means[-1]) else np.nan)
        losses.clear()
        if np.isnan(curve[-1]):
            break
    return _told(curve, means, at)


def _told(curve: list[float], means: list[float], at: list[int]) -> Trained:
    diverged, best = bool(np.isnan(curve[-1])), int(np.nanargmax([-np.inf, *curve])) - 1
    valid, last = (-np.inf, -np.inf) if diverged else (curve[best], curve[-1])
    return Trained(valid, last, at[best], np.array(curve), np.array(means), np.array(at))


def _step(
    built: Built, material: Material, task: Setting, rate: float
) -> Callable[[Any, int, Key[Array, ""]], tuple[Any, Array]]:
    """One step, from a batch of the size whose turn it is; the other batches are not looked at."""
    compiled = jax.jit(built.step)
    batches = [jax.tree.map(lambda a: a[: task.batch], e) for e in material.train]
    idle = [
        jax.tree.map(lambda a: jnp.zeros((task.batch, *a.shape[1:]), a.dtype), b) for b in batches
    ]

    def step(state: Any, i: int, key: Key[Array, ""]) -> tuple[Any, Array]:
        key_batch, key_noise = jax.random.split(key)
        which = i % len(idle)
        examples = material.train[which]
        rows = jax.random.randint(key_batch, (task.batch,), 0, len(examples.lengths))
        now = list(idle)
        now[which] = jax.tree.map(lambda a: a[rows], examples)
        noise = jax.random.key_data(key_noise)
        return compiled(state, tuple(now), jnp.int32(which), noise, jnp.float32(rate))

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
