"""Traces a source into programs that train it: what a child process does with a candidate.

The candidate is called under trace only. What comes out are three XLA programs, for all kinds of
devices that the task names, in which our own optimizer updates its weights:

    init(key) -> state          step(state, x, y, key, learning_rate) -> (state, loss, accuracy)
    evaluate(state, x) -> logits

Keys are raw `uint32[2]` key data; a state is a tuple of arrays that means nothing outside. Labels
go to `step` alone: how many of other data are right is counted where no candidate's program runs.
With `runs`, state, key, learning rate, loss, accuracy and logits have a leading axis `R`, and `x`
and `y` are shared.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import ShapeDtypeStruct as Shape, export
from jax.extend.core import ClosedJaxpr

from jaxnas.programs.sandbox.counts import equations, flops, pools, watched
from jaxnas.programs.sandbox.functions import Functions, functions, keys_by_order
from jaxnas.programs.sandbox.identity import digest, identity
from jaxnas.programs.sandbox.source import blamed, load
from jaxnas.programs.sandbox.verdict import Rejected

OPTIMIZERS = ("adamw", "sgd")
# Parts of names of operations that leave XLA.
OUTSIDE = ("callback", "debug_print", "ffi_call", "infeed", "outfeed", "pallas_call")


class Task(NamedTuple):
    """What a candidate is traced for, in plain values.

    Attributes:
      shape: of one example.
      classes: number of classes.
      batch: examples of a step.
      eval_batch: examples that are judged at a time.
      optimizer: `adamw`, or `sgd` with momentum; the learning rate comes at run time.
      momentum: of SGD.
      weight_decay: of AdamW decoupled, of SGD an L2 penalty.
      runs: trainings side by side, `R`; 0 for one without that axis.
      platforms: kinds of devices the programs are for.
    """

    shape: tuple[int, ...]
    classes: int
    batch: int = 128
    eval_batch: int = 500
    optimizer: str = "adamw"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    runs: int = 0
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu")


class Traced(NamedTuple):
    """A candidate as programs, with its size.

    Attributes:
      params: trainable parameters.
      flops: of the forward pass of one example: matrix products and convolutions alone, a multiply
        and an add as two, counted in the jaxpr and so the same for every device.
      depth: convolutions, dense, norm, dropout, recurrent, attention and embedding layers, and
        poolings.
      width: the most features of a convolution or dense layer.
      identity: SHA-256, equal for sources that train the same function from the same distribution
        of initial weights.
      programs: `init`, `step`, `evaluate` as bytes of `jax.export`; `test` too, if it needs one of
        its own.
      layout: name and shape of what is trained, in order, see `Functions.names`.
    """

    params: int
    flops: float
    depth: int
    width: int
    identity: str
    programs: dict[str, bytes]
    layout: tuple[tuple[str, tuple[int, ...]], ...] = ()


def trace(source: str, task: Task) -> Traced:
    """Traces a source for a task; its code runs here, so call this in a process to be thrown away.

    Args:
      source: Python that defines `Model(nn.Module)`, called as `Model()(x)` with `x`
        `[batch, *shape]` and, if it takes it, `train`.
      task: what for.

    Raises:
      Rejected: with the reason, for everything the source does wrong.
      ValueError: for an unknown optimizer.
    """
    direction(task)
    traced, parts = examined(source, task)
    with blamed("shape", source):
        return traced._replace(programs=_programs(parts, task))


def examined(source: str, task: Task) -> tuple[Traced, Functions]:
    """All that is known of a source before any program is made: as `trace`, without programs.

    Args:
      source: as for `trace`.
      task: as for `trace`.

    Returns:
      The candidate with no programs, and its functions.

    Raises:
      Rejected: as `trace`.
    """
    model = load(source)
    with blamed("shape", source), keys_by_order():
        parts = functions(model(), tuple(task.shape), task.classes)
        state = (parts.params, parts.rest)
        with watched() as layers:
            logits = parts.logits.trace(*state, _examples(task, task.eval_batch)).jaxpr
        gradient = parts.gradient.trace(*state, *_batch(task), _key()).jaxpr
    for jaxpr in (parts.start, logits, gradient):
        only_computes(jaxpr)
    of_task = (*task.shape, task.classes, task.optimizer, task.momentum, task.weight_decay)
    traced = Traced(
        params=sum(math.prod(leaf.shape) for leaf in parts.params),
        flops=flops(logits.jaxpr) / task.eval_batch,
        depth=len(layers.paths) + pools(logits),
        width=max(layers.widths),
        identity=digest(of_task, identity(parts.start, [logits], [gradient], len(parts.params))),
        programs={},
        layout=tuple((n, leaf.shape) for n, leaf in zip(parts.names, parts.params, strict=True)),
    )
    return traced, parts


def direction(task: Task) -> optax.GradientTransformation:
    """The direction of a step of a task's optimizer, for a learning rate of one.

    Raises:
      ValueError: for an unknown optimizer.
    """
    decay = optax.add_decayed_weights(task.weight_decay)
    if task.optimizer == "adamw":
        return optax.chain(optax.scale_by_adam(), decay)
    if task.optimizer == "sgd":
        return optax.chain(decay, optax.trace(task.momentum))
    raise ValueError(
        f"`optimizer` must be one of {', '.join(OPTIMIZERS)}, but got {task.optimizer!r}."
    )


def only_computes(closed: ClosedJaxpr) -> None:
    """Returns if a program has no callbacks, no effects and no calls of other libraries.

    Raises:
      Rejected: as `forbidden`, with what it has.
    """
    names = {eqn.primitive.name for eqn in equations(closed.jaxpr)}
    outside = sorted(name for name in names if any(part in name for part in OUTSIDE))
    if outside or closed.effects:
        what = ", ".join(outside) or "side effects"
        raise Rejected(
            "forbidden",
            f"a program may only compute, but this one has {what}: leave out callbacks, printing "
            "and calls of other libraries.",
        )


def _programs(parts: Functions, task: Task) -> dict[str, bytes]:
    optimizer = direction(task)

    def init(key: jax.Array) -> tuple[jax.Array, ...]:
        params, rest = parts.init(key)
        weights = _joined(params)
        return tuple(jax.tree.leaves((weights, rest, optimizer.init(weights))))

    weights = Shape((sum(math.prod(p.shape) for p in parts.params),), jnp.float32)
    shapes = (weights, parts.rest, jax.eval_shape(optimizer.init, weights))
    tree = jax.tree.structure(shapes)

    def step(
        state: tuple[jax.Array, ...], x: jax.Array, y: jax.Array, key: jax.Array, rate: jax.Array
    ) -> tuple[tuple[jax.Array, ...], jax.Array, jax.Array]:
        weights, rest, memory = jax.tree.unflatten(tree, state)
        loss, accuracy, slope, rest = parts.gradient(_cut(weights, parts), rest, x, y, key)
        change, memory = optimizer.update(_joined(slope), memory, weights)
        return (
            tuple(jax.tree.leaves((weights - rate * jnp.asarray(change), rest, memory))),
            loss,
            accuracy,
        )

    def evaluate(state: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
        weights, rest, _ = jax.tree.unflatten(tree, state)
        return parts.logits(_cut(weights, parts), rest, x)

    many = (task.runs,) if task.runs else ()
    state = tuple(Shape((*many, *s.shape), s.dtype) for s in jax.tree.leaves(shapes))
    key, rate = Shape((*many, 2), jnp.uint32), Shape(many, jnp.float32)
    calls: dict[str, tuple[Callable[..., Any], tuple[int | None, ...], tuple[Any, ...]]] = {
        "init": (init, (0,), (key,)),
        "step": (step, (0, None, None, 0, 0), (state, *_batch(task), key, rate)),
        "evaluate": (evaluate, (0, None), (state, _examples(task, task.eval_batch))),
    }
    lifted = {n: (jax.vmap(f, axes) if many else f, a) for n, (f, axes, a) in calls.items()}
    return {name: as_bytes(f, args, task.platforms) for name, (f, args) in lifted.items()}


def as_bytes(f: Callable[..., Any], args: tuple[Any, ...], platforms: tuple[str, ...]) -> bytes:
    """A function as bytes of `jax.export`, for several kinds of devices at once.

    Raises:
      Rejected: as `forbidden`, if it cannot be compiled for one of them.
    """
    try:
        program = export.export(jax.jit(f), platforms=tuple(platforms))(*args)
    except (NotImplementedError, ValueError) as error:
        # An operation that a platform lacks, or a call that no version promises to keep.
        raise Rejected("forbidden", f"it cannot be compiled for {platforms}: {error}") from None
    return bytes(program.serialize())


def _joined(leaves: tuple[jax.Array, ...]) -> jax.Array:
    """All weights as one vector, which an optimizer updates in one operation."""
    return jnp.concatenate([leaf.astype(jnp.float32).ravel() for leaf in (jnp.zeros(0), *leaves)])


def _cut(weights: jax.Array, parts: Functions) -> tuple[jax.Array, ...]:
    sizes = [math.prod(p.shape) for p in parts.params]
    spans = itertools.pairwise(itertools.accumulate(sizes, initial=0))
    return tuple(
        weights[start:stop].reshape(p.shape).astype(p.dtype)
        for p, (start, stop) in zip(parts.params, spans, strict=True)
    )


def _examples(task: Task, size: int) -> Shape:
    return Shape((size, *task.shape), jnp.float32)


def _batch(task: Task) -> tuple[Shape, Shape]:
    return _examples(task, task.batch), Shape((task.batch,), jnp.int32)


def _key() -> Shape:
    return Shape((2,), jnp.uint32)
