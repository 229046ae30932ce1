"""A module as pure functions of its leaves, in the order in which it creates them.

Linen draws the initial weights of a layer from a hash of its name. Here they are drawn from the
place of the layer in the order of creation, so that a new name is no new candidate.
"""

import inspect
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core.scope import LazyRng
from jax.extend.core import ClosedJaxpr
from jax.stages import Wrapped
from jaxtyping import Array, Float, Int, Key, UInt32

from jaxnas.core.keys import generated
from jaxnas.nn.network import cross_entropy
from jaxnas.programs.sandbox.verdict import Rejected

# Arguments by which modules are told to train, and what they are while they do.
MODES = {"train": True, "training": True, "deterministic": False}
LONGEST = 100  # characters of the name of an array
_STRANGE = re.compile(r"[^\w/]", re.ASCII)
Leaves = tuple[Array, ...]


class Functions(NamedTuple):
    """What is traced of a module; `params` are trained, `rest` is all else it keeps.

    Attributes:
      init: `(key data) -> (params, rest)`.
      gradient: `(params, rest, x, y, key data) -> (loss, accuracy, gradients, rest)`.
      logits: `(params, rest, x) -> logits`.
      start: `init` as a jaxpr.
      params: shapes of what is trained.
      names: of what is trained, `TYPE/NUMBER/NAME`: the type of its layer, which of that type.
      rest: shapes of batch statistics and the like.
    """

    init: Wrapped
    gradient: Wrapped
    logits: Wrapped
    start: ClosedJaxpr
    params: tuple[jax.ShapeDtypeStruct, ...]
    names: tuple[str, ...]
    rest: tuple[jax.ShapeDtypeStruct, ...]


def functions(model: nn.Module, shape: tuple[int, ...], classes: int) -> Functions:
    """Takes a module apart; all three functions are jitted, so each is traced once per shapes.

    Args:
      model: called as `model(x)` with `x` `[batch, *shape]`, with one of `MODES` if it takes it.
      shape: of one example.
      classes: columns its result must have.

    Raises:
      Rejected: `shape`, if its result has another shape.
      Exception: whatever the module raises.
    """
    paths: list[tuple[str, ...]] = []
    types: dict[tuple[str, ...], str] = {}

    @jax.jit
    def init(key: UInt32[Array, " 2"]) -> tuple[Leaves, Leaves]:
        rngs = {"params": generated(key)}
        with nn.intercept_methods(_typing(types)):
            variables = model.init(rngs, jnp.zeros((1, *shape)), **_mode(model, False))
        named = list(_named(variables))
        paths[:] = [path for path, _ in named]
        return _halves(named)

    def apply(params: Leaves, rest: Leaves, x: Array, key: Key[Array, ""] | None) -> Any:
        trained, kept = ([p for p in paths if _is_param(p) == which] for which in (True, False))
        variables = _nested(zip([*trained, *kept], [*params, *rest], strict=True))
        mutable = sorted({path[0] for path in kept})
        # Many who write a layer for training alone forget that it is also judged: it then draws by
        # one and the same key, and what it would keep is dropped.
        rngs = {"params": jax.random.key(0) if key is None else key}
        mode = _mode(model, key is not None)
        y, new = model.apply(variables, x, rngs=rngs, mutable=mutable, **mode)
        values = dict(_named(new))
        after = tuple(_like(values[path], old) for path, old in zip(kept, rest, strict=True))
        return _checked(y, len(x), classes), rest if key is None else after

    @jax.jit
    def logits(params: Leaves, rest: Leaves, x: Float[Array, "B ..."]) -> Float[Array, "B K"]:
        return apply(params, rest, x, None)[0]

    @jax.jit
    def gradient(
        params: Leaves,
        rest: Leaves,
        x: Float[Array, "B ..."],
        y: Int[Array, " B"],
        key: UInt32[Array, " 2"],
    ) -> tuple[Array, Array, Leaves, Leaves]:
        def objective(params: Leaves) -> tuple[Array, tuple[Array, Leaves]]:
            scores, new = apply(params, rest, x, jax.random.wrap_key_data(key))
            right = (scores.argmax(-1) == y).mean(dtype=jnp.float32)
            return cross_entropy(scores, y), (right, new)

        (loss, (accuracy, new)), slope = jax.value_and_grad(objective, has_aux=True)(params)
        return loss, accuracy, slope, new

    traced = init.trace(jax.ShapeDtypeStruct((2,), jnp.uint32))
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype), traced.out_info)
    params, rest = shapes
    names = _names([path for path in paths if _is_param(path)], types)
    return Functions(init, gradient, logits, traced.jaxpr, params, names, rest)


