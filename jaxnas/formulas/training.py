"""Trains many update rules on one task: all rules, learning rates and seeds in one program.

Three ways give the same numbers. `group` writes a few dozen rules out into one program: the fastest
steps, for tens of milliseconds of compilation a rule. `map` reads rules from their tapes one after
another, with a real branch for each symbol: one compilation for all rules there will ever be, for
screening thousands. `select` reads them side by side, where each step computes every symbol and
selects: the shape that fills an accelerator.

A run depends on its rule, its learning rate and its key alone. It is frozen at its first loss that
is not finite.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jaxnas.core import compiled
from jaxnas.formulas.rules import Rule, any_rule, many_rules
from jaxnas.formulas.tape import Grammar

GROUP = 32  # rules written out into one program
ENOUGH = 400  # steps x runs from which on writing a rule out, to be used twice, pays on a CPU
MEMORY, ACCELERATOR_MEMORY = 2**31, 2**34  # bytes that the rules of one program may hold
# Arrays of the size of the weights that a rule holds: written out, and read from its tape.
ARRAYS = {"group": 8, "select": 24}


class Task(NamedTuple):
    """What rules are judged by.

    Attributes:
      name: of the task.
      start: `(key) -> (params, memory)`; `memory` is whatever else changes while training.
      feed: `(key) -> items`, leaves `[T, ...]`, one for each step.
      loss: `(params, memory, item, key) -> (loss, memory)`.
      score: `(losses [T], params, memory) -> score`, higher is better.
      steps: `T`.
      rates: learning rates to choose from.
      seeds: runs at the chosen rate, whose mean is the fitness.
      bound: score of a run that is worth nothing.
      space: the grammar that the paper searches.
      label: what the score is.
      decay: weight decay, added to the gradient.
      project: `(params, memory) -> params`, after each step.
      schedule: `(t) -> factor` of the learning rate at step `t`, from 1.
      side_by_side: whether runs are computed side by side on a CPU too. Convolutions should not:
        with a kernel for each run they are several times slower than one after another.
    """

    name: str
    start: Callable[[Key[Array, ""]], tuple[PyTree, PyTree]]
    feed: Callable[[Key[Array, ""]], PyTree]
    loss: Callable[..., tuple[Float[Array, ""], PyTree]]
    score: Callable[..., Float[Array, ""]]
    steps: int
    rates: tuple[float, ...]
    seeds: int
    bound: float
    space: str
    label: str
    decay: float = 0.0
    project: Callable[[PyTree, PyTree], PyTree] | None = None
    schedule: Callable[[Float[Array, ""]], Float[Array, ""]] | None = None
    side_by_side: bool = True


class Trained(NamedTuple):
    """How runs went; `R` runs of each of `N` rules.

    Attributes:
      score: `[N, R]` by the task; its bound for a run that was frozen or ended in weights that are
        not finite.
      losses: `[N, R, T]`, the last finite one from where a run was frozen.
      frozen: `[N, R]` the step, from 1, whose loss was not finite; 0 for none.
    """

    score: Float[Array, "*N R"]
    losses: Float[Array, "*N R T"]
    frozen: Int[Array, "*N R"]


Train = Callable[[Int[np.ndarray, "N L"], Float[Array, "N R"], Key[Array, " R"]], Trained]


def trainer(task: Task, grammar: Grammar, how: str = "auto") -> Train:
    """A function that trains rules on a task.

    Args:
      task: what they are judged by.
      grammar: what they are made of.
      how: `group`, `map`, `select` (see above), or `auto`, which chooses by device and size.

    Returns:
      `(tapes [N, L], rates [N, R], keys [R]) -> Trained`.

    Raises:
      ValueError: for an unknown `how`, or a task whose first loss or gradient is not finite.
    """
    if how not in ("auto", "group", "map", "select"):
        raise ValueError(f"`how` must be auto, group, map or select, but got {how!r}.")
    prepared = compiled(jax.vmap(lambda key: prepare(task, key)))
    check(task, prepared(jax.random.key(0)[None]))
    ways = {"group": _grouped(task, grammar), **_general(task, grammar)}

    def run(tapes: np.ndarray, rates: Array, keys: Key[Array, " R"]) -> Trained:
        way = choose(task, len(keys), jax.default_backend()) if how == "auto" else how
        return ways[way](tapes, jnp.asarray(rates, jnp.float32), prepared(keys))

    return run


class Tuned(NamedTuple):
    """Rules at the rate that suits each; `N` rules, `S` seeds.

    Attributes:
      rate: `[N]` the rate of best score with one seed.
      score: `[N]` that score.
      trained: at that rate, for every seed.
    """

    rate: Float[Array, " N"]
    score: Float[Array, " N"]
    trained: Trained


def tune(
    proxy: tuple[Task, Train],
    task: tuple[Task, Train],
    key: Key[Array, ""],
    tapes: Int[np.ndarray, "N L"],
) -> Tuned:
    """Tries every rate of one task with one seed, and trains on another for several at the best.

    Args:
      proxy: where rates are chosen, with its trainer.
      task: where rules are trained for `task.seeds` seeds, with its trainer.
      key: draws the one seed, and the others.
      tapes: `[N, L]` the rules.
    """
    key_rate, key_seeds = jax.random.split(key)
    rates = jnp.asarray(proxy[0].rates, jnp.float32)
    grid = jnp.tile(rates, (len(tapes), 1))
    first = proxy[1](tapes, grid, jnp.broadcast_to(key_rate, rates.shape)).score
    best, seeds = rates[first.argmax(1)], task[0].seeds
    chosen = jnp.tile(best[:, None], (1, seeds))
    return Tuned(best, first.max(1), task[1](tapes, chosen, jax.random.split(key_seeds, seeds)))


def _general(task: Task, grammar: Grammar) -> dict[str, Callable[..., Trained]]:
    """One program each for whatever rules come."""

    def one(tape: Array, rates: Array, runs: Runs) -> Trained:
        return train(task, any_rule(grammar, tape), rates, runs)

    def alone(tape: Array, rates: Array, runs: Runs) -> Trained:
        """Run after run, so that only one network of a size that matters is held with its memory."""

        def run(at: tuple[Array, Runs]) -> Trained:
            rate, own = jax.tree.map(lambda x: x[None], at)
            return jax.tree.map(lambda x: x[0], one(tape, rate, own))

        return jax.lax.map(run, (rates, runs))

    def mapped(tapes: Array, rates: Array, runs: Runs) -> Trained:
        rule = one if task.side_by_side or jax.default_backend() != "cpu" else alone
        return jax.lax.map(lambda each: rule(*each, runs), (tapes, rates))

    side_by_side = compiled(jax.vmap(one, in_axes=(0, 0, None)))

    def selected(tapes: np.ndarray, rates: Array, runs: Runs) -> Trained:
        most = min(at_once(task, len(runs.keys), "select"), len(tapes))
        # The last rules stand in for those that the last part lacks: one shape, one program.
        filled = np.minimum(np.arange(-(-len(tapes) // most) * most), len(tapes) - 1)
        parts = [side_by_side(tapes[part], rates[part], runs) for part in filled.reshape(-1, most)]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: len(tapes)], *parts)

    return {"map": compiled(mapped), "select": selected}


def _grouped(task: Task, grammar: Grammar) -> Callable[..., Trained]:
    """A program for every few dozen rules; the last ones are kept, for other rates and keys."""

    @lru_cache(8)
    def program(tapes: bytes) -> Callable[..., Trained]:
        rule = many_rules(grammar, np.frombuffer(tapes, np.int32).reshape(-1, grammar.nodes))
        return compiled(lambda rates, runs: train(task, rule, rates, runs))

    def run(tapes: np.ndarray, rates: Array, runs: Runs) -> Trained:
        tapes = np.asarray(tapes, np.int32)
        most = min(at_once(task, len(runs.keys), "group"), GROUP)
        parts = [
            program(tapes[n : n + most].tobytes())(rates[n : n + most], runs)
            for n in range(0, len(tapes), most)
        ]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)

    return run


def at_once(task: Task, runs: int, how: str) -> int:
    """How many rules of so many runs each fit into the memory of one program; at least one."""
    params, _ = jax.eval_shape(task.start, jax.random.key(0))
    size = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
    memory = MEMORY if jax.default_backend() == "cpu" else ACCELERATOR_MEMORY
    return max(1, memory // (4 * ARRAYS[how] * runs * size))


def choose(task: Task, runs: int, backend: str) -> str:
    """How rules are trained best: measured break-evens of compilation against faster steps.

    Where the network is so large that its runs go one after another, its own compilation is what
    counts, so one program for all rules is best.
    """
    if backend != "cpu":
        return "select"
    return "group" if task.side_by_side and task.steps * runs > ENOUGH else "map"


class Runs(NamedTuple):
    """What `R` runs start from, whatever rule they follow.

    Attributes:
      w: `[R, D]` weights.
      memory: leaves `[R, ...]`.
      items: leaves `[R, T, ...]`, what each step is fed.
      keys: `[R]`.
    """

    w: Float[Array, "*R D"]
    memory: PyTree
    items: PyTree
    keys: Key[Array, "*R"]


def prepare(task: Task, key: Key[Array, ""]) -> Runs:
    """One run's start."""
    params, memory = task.start(key)
    return Runs(ravel_pytree(params)[0], memory, task.feed(key), key)


