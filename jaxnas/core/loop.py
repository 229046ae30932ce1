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
from jaxtyping import Array, Integer, Key

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
    lift = _lift(how)
    return Search(lift(search.init), lift(search.step), jax.vmap(search.best))


def legs_over_seeds(legs: Sequence["Leg"], how: str = "vmap") -> list["Leg"]:
    """Lifts a relay to many seeds at once, as `over_seeds` does a search; legs that share one still do.

    Raises:
      ValueError: for an unknown `how`.
    """
    lift = cache(_lift(how))
    lifted = cache(lambda search: over_seeds(search, how))
    return [
        Leg(lifted(leg.search), leg.steps, leg.take_over and lift(leg.take_over)) for leg in legs
    ]


def _lift(how: str) -> Callable[..., Any]:
    lifts = {"vmap": jax.vmap, "map": _mapped, "loop": _looped}
    if how not in lifts:
        raise ValueError(f"`how` must be one of {', '.join(lifts)}, but got {how!r}.")
    return lifts[how]


def _mapped(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: jax.lax.map(lambda each: f(*each), args)


def _looped(f: Callable[..., Any]) -> Callable[..., Any]:
    def each(*args: Any) -> Any:
        seeds = jax.tree.leaves(args)[0].shape[0]
        return _stack([f(*jax.tree.map(lambda x, i=i: x[i], args)) for i in range(seeds)])

    return each


def step_key(key: Key[Array, "*S"], step: int | Integer[Array, ""]) -> Key[Array, "*S"]:
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

    A relay of one leg; see `relay` for the arguments, what is yielded and what is raised.
    """
    return relay([Leg(search, steps)], key, every=every, mode=mode, state=state, start=start)


class Leg(NamedTuple):
    """One stretch of a relay.

    Attributes:
      search: what runs on this stretch. Legs that share one are compiled once.
      steps: for how long.
      take_over: `(key, last state of the leg before) -> first state`; `None` takes it as it is.
    """

    search: Search
    steps: int
    take_over: Callable[[Key[Array, ""], Any], Any] | None = None


def relay(
    legs: Sequence[Leg],
    key: Key[Array, "*S"],
    *,
    every: int,
    mode: str = "scan",
    state: Any = None,
    start: int = 0,
) -> Iterator[tuple[int, Any, Any]]:
    """Runs searches one after another: warm up, search, prune, widen, decide, tune.

    Steps are counted through all legs and step `i` has the key `fold_in(key, i)`, so cutting a
    search into legs changes nothing; leg `n` takes over under `fold_in(key, 2**31 + n)`.

    Args:
      legs: the stretches, in order. Their states may differ in shape.
      key: one key, or `[S]` keys for legs lifted by `legs_over_seeds`.
      every: steps per chunk; the last one of a leg may be shorter.
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
    translate = cache(compiled) if mode != "host" else lambda f: f
    advance = _scanned(key) if mode == "scan" else _stepped(key, translate)
    first = 0
    for n, leg in enumerate(legs):
        end = first + leg.steps
        if start == first < end:
            if state is None:
                state = translate(leg.search.init)(step_key(key, 0))
            elif n and leg.take_over:
                state = translate(leg.take_over)(step_key(key, jnp.uint32(2**31 + n)), state)
        while start < end:
            count = min(every, end - start)
            state, infos = advance(leg.search, count, state, start)
            start += count
            yield start, state, infos
        first = end


def _scanned(key: Key[Array, "*S"]) -> Callable[..., tuple[Any, Any]]:
    @cache
    def program(search: Search, count: int) -> Callable[..., Any]:
        return compiled(lambda key, state, start: run_scan(search, key, count, state, start))

    def advance(search: Search, count: int, state: Any, start: int) -> tuple[Any, Any]:
        return program(search, count)(key, state, jnp.int32(start))

    return advance


def _stepped(key: Key[Array, "*S"], translate: Callable[..., Any]) -> Callable[..., Any]:
    def advance(search: Search, count: int, state: Any, start: int) -> tuple[Any, Any]:
        hosted = search._replace(step=translate(search.step))
        trail = list(run_host(hosted, key, start + count, state, start))
        return trail[-1][1], _stack([info for _, _, info in trail])

    return advance


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
