"""Which expressions are worth training: tests that cost no training, and a print to know equals by.

Wang et al., arXiv:2209.13575, sections 3.2.3 and 3.2.4. A rule is fed Gaussian vectors in place of
gradients. It must answer with both signs and answer differently to different gradients; the angle
between its answer and the gradient must on average be acute (the descent test); and its answer to
one fixed vector is its print: two rules with the same print are one.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxnas.core import compiled
from jaxnas.formulas.evaluate import interpreted
from jaxnas.formulas.grow import mutate
from jaxnas.formulas.tape import END, Grammar
from jaxnas.formulas.update_rules import BUFFERS, DECAY, DECAY2, EPSILON, Inputs

WIDTH, PROBES = 25, 25
ACUTE = 0.15  # least mean cosine
BLOCK = 256  # tapes tested at once
SAME = 1e-6  # greatest mean difference of equal prints
# When a rule is asked; not at a restart, where `rd` would be 1 and `rd * g` be taken for `g`.
STEP, STEPS = 31.0, 100.0


class Screened(NamedTuple):
    """What tests say of `N` tapes.

    Attributes:
      meaningful: `[N]` both signs, and not the same answer to different gradients.
      cosine: `[N]` mean cosine between answer and gradient; NaN where the answer is.
      prints: `[N, 25]` the answer to the fixed vector.
    """

    meaningful: Bool[Array, " N"]
    cosine: Float[Array, " N"]
    prints: Float[Array, "N 25"]

    @property
    def good(self) -> Bool[Array, " N"]:
        """`[N]` whether both tests are passed."""
        return self.meaningful & (self.cosine > ACUTE)


def screener(grammar: Grammar) -> Callable[[Int[Array, "N L"]], Screened]:
    """A function that tests tapes of a grammar of update rules, a block at a time: one program."""
    screen = one_screener(grammar)
    screened = compiled(lambda tapes: jax.lax.map(screen, tapes))

    def run(tapes: Int[Array, "N L"] | Int[np.ndarray, "N L"]) -> Screened:
        tapes = jnp.asarray(tapes)
        rows = jnp.pad(tapes, [(0, -len(tapes) % BLOCK), (0, 0)], constant_values=END)
        parts = [screened(rows[n : n + BLOCK]) for n in range(0, len(rows), BLOCK)]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[: len(tapes)], *parts)

    return run


def one_screener(grammar: Grammar) -> Callable[[Int[Array, " L"]], Screened]:
    """The tests of one tape, to be traced."""
    inputs = _inputs()

    def screen(tape: Int[Array, " L"]) -> Screened:
        out = interpreted(grammar, tape, inputs, inputs.g)
        down, g = out[1:], inputs.g[1:]
        signs = (down[0] > 0).any() & (down[0] < 0).any()
        moved = jnp.abs(down[0] - down[1]).sum() > SAME  # false for NaN
        norms = jnp.linalg.norm(down, axis=1) * jnp.linalg.norm(g, axis=1)
        return Screened(signs & moved, ((down * g).sum(1) / norms).mean(), out[0])

    return screen


def tried_mutation(
    grammar: Grammar, *, constrained: bool = True, tries: int = 8
) -> Callable[[Key[Array, ""], Int[Array, " L"]], Int[Array, " L"]]:
    """Mutation that takes the first of several mutants which passes the tests and is another rule.

    Where none does, the first mutant is taken as it is.
    """
    screen = one_screener(grammar)

    @jax.jit  # a search on the host calls it anew for every generation
    def mutated(key: Key[Array, ""], tape: Int[Array, " L"]) -> Int[Array, " L"]:
        keys = jax.random.split(key, tries)
        mutants = jax.vmap(lambda key: mutate(key, grammar, tape, constrained=constrained))(keys)
        tested = jax.lax.map(screen, mutants)
        return mutants[jnp.argmax(tested.good & (mutants != tape).any(1))]

    return mutated


def _inputs() -> Inputs:
    """What a rule is asked: a vector whose every input is drawn for itself, then 25 gradients.

    For the gradients momentum, Adam and RMSprop all point where the gradient does, so their
    buffers are set to what makes them.
    """
    key_free, key_down, key_memory = jax.random.split(jax.random.key(400), 3)
    free, own_w = jax.random.normal(key_free, (2, 1, WIDTH))
    down = jax.random.normal(key_down, (PROBES, WIDTH)) / 60
    ones = jnp.ones_like(down)
    stand_in = {
        "adam1": down * (1 - DECAY**STEP) * (1 + EPSILON) / 0.003,
        "adam2": ones * (1 - DECAY2**STEP),
        "rms": ones,
    }
    drawn = jax.random.normal(key_memory, (len(BUFFERS), 1, WIDTH))
    memory = {
        name: jnp.concatenate(
            [own**2 if buffer.power == 2 else own, stand_in.get(name, down**buffer.power)]
        )
        for (name, buffer), own in zip(BUFFERS.items(), drawn, strict=True)
    }
    g = jnp.concatenate([free, down])
    raw = jnp.concatenate([free, down * (1 + EPSILON) / 0.03])
    w = jnp.concatenate([own_w, 1e-3 * ones])
    keys = jnp.stack([jax.random.key(400)] * len(g))
    return Inputs(w, raw, g, memory, jnp.float32(STEP), STEPS, keys)


def known(prints: Float[np.ndarray, "P 25"], new: Float[np.ndarray, " 25"]) -> int:
    """Where a print stands among others, or -1: equal up to rounding, infinities and NaN alike."""
    finite = np.isfinite(new)
    alike = (np.isfinite(prints) == finite) & (
        finite | (prints == new) | (np.isnan(prints) & np.isnan(new))
    )
    own, other = np.where(finite, new, 0).astype(float), np.where(finite, prints, 0).astype(float)
    gap = np.abs(other - own) / (1 + np.abs(own))  # element by element: one large value hides none
    found = np.flatnonzero(alike.all(1) & (gap.mean(1) < SAME))
    return int(found[0]) if len(found) else -1
