"""Ways to run a `Search`: one compiled scan, chunks of it, step by step, or a relay.

All of them draw the key of step `i` as `fold_in(key, i)` (and that of `init` as `fold_in(key, 0)`),
so a run continues bit for bit from a stored `(step, state)`. A batch of keys `[S]` goes wherever
one key goes when the search was lifted with `over_seeds`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import eval_jaxpr
from jaxtyping import Array, Int, Key

from jaxnas.core.types import Search


def over_seeds(search: Search, how: str = "vmap") -> Search:
    """Lifts a search to many seeds at once: init, step and best take a leading axis `S`.

    Args:
      search: what runs.
      how: `vmap`: side by side in one program; placed with a sharding over `S`, whole searches
        spread over devices without any change. `map`: one after another inside the program, for
        devices that one seed fills (a CPU is slow on the grouped convolutions that `vmap` makes of
        2-D ones). `loop`: one after another in Python, for searches that cannot be compiled.

    Raises:
      ValueError: for an unknown `how`.
    """
    lifts = {"vmap": jax.vmap, "map": _mapped, "loop": _looped}
    if how not in lifts:
        raise ValueError(f"`how` must be one of {', '.join(lifts)}, but got {how!r}.")
    lift = lifts[how]
    return Search(lift(search.init), lift(search.step), jax.vmap(search.best))


def _mapped(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: jax.lax.map(lambda each: f(*each), args)


def _looped(f: Callable[..., Any]) -> Callable[..., Any]:
    def each(*args: Any) -> Any:
        seeds = jax.tree.leaves(args)[0].shape[0]
        return _stack([f(*jax.tree.map(lambda x, i=i: x[i], args)) for i in range(seeds)])

    return each


def step_key(key: Key[Array, "*S"], step: int | Int[Array, ""]) -> Key[Array, "*S"]:
    """The key of one step: `fold_in`, over the seed axis when there is one."""
    fold = jax.random.fold_in
    return jax.vmap(fold, (0, None))(key, step) if key.ndim else fold(key, step)


def run_scan(
    search: Search, key: Key[Array, "*S"], steps: int, state: Any = None, start: Any = 0
) -> tuple[Any, Any]:
    """Runs steps `start + 1 ... start + steps` as one compiled program.

    Args:
      search: what runs.
      key: one key, or `[S]` keys for a search lifted by `over_seeds`.
      steps: how many steps.
      state: where to start from; `None` calls `init`.
      start: how many steps `state` has already seen; may be traced.

    Returns:
      The last state, and `info` stacked over steps.
    """
    state = search.init(step_key(key, 0)) if state is None else state

    def body(state: Any, i: Array) -> tuple[Any, Any]:
        return search.step(step_key(key, i), state)

    return jax.lax.scan(body, state, start + jnp.arange(1, steps + 1))


def run_host(
    search: Search, key: Key[Array, "*S"], steps: int, state: Any = None, start: int = 0
) -> Iterator[tuple[int, Any, Any]]:
    """Goes step by step, for searches that touch models, sandboxes or disk.

    Yields:
      `(step, state, info)` after each of the steps `start + 1 ... steps`; continues bit for bit
      from any stored `(start, state)`. Pass a search with a jitted `step` where it is pure.
    """
    state = search.init(step_key(key, 0)) if state is None else state
    for i in range(start + 1, steps + 1):
        state, info = search.step(step_key(key, i), state)
        yield i, state, info


def run_chunks(
    search: Search,
    key: Key[Array, "*S"],
    steps: int,
    *,
    every: int,
    mode: str = "scan",
    state: Any = None,
    start: int = 0,
) -> Iterator[tuple[int, Any, Any]]:
    """Runs `every` steps at a time, so that a caller can store state and show progress between.

    Args:
      search: what runs.
      key: one key, or `[S]` keys for a search lifted by `over_seeds`.
      steps: total number of steps.
      every: steps per chunk; the last one may be shorter.
      mode: `scan` compiles a whole chunk, `step` loops over one compiled step, `host` compiles
        nothing, for searches that touch models, sandboxes or disk.
      state: where to continue from, with `start` the steps it has seen.
      start: see `state`.

    Yields:
      `(step, state, info)` after each chunk, `info` stacked over its steps.

    Raises:
      ValueError: if `every` is not positive, or for an unknown `mode`.
    """
    if every < 1:
        raise ValueError(f"`every` must be at least 1, but got {every}.")
    if mode not in ("scan", "step", "host"):
        raise ValueError(f"`mode` must be scan, step or host, but got {mode!r}.")
    translate = (lambda f: f) if mode == "host" else compiled
    if state is None:
        state = translate(search.init)(step_key(key, 0))

    @cache
    def scanned(n: int) -> Callable[..., Any]:
        return compiled(lambda key, state, start: run_scan(search, key, n, state, start))

    hosted = search._replace(step=translate(search.step))
    while start < steps:
        n = min(every, steps - start)
        if mode == "scan":
            state, infos = scanned(n)(key, state, jnp.int32(start))
        else:
            trail = list(run_host(hosted, key, start + n, state, start))
            state, infos = trail[-1][1], _stack([info for _, _, info in trail])
        start += n
        yield start, state, infos


def _stack(infos: list[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *infos)


def compiled(f: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.jit` that hands over the arrays which `f` closes over as arguments.

    `jax.jit` writes such arrays into the program as constants; a data set of 77 MB then costs
    five seconds of compilation and is kept twice. Traces once per shapes and dtypes.
    """
    programs: dict[Any, Any] = {}

    def call(*args: Any) -> Any:
        leaves, tree = jax.tree.flatten(args)
        shapes = tuple((jnp.shape(x), jnp.result_type(x), jax.typeof(x).weak_type) for x in leaves)
        if (tree, shapes) not in programs:
            jaxpr, out = jax.make_jaxpr(f, return_shape=True)(*args)
            run = jax.jit(partial(eval_jaxpr, jaxpr.jaxpr))
            programs[tree, shapes] = (run, jaxpr.consts, jax.tree.structure(out))
        run, consts, out = programs[tree, shapes]
        return jax.tree.unflatten(out, run(consts, *leaves))

    return call


class Leg(NamedTuple):
    """One stretch of a relay.

    Attributes:
      search: what runs on this stretch.
      steps: for how long.
      take_over: `(key, last state of the leg before) -> first state`; `None` starts afresh.
    """

    search: Search
    steps: int
    take_over: Callable[[Key[Array, ""], Any], Any] | None = None


def relay(
    legs: Sequence[Leg], key: Key[Array, ""], state: Any = None, start: int = 0
) -> Iterator[tuple[int, Any, Any]]:
    """Runs searches whose states differ in shape one after another: prune, widen, refine.

    Args:
      legs: the stretches, in order.
      key: leg `n` runs under `fold_in(key, n)`.
      state: state after `start` steps, to continue from.
      start: steps already made, counted through all legs.

    Yields:
      `(step, state, info)`, the step counted through all legs.
    """
    first = 0
    for n, leg in enumerate(legs):
        key_leg, done = jax.random.fold_in(key, n), max(start - first, 0)
        if done < leg.steps:
            if done == 0:
                key_start = jax.random.fold_in(key_leg, 0)
                state = None if leg.take_over is None else leg.take_over(key_start, state)
            for item in run_host(leg.search, key_leg, leg.steps, state, done):
                state = item[1]
                yield first + item[0], *item[1:]
        first += leg.steps
