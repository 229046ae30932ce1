"""What found rules are worth in the end: held-out seeds, longer training, other networks."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxnas.core import Asked, Measured
from jaxnas.formulas.grow import sample
from jaxnas.formulas.tape import END, Grammar
from jaxnas.formulas.training import Task, trainer, tune


class Final(NamedTuple):
    """One thing that rules are tried on.

    Attributes:
      proxy: the task on which the learning rate is chosen, with one seed.
      task: the task itself, run for `task.seeds` seeds at that rate.
    """

    proxy: Task
    task: Task


class Outcome(NamedTuple):
    """Of each of `N` rules.

    Attributes:
      mean: `[N]` by the name of each trial.
      std: `[N]` sample standard deviation over seeds.
      rate: `[N]` the learning rate chosen.
      frozen: `[N]` how many runs met a loss that was not finite.
      curve: `[N, 3, P]` mean, least and greatest loss over seeds, of the first trial.
    """

    mean: dict[str, Float[Array, " N"]]
    std: dict[str, Float[Array, " N"]]
    rate: dict[str, Float[Array, " N"]]
    frozen: dict[str, Int[Array, " N"]]
    curve: Float[Array, "N 3 P"]


class Finals:
    """A problem whose fitness is that of the first trial; nothing is rejected.

    Args:
      grammar: what rules are made of.
      trials: by name, the one that matters first.
      how: see `training.trainer`.
    """

    def __init__(self, grammar: Grammar, trials: dict[str, Final], *, how: str = "auto") -> None:
        self.grammar, self.trials = grammar, trials
        made = cache(lambda task: trainer(task, grammar, how))  # tasks are proxies of each other
        self._runs = {
            name: tuple((task, made(task)) for task in final) for name, final in trials.items()
        }

    def sample(self, key: Key[Array, ""], n: int) -> Int[Array, "n L"]:
        """Draws rules at random, untested."""
        return sample(key, self.grammar, n)

    def evaluate(self, key: Key[Array, ""], asked: Asked) -> Measured:
        """Tries every rule on everything; `extra` is `Outcome`. An empty tape scores `-inf`."""
        tapes = np.asarray(asked.genotypes)
        empty = tapes[:, 0] == END
        tapes = np.where(empty[:, None], _constant(self.grammar), tapes)
        told: list[dict[str, Array]] = [{}, {}, {}, {}]
        curve = jnp.zeros((len(tapes), 3, 1))
        for n, (name, runs) in enumerate(self._runs.items()):
            rate, _, out = tune(*runs, jax.random.fold_in(key, n), tapes)
            several = out.score.shape[1] > 1
            facts = (
                out.score.mean(1),
                out.score.std(1, ddof=1) if several else jnp.zeros(len(tapes)),
                rate,
                (out.frozen > 0).sum(1),
            )
            for where, fact in zip(told, facts, strict=True):
                where[name] = fact
            if n == 0:
                curve = jnp.stack([f(out.losses, 1) for f in (jnp.mean, jnp.min, jnp.max)], 1)
                curve = curve[:, :, _thin(curve.shape[2])]
        fitness = jnp.where(empty, -jnp.inf, told[0][next(iter(self.trials))])
        return Measured(fitness, jnp.where(empty, 0.0, 1.0), Outcome(*told, curve))


def _constant(grammar: Grammar) -> Int[np.ndarray, " L"]:
    """A tape of one leaf, in the place of an empty one."""
    leaf = int(np.flatnonzero(grammar.arity == 0)[0])
    return np.array([leaf] + [END] * (grammar.nodes - 1), np.int32)


def _thin(steps: int, most: int = 200) -> Int[np.ndarray, " P"]:
    return np.unique(np.linspace(0, steps - 1, min(steps, most)).astype(int))


def thinned_steps(steps: int) -> list[int]:
    """The steps, from 1, whose losses a curve holds."""
    return (_thin(steps) + 1).tolist()