def _unravel(task: Task) -> Callable[[Array], PyTree]:
    shapes, _ = jax.eval_shape(task.start, jax.random.key(0))
    return ravel_pytree(jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes))[1]


def check(task: Task, runs: Runs) -> None:
    """Refuses a task that no rule could work on.

    Raises:
      ValueError: if the first loss or gradient is not finite.
    """
    unravel = _unravel(task)
    w, memory, items, key = jax.tree.map(lambda x: x[0], runs)
    item = jax.tree.map(lambda x: x[0], items)

    def first(w: Array) -> Array:
        return task.loss(unravel(w), memory, item, key)[0]

    loss, gradient = compiled(jax.value_and_grad(first))(w)
    if not (jnp.isfinite(loss) and jnp.isfinite(gradient).all()):
        raise ValueError(
            f"`task` {task.name!r} starts with a loss of {loss} and gradients of which some are not "
            f"finite; no rule could be judged by it."
        )


def train(task: Task, rule: Rule, rates: Float[Array, "*N R"], runs: Runs) -> Trained:
    """Trains rules whose weights are `[*N, R, D]`; see the module for what a run depends on."""
    unravel, keys = _unravel(task), runs.keys
    lead = rates.shape[:-1]
    start = (runs.w, runs.memory)
    w, memory = jax.tree.map(lambda x: jnp.broadcast_to(x, (*lead, *x.shape)), start)
    items = jax.tree.map(lambda x: x.swapaxes(0, 1), runs.items)

    def loss(w: Array, memory: PyTree, item: PyTree, key: Key[Array, ""]) -> tuple[Array, PyTree]:
        return task.loss(unravel(w), memory, item, key)

    def project(w: Array, memory: PyTree) -> Array:
        if task.project is None:
            return w
        return ravel_pytree(task.project(unravel(w), memory))[0]

    beside = task.side_by_side or jax.default_backend() != "cpu"
    gradient, moved = _each(jax.value_and_grad(loss, has_aux=True), beside), jax.vmap(project)
    judge = _each(lambda losses, w, memory: task.score(losses, unravel(w), memory), beside)
    for _ in lead:
        gradient = _each(gradient, beside, shared=2)  # rules share their batches
        moved, judge = jax.vmap(moved), _each(judge, beside)

    def step(carry: Any, at: Any) -> tuple[Any, Any]:
        w, memory, kept, before, frozen = carry
        t, item = at
        now = jax.vmap(jax.random.fold_in, (0, None))(keys, t.astype(jnp.int32))
        (value, after), raw = gradient(w, memory, item, now)
        fine = jnp.isfinite(value) & (frozen == 0)
        frozen = jnp.where(fine | (frozen > 0), frozen, t.astype(jnp.int32))
        direction, kept = rule.step(kept, w, raw, raw + task.decay * w, t, float(task.steps), now)
        rate = rates * task.schedule(t) if task.schedule else rates
        lower = moved(w - rate[..., None] * direction, after)
        carry = (
            jnp.where(fine[..., None], lower, w),
            jax.tree.map(lambda new, old: _where(fine, new, old), after, memory),
            kept,
            jnp.where(fine, value, before),
            frozen,
        )
        return carry, carry[3]

    steps = jnp.arange(1, task.steps + 1, dtype=jnp.float32)
    none = (jnp.zeros(rates.shape), jnp.zeros(rates.shape, jnp.int32))
    carry = (w, memory, rule.start(w), *none)
    (w, memory, _, _, frozen), losses = jax.lax.scan(step, carry, (steps, items))
    losses = jnp.moveaxis(losses, 0, -1)
    score = judge(losses, w, memory)
    good = (frozen == 0) & jnp.isfinite(score) & jnp.isfinite(w).all(-1)
    return Trained(jnp.where(good, score, task.bound), losses, frozen)


def _each(f: Callable[..., Any], beside: bool, shared: int = 0) -> Callable[..., Any]:
    """`f` over the leading axis of all but the last `shared` arguments, beside or after another."""

    def run(*args: Any) -> Any:
        own, rest = args[: len(args) - shared], args[len(args) - shared :]
        if beside:
            return jax.vmap(lambda *own: f(*own, *rest))(*own)
        return jax.lax.map(lambda own: f(*own, *rest), own)

    return run


def _where(mask: Bool[Array, "*N R"], new: Array, old: Array) -> Array:
    return jnp.where(mask.reshape(mask.shape + (1,) * (new.ndim - mask.ndim)), new, old)
