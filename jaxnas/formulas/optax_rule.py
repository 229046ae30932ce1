"""Found rules for everyone's training loop: as an optax transformation, and as a Python file."""

from string import Template
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Key, PyTree

from jaxnas.formulas.evaluate import unrolled
from jaxnas.formulas.tape import Grammar, Tape, nested, size, to_code, to_latex, to_text
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
        leaves, tree = jax.tree.flatten(updates)
        keys = tree.unflatten(
            list(jax.random.split(jax.random.fold_in(state.key, step), len(leaves)))
        )

        def one(raw: Array, w: Array, memory: dict[str, Array], key: Key[Array, ""]) -> Any:
            g = raw + weight_decay * w
            kept, read = remember(memory, g, raw, step)
            flat = jax.tree.map(jnp.ravel, (w, raw, g, read))
            value = unrolled(grammar, tape, Inputs(*flat, t, float(steps), key))
            return -learning_rate * jnp.broadcast_to(value, w.size).reshape(w.shape), kept

        done = tree.flatten_up_to(jax.tree.map(one, updates, params, state.memory, keys))
        new, memory = (tree.unflatten(part) for part in zip(*done, strict=True))
        return new, RuleState(step, memory, state.key)

    return optax.GradientTransformation(init, update)


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
    code = to_code(grammar, nested(grammar, tape)).replace("T)", "steps)")
    lines = [line for name in names for line in _buffer(name)]
    return Template(FILE).substitute(
        text=to_text(grammar, tape),
        latex=to_latex(grammar, tape),
        names=repr(names),
        rate=str(learning_rate),
        steps=steps,
        decay=str(weight_decay),
        draws=size(tape),
        buffers="\n".join(f"        {line}" for line in lines),
        kept=", ".join(f'"{name}": new_{name}' for name in names),
        value=code,
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

    def one(raw, w, memory, key, step):
        g = raw + weight_decay * w
        t = jnp.minimum(step, steps).astype(jnp.float32)
        keys = iter(jax.random.split(key, $draws))

        def drop(x, rate):
            stays = jax.random.bernoulli(next(keys), 1 - rate, w.shape)
            return jnp.where(stays, x / (1 - rate), 0.0)

        def noise(shape=None):
            return jax.random.normal(next(keys), w.shape if shape is None else shape)

$buffers
        value = $value
        return -learning_rate * jnp.broadcast_to(value, w.shape), {$kept}

    def init(params):
        memory = jax.tree.map(lambda w: {name: jnp.zeros_like(w) for name in BUFFERS}, params)
        return State(jnp.int32(0), memory, jax.random.key(seed))

    def update(gradients, state, params):
        step = state.step + 1
        leaves, tree = jax.tree.flatten(gradients)
        keys = jax.random.split(jax.random.fold_in(state.key, step), len(leaves))
        weights, memories = tree.flatten_up_to(params), tree.flatten_up_to(state.memory)
        done = [one(*each, step) for each in zip(leaves, weights, memories, keys)]
        updates, memory = (tree.unflatten(part) for part in zip(*done))
        return updates, State(step, memory, state.key)

    return optax.GradientTransformation(init, update)
'''
