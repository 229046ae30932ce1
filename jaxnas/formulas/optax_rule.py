"""Found rules for everyone's training loop: as an optax transformation, and as a Python file.

Both walk as the rule did in training. That includes symbols that draw random numbers: a network
draws as one vector of all its weights, of which each array takes its part.
"""

import math
from itertools import accumulate
from string import Template
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key, PyTree

from jaxnas.formulas.evaluate import unrolled
from jaxnas.formulas.tape import Grammar, Tape, nested, to_code, to_latex, to_text
from jaxnas.formulas.update_rules import BUFFERS, Inputs, buffers, remember


class RuleState(NamedTuple):
    """State of a rule as an optimizer.

    Attributes:
      step: how many updates were made.
      memory: like the parameters, with a dict of buffers in the place of each array.
      key: for rules that draw random numbers.
    """

    step: Int[Array, ""]
    memory: PyTree
    key: Key[Array, ""]


def as_optax(
    grammar: Grammar,
    tape: Tape,
    learning_rate: float,
    *,
    steps: int,
    weight_decay: float = 0.0,
    seed: int = 0,
) -> optax.GradientTransformation:
    """A rule as an optimizer: updates are `-learning_rate * rule`.

    Args:
      grammar: what the rule is made of.
      tape: the rule.
      learning_rate: what it is multiplied by.
      steps: `T` of its decays; after that many updates they stay at their end.
      weight_decay: added to the gradient, times the weights.
      seed: of rules that draw random numbers.

    Example:
      >>> import optax
      >>> from jaxnas.formulas.tape import parse
      >>> from jaxnas.formulas.update_rules import space
      >>> rules = space("everything")
      >>> tx = as_optax(rules, parse(rules, "ld * (sm1 - rmsprop)"), 0.01, steps=1000)
      >>> state = tx.init({"w": jnp.ones(3)})
      >>> updates, state = tx.update({"w": jnp.ones(3)}, state, {"w": jnp.ones(3)})
    """
    names = buffers(grammar, tape)

    def init(params: PyTree) -> RuleState:
        memory = jax.tree.map(lambda w: {name: jnp.zeros_like(w) for name in names}, params)
        return RuleState(jnp.int32(0), memory, jax.random.key(seed))

    def update(updates: PyTree, state: Any, params: PyTree = None) -> tuple[PyTree, Any]:
        if params is None:
            raise ValueError("`params` must be given to `update`, since rules may read weights.")
        step = state.step + 1
        t = jnp.minimum(step, steps).astype(jnp.float32)
        key = jax.random.fold_in(state.key, step)
        tree, (starts, total) = jax.tree.structure(updates), _places(updates)

        def one(raw: Array, w: Array, memory: dict[str, Array], start: int) -> Any:
            g = raw + weight_decay * w
            kept, read = remember(memory, g, raw, step)
            flat = jax.tree.map(jnp.ravel, (w, raw, g, read))
            inputs = Inputs(*flat, t, float(steps), key, start, total)
            value = unrolled(grammar, tape, inputs)
            return -learning_rate * jnp.broadcast_to(value, w.size).reshape(w.shape), kept

        done = tree.flatten_up_to(jax.tree.map(one, updates, params, state.memory, starts))
        new, memory = (tree.unflatten(part) for part in zip(*done, strict=True))
        return new, RuleState(step, memory, state.key)

    return optax.GradientTransformation(init, update)


def _places(tree: PyTree) -> tuple[PyTree, int]:
    """Where each array begins in a vector of all of them, and how long that is."""
    leaves, structure = jax.tree.flatten(tree)
    ends = [0, *accumulate(math.prod(jnp.shape(leaf)) for leaf in leaves)]
    return structure.unflatten(ends[:-1]), ends[-1]


def as_file(
    grammar: Grammar, tape: Tape, learning_rate: float, *, steps: int, weight_decay: float = 0.0
) -> str:
    """A Python file with the rule as an optimizer; it needs jax and optax alone.

    Args:
      grammar: what the rule is made of.
      tape: the rule.
      learning_rate: the default rate of the file.
      steps: the default of its decays' `T`.
      weight_decay: the default decay.
    """
    names = buffers(grammar, tape)
    lines = [line for name in names for line in _buffer(name)]
    return Template(FILE).substitute(
        text=to_text(grammar, tape),
        latex=to_latex(grammar, tape),
        names=repr(names),
        rate=str(learning_rate),
        steps=steps,
        decay=str(weight_decay),
        buffers="\n".join(f"        {line}" for line in lines),
        kept=", ".join(f'"{name}": new_{name}' for name in names),
        value=to_code(grammar, nested(grammar, tape)),
    )


def _buffer(name: str) -> list[str]:
    """Lines that bring one buffer up to date."""
    buffer = BUFFERS[name]
    term = ("raw" if buffer.raw else "g") + (f"**{buffer.power}" if buffer.power > 1 else "")
    later = f"{buffer.decay:g} * memory[{name!r}] + {buffer.gain:g} * {term}"
    read = f"memory[{name!r}]" if buffer.lag else f"new_{name}"
    return [
        f"new_{name} = jnp.where(step == 1, {buffer.first:g} * {term}, {later})",
        f"{name} = {read}",
    ]


FILE = '''\
r"""The update rule  w <- w - learning_rate * ($text)

In LaTeX: $$$latex$$
"""

from itertools import accumulate
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

BUFFERS = $names


class State(NamedTuple):
    step: jax.Array
    memory: object
    key: jax.Array


def cosine(t, steps):
    return 0.5 * (1 + jnp.cos(jnp.pi * t / steps))


def restarts(t, steps):
    return 0.5 * (1 + jnp.cos(jnp.pi * ((20 * t) % steps) / steps))


def optimizer(learning_rate=$rate, steps=$steps, weight_decay=$decay, seed=0):
    """An optax.GradientTransformation; call `update(gradients, state, params)`."""

    def one(raw, w, memory, start, total, key, step):
        g = raw + weight_decay * w
        t = jnp.minimum(step, steps).astype(jnp.float32)

        def own(drawn):  # for all weights of the network at once
            return drawn[start : start + w.size].reshape(w.shape)

        def drop(x, rate, row):
            key_row = jax.random.fold_in(key, row)
            stays = own(jax.random.bernoulli(key_row, 1 - rate, (total,)))
            return jnp.where(stays, x / (1 - rate), 0.0)

        def noise(row):
            return own(jax.random.normal(jax.random.fold_in(key, row), (total,), w.dtype))

        def epsilon(row):
            return jax.random.normal(jax.random.fold_in(key, row), (1,), w.dtype)[0]

$buffers
        value = $value
        return -learning_rate * jnp.broadcast_to(value, w.shape), {$kept}

    def init(params):
        memory = jax.tree.map(lambda w: {name: jnp.zeros_like(w) for name in BUFFERS}, params)
        return State(jnp.int32(0), memory, jax.random.key(seed))

    def update(gradients, state, params):
        step = state.step + 1
        leaves, tree = jax.tree.flatten(gradients)
        key = jax.random.fold_in(state.key, step)
        weights, memories = tree.flatten_up_to(params), tree.flatten_up_to(state.memory)
        *starts, total = accumulate((w.size for w in weights), initial=0)
        each = zip(leaves, weights, memories, starts)
        done = [one(*here, total, key, step) for here in each]
        updates, memory = (tree.unflatten(part) for part in zip(*done))
        return updates, State(step, memory, state.key)

    return optax.GradientTransformation(init, update)
'''
