"""From the source of a triplet function to programs that train it: what a child process does.

The candidate is called under trace only, inside the training of `clrs.build`. What comes out are
its functions as XLA programs, made for the setting's kinds of devices.
"""

import ast
import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import ShapeDtypeStruct as Shape
from jax.extend.core import ClosedJaxpr
from jaxtyping import Array, Float

from jaxnas.programs import clrs_net
from jaxnas.programs.clrs import (
    Built,
    Leaves,
    Predict,
    Setting,
    blank,
    build,
    forms,
    leaves,
    size,
)
from jaxnas.programs.gmpnn import Messages, Triplets
from jaxnas.programs.sandbox.counts import Layers, flops, watched
from jaxnas.programs.sandbox.functions import Functions, functions, keys_by_order
from jaxnas.programs.sandbox.identity import digest, identity
from jaxnas.programs.sandbox.program import Traced, as_bytes, only_computes
from jaxnas.programs.sandbox.source import FILENAME, blamed
from jaxnas.programs.sandbox.verdict import Rejected
from jaxnas.programs.triplets import NAME, STUB


def load(source: str) -> Triplets:
    """The function that a source defines as `get_triplet_msgs`, else the last it defines.

    Its code runs here, so call this in a process to be thrown away.

    Raises:
      Rejected: `parse` if it is no Python or defines no function, `import` if running it raises.
    """
    with blamed("parse", source):
        tree = ast.parse(source, FILENAME)
        code = compile(tree, FILENAME, "exec", dont_inherit=True)
    home = ModuleType("candidate")
    with blamed("import", source):
        exec(code, home.__dict__)
    defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
    if not defined:
        raise Rejected("parse", f"no function is defined; write `{STUB}`.")
    return home.__dict__[NAME if NAME in defined else defined[-1]]


def trace(source: str, setting: Setting) -> Traced:
    """Traces a source for a setting; its code runs here, as in `load`.

    Args:
      source: Python that defines a triplet function.
      setting: what for.

    Returns:
      Parameters of the whole network, and its programs. Operations, layers and features are those
      of the triplet function at the size of the validation set, its identity at all sizes there
      are: the rest is the same for all.

    Raises:
      Rejected: with the reason, for everything the source does wrong.
    """
    function = load(source)
    with blamed("shape", source), keys_by_order():
        params = size(function, setting)
        parts, messages, gradients, layers = _alone(function, setting)
        for jaxpr in (parts.start, *messages, *gradients):
            only_computes(jaxpr)
        same = identity(parts.start, messages, gradients, len(parts.params))
        return Traced(
            params=params,
            flops=flops(messages[0].jaxpr) / setting.eval_batch,
            depth=len(layers.paths),
            width=max(layers.widths),
            identity=digest(*setting._replace(platforms=()), same),
            programs=exported(build(function, setting), setting),
        )


def exported(built: Built, setting: Setting) -> dict[str, bytes]:
    """The programs of `clrs.forms` as bytes of `jax.export`.

    Args:
      built: of `build`.
      setting: what it was built for.
    """
    shapes, tree = jax.tree.flatten(jax.eval_shape(built.init, Shape((2,), "uint32")))
    examples = blank(setting.algorithm, 1, *setting.valid)
    form = jax.tree.structure(examples)
    form_known = jax.tree.structure(jax.eval_shape(clrs_net.given, examples))

    def init(key: Array) -> Leaves:
        return leaves(built.init(key))

    def step(
        state: Leaves, batches: tuple[Leaves, ...], which: Array, key: Array, rate: Array
    ) -> tuple[Leaves, Array]:
        read = [form.unflatten(batch) for batch in batches]
        new, loss = built.step(tree.unflatten(state), read, which, key, rate)
        return leaves(new), loss

    def predicting(predict: Predict) -> Callable[..., dict[str, Array]]:
        return lambda state, known: dict(
            predict(tree.unflatten(state), form_known.unflatten(known))
        )

    calls: dict[str, Callable[..., Any]] = {
        "init": init,
        "step": step,
        "evaluate": predicting(built.evaluate),
    }
    if built.test:
        calls["test"] = predicting(built.test)
    taken = forms(setting, shapes)
    return {n: as_bytes(f, taken[n][0], setting.platforms) for n, f in calls.items()}


class _Flat(nn.Module):
    """A triplet function from all that it reads to the sum of its messages, for graphs of any size."""

    messages: Messages

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B K"]:
        hidden = self.messages.size
        batch, n = len(x), math.isqrt(x.shape[1] // hidden) - 1
        z, edges, graph = jnp.split(x, [2 * n * hidden, (2 * n + n * n) * hidden], axis=1)
        edges = edges.reshape(batch, n, n, hidden)
        return self.messages(z.reshape(batch, n, 2 * hidden), edges, graph).sum((1, 2))


def _alone(
    function: Triplets, setting: Setting
) -> tuple[Functions, list[ClosedJaxpr], list[ClosedJaxpr], Layers]:
    """A triplet function by itself: its parts, messages, gradients, and the layers in it.

    Messages are of the graphs that are judged, first of those to validate on, and with them what goes
    back to the network; this and gradients are of all sizes that are trained on.
    """
    hidden = setting.hidden
    flat = _Flat(Messages(function, setting.triplet_features, hidden))

    def graphs(batch: int, nodes: int) -> Shape:
        return Shape((batch, (nodes + 1) ** 2 * hidden), jnp.float32)

    # Parameters are those of two nodes, as in the whole network.
    smallest = graphs(1, 2)
    told, _ = jax.eval_shape(flat.init_with_output, jax.random.key(0), smallest)
    parts = functions(flat, smallest.shape[1:], told.shape[1])
    state = (parts.params, parts.rest)
    with watched() as layers:
        messages = [parts.logits.trace(*state, graphs(setting.eval_batch, setting.valid[0])).jaxpr]
    if setting.test:
        messages += [parts.logits.trace(*state, graphs(setting.test_batch, setting.test[0])).jaxpr]
    y, key = Shape((setting.batch,), jnp.int32), Shape((2,), jnp.uint32)
    sizes = [graphs(setting.batch, n) for n in dict.fromkeys(setting.nodes)]
    gradients = [parts.gradient.trace(*state, x, y, key).jaxpr for x in sizes]
    return parts, [*messages, *(_back(parts, x) for x in sizes)], gradients, layers


def _back(parts: Functions, x: Shape) -> ClosedJaxpr:
    """What a function sends back to what it reads, of which the encoders of the network learn."""

    def total(x: Array, params: Leaves, rest: Leaves) -> Array:
        return parts.logits(params, rest, x).sum()

    back = jax.make_jaxpr(lambda params, rest, x: jax.grad(total)(x, params, rest))
    return back(parts.params, parts.rest, x)