@contextmanager
def keys_by_order() -> Generator[None]:
    """Inside, Linen's random keys follow from the order in which they are asked for, not names."""
    order: dict[Any, int] = {}
    before = LazyRng.as_jax_rng

    def as_jax_rng(self: LazyRng) -> Array:
        if not self.suffix:
            return self.rng
        return jax.random.fold_in(self.rng, order.setdefault(self.suffix, len(order)))

    LazyRng.as_jax_rng = as_jax_rng
    try:
        yield
    finally:
        LazyRng.as_jax_rng = before


def _mode(model: nn.Module, train: bool) -> dict[str, Any]:
    taken = inspect.signature(type(model).__call__).parameters
    return {name: train == MODES[name] for name in MODES if name in taken}


def _typing(types: dict[tuple[str, ...], str]) -> Callable[..., Any]:
    """Notes the type of every module that is called, by its path."""

    def note(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        module = context.module
        if module.scope is not None:
            types.setdefault(tuple(module.path), type(module).__name__)
        return call(*args, **kwargs)

    return note


def _names(paths: list[tuple[str, ...]], types: Mapping[tuple[str, ...], str]) -> tuple[str, ...]:
    """What weights are called apart from how their layers are."""
    numbers: dict[str, dict[tuple[str, ...], int]] = {}
    names = []
    for _, *path in paths:
        parts = tuple(path)
        layer = next(
            parts[:n] for n in range(len(parts) - 1, -1, -1) if not n or parts[:n] in types
        )
        same = numbers.setdefault(types.get(layer, ""), {})
        number = same.setdefault(layer, len(same))
        text = "/".join((types.get(layer, ""), str(number), *parts[len(layer) :]))
        names.append(_STRANGE.sub("_", text)[:LONGEST])
    return tuple(names)


def _is_param(path: tuple[str, ...]) -> bool:
    return path[0] == "params"


def _named(tree: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Leaves with their paths, in the order of creation (a pytree would sort them by name)."""
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _named(value, (*path, name))
    else:
        yield path, nn.meta.unbox(tree)


def _halves(named: list[tuple[tuple[str, ...], Any]]) -> tuple[Leaves, Leaves]:
    """Leaves that are trained, and the others."""
    params, rest = (
        tuple(jnp.asarray(leaf) for path, leaf in named if _is_param(path) == which)
        for which in (True, False)
    )
    return params, rest


def _nested(named: Any) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in named:
        here = tree
        for name in path[:-1]:
            here = here.setdefault(name, {})
        here[path[-1]] = leaf
    return tree


def _like(new: Any, old: Array) -> Array:
    return jnp.asarray(new, old.dtype).reshape(old.shape)


def _checked(y: Any, batch: int, classes: int) -> Float[Array, "B K"]:
    came = f"an array {y.shape}" if hasattr(y, "shape") else f"a {type(y).__name__}"
    if came != f"an array {(batch, classes)}" or not jnp.issubdtype(y.dtype, jnp.floating):
        came += f" of {y.dtype}" if hasattr(y, "dtype") else ""
        raise Rejected(
            "shape",
            f"a batch of {batch} examples must give float scores ({batch}, {classes}), one row of "
            f"{classes} class scores for each example, but gave {came}.",
        )
    return y.astype(jnp.float32)
