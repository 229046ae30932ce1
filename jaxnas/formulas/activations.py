"""The grammar of activation functions, and a problem that judges them: a third table, no new machinery.

The operators are those of Ramachandran, Zoph & Le, "Searching for Activation Functions", 2017,
arXiv:1710.05941, whose search found Swish, `x * sigmoid(x)`; `phi` is the normal distribution's. A
candidate replaces every nonlinearity of a small perceptron; all candidates of a batch are written
out into one program and trained side by side, over the same first weights and batches.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxnas.core import Asked, Measured, compiled
from jaxnas.formulas import grow
from jaxnas.formulas.evaluate import unrolled
from jaxnas.formulas.tape import Grammar, Symbol, binary, unary

FAILURES = ("", "never sees its input", "diverged")
POINTS = 50  # of a curve, at most

_SYMBOLS = (
    Symbol("x", 0, lambda x, row: x, "x"),
    Symbol("1", 0, lambda x, row: 1.0, "1"),
    Symbol("0.5", 0, lambda x, row: 0.5, "0.5"),
    unary("neg", jnp.negative, "-{}", binds=1, wants=(2,)),
    unary("abs", jnp.abs, "|{}|"),
    unary("square", jnp.square, "{}^2", binds=3, wants=(4,)),
    unary("exp", lambda a: jnp.exp(jnp.minimum(a, 10.0)), "e^{{{}}}", binds=3),
    unary("sin", jnp.sin, r"\sin\left({}\right)"),
    unary("tanh", jnp.tanh, r"\tanh\left({}\right)"),
    unary("sigmoid", jax.nn.sigmoid, r"\sigma\left({}\right)"),
    unary("relu", jax.nn.relu, r"\max\left(0, {}\right)"),
    unary("softplus", jax.nn.softplus, r"\ln\left(1 + e^{{{}}}\right)"),
    unary("phi", jax.scipy.stats.norm.cdf, r"\Phi\left({}\right)"),
    binary("add", jnp.add, "{} + {}", binds=1, wants=(1, 1), commutes=True),
    binary("sub", jnp.subtract, "{} - {}", binds=1, wants=(1, 2)),
    binary("mul", jnp.multiply, r"{} \cdot {}", binds=2, wants=(2, 2), commutes=True),
    binary("max", jnp.maximum, r"\max\left({}, {}\right)", commutes=True),
    binary("min", jnp.minimum, r"\min\left({}, {}\right)", commutes=True),
)
# What people wrote, and Swish.
BASELINES = {
    "ReLU": "relu(x)",
    "tanh": "tanh(x)",
    "Swish": "x * sigmoid(x)",
    "Mish": "x * tanh(softplus(x))",
    "GELU": "x * phi(x)",
}


def activations(length: int = 12) -> Grammar:
    """The grammar.

    Args:
      length: most symbols of a function.
    """
    return Grammar("activations", _SYMBOLS, nodes=length)


class Told(NamedTuple):
    """What is known of `N` measured functions beyond their fitness; NaN where they were not trained.

    Attributes:
      scores: `[N, S]` accuracy of each seed, in percent.
      curve: `[N, S, P]` training loss, the mean of each of the `stretches` of steps.
    """

    scores: Float[np.ndarray, "N S"]
    curve: Float[np.ndarray, "N S P"]


class ActivationJudge:
    """Functions judged by the validation accuracy, in percent, of perceptrons that use them.

    Args:
      grammar: see `activations`.
      train: `(x [N, D], labels [N])` that is learned from.
      valid: the same, that is judged by.
      widths: of the hidden layers.
      classes: how many.
      steps: of training, with Adam.
      batch: examples a step.
      learning_rate: of Adam.
      seeds: runs whose mean is the fitness.
      group: functions in one program.
    """

    def __init__(
        self,
        grammar: Grammar,
        train: tuple[Array, Array],
        valid: tuple[Array, Array],
        *,
        widths: tuple[int, ...] = (64, 64),
        classes: int = 10,
        steps: int = 500,
        batch: int = 64,
        learning_rate: float = 3e-3,
        seeds: int = 2,
        group: int = 32,
    ) -> None:
        self.grammar, self.data, self.valid = grammar, train, valid
        self.widths = (train[0].shape[1], *widths, classes)
        self.steps, self.batch, self.seeds, self.group = steps, batch, seeds, group
        self.tx = optax.adam(learning_rate)

    def sample(self, key: Key[Array, ""], n: int) -> Int[Array, "n L"]:
        """Draws functions at random."""
        return grow.sample(key, self.grammar, n)

    def mutate(self, key: Key[Array, ""], tape: Int[Array, " L"]) -> Int[Array, " L"]:
        """One random change."""
        return grow.mutate(key, self.grammar, tape)

    def evaluate(self, key: Key[Array, ""], asked: Asked) -> Measured:
        """Trains them; cost is 1 each, `extra` is `Told`. Constants cost nothing."""
        tapes = np.asarray(asked.genotypes)
        good = np.array([self.grammar.token("x") in tape for tape in tapes])
        shape = (len(tapes), self.seeds, len(stretches(self.steps)))
        told = Told(*(np.full(shape[:n], np.nan, np.float32) for n in (2, 3)))
        rows = np.flatnonzero(good)
        for first in range(0, len(rows), self.group):
            part = rows[first : first + self.group]
            run = jax.vmap(partial(self._run, tapes[part]), out_axes=1)
            out = compiled(run)(jax.random.split(key, self.seeds))
            told.scores[part], told.curve[part] = out
        fine = np.isfinite(told.scores).all(1)
        fitness = jnp.asarray(np.where(fine, told.scores.mean(1), -np.inf), jnp.float32)
        failure = jnp.asarray(np.select([~good, ~fine], [1, 2], 0), jnp.int32)
        return Measured(fitness, jnp.asarray(good, jnp.float32), told, failure)

    def logits(
        self, tapes: Int[np.ndarray, "M L"], weights: list[PyTree], x: Array
    ) -> Float[Array, "M B classes"]:
        """All networks at once: one product for all, then each function on its own row."""
        y = jnp.broadcast_to(x, (len(tapes), *x.shape))
        for n, one in enumerate(weights):
            y = jnp.einsum("mbi,mio->mbo", y, one["w"]) + one["b"][:, None]
            if n < len(weights) - 1:
                parts = zip(tapes, y, strict=True)
                y = jnp.stack([unrolled(self.grammar, t, v) + 0 * v for t, v in parts])
        return y

    def _run(self, tapes: Int[np.ndarray, "M L"], key: Key[Array, ""]) -> tuple[Array, Array]:
        """Accuracies `[M]` and curves `[M, P]` of one seed."""
        key_weights, key_batches = jax.random.split(key)
        weights = self._start(key_weights, len(tapes))
        x, labels = map(jnp.asarray, self.data)

        def loss(weights: PyTree, index: Array) -> tuple[Array, Array]:
            out = self.logits(tapes, weights, x[index])
            target = jnp.broadcast_to(labels[index], out.shape[:-1])
            each = optax.softmax_cross_entropy_with_integer_labels(out, target).mean(1)
            return each.sum(), each

        def step(state: Any, key: Key[Array, ""]) -> tuple[Any, Array]:
            weights, moments = state
            index = jax.random.randint(key, (self.batch,), 0, len(x))
            (_, each), gradient = jax.value_and_grad(loss, has_aux=True)(weights, index)
            updates, moments = self.tx.update(gradient, moments)
            return (optax.apply_updates(weights, updates), moments), each

        keys = jax.random.split(key_batches, self.steps)
        (weights, _), losses = jax.lax.scan(step, (weights, self.tx.init(weights)), keys)
        right = self.logits(tapes, weights, jnp.asarray(self.valid[0])).argmax(-1) == self.valid[1]
        parts = jnp.split(losses, stretches(self.steps)[:-1])
        curve = jnp.stack([part.mean(0) for part in parts], 1)
        return jnp.where(jnp.isfinite(losses).all(0), 100 * right.mean(1), jnp.nan), curve

    def _start(self, key: Key[Array, ""], count: int) -> list[PyTree]:
        init = jax.nn.initializers.he_normal()
        weights = []
        for n, shape in enumerate(zip(self.widths[:-1], self.widths[1:], strict=True)):
            one = {"w": init(jax.random.fold_in(key, n), shape), "b": jnp.zeros(shape[1])}
            weights.append(jax.tree.map(lambda p: jnp.broadcast_to(p, (count, *p.shape)), one))
        return weights


def stretches(steps: int) -> list[int]:
    """Last steps, from 1, of the stretches of training whose mean losses a curve holds."""
    return np.linspace(0, steps, min(steps, POINTS) + 1).astype(int)[1:].tolist()
