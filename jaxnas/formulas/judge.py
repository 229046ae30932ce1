"""Update rules as a `Problem`: tested, tried at every learning rate, then run for several seeds."""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxnas.core import Asked, Measured
from jaxnas.formulas import grow
from jaxnas.formulas.filters import Screened, screener
from jaxnas.formulas.tape import END, Grammar
from jaxnas.formulas.training import Task, Train, trainer, tune

TRIES = 200  # blocks drawn before a grammar is given up
FAILURES = ("", "failed a test", "no rate better than the bound", "no rule")


class Told(NamedTuple):
    """What is known of `N` measured rules beyond their fitness.

    Attributes:
      rate: `[N]` the learning rate chosen.
      scores: `[N, seeds]` at that rate.
    """

    rate: Float[Array, " N"]
    scores: Float[Array, "N seeds"]


class Judge:
    """Rules of a grammar, judged by a task.

    The rate is chosen by the score of one seed on `proxy`, the fitness is the mean over other seeds
    at that rate. A rule that fails the tests, or that is at the bound at every rate or in all of its
    runs, scores `-inf` at no cost; all others cost 1.

    Args:
      task: what they are judged by.
      grammar: what they are made of.
      tested: whether rules must pass the tests of `filters`.
      constrained: whether samples keep the grammar's rules about neighbours.
      how: see `training.trainer`.
      proxy: a shorter task on which the rate is chosen; `None` for the task itself.

    Raises:
      ValueError: see `training.trainer`.
    """

    def __init__(
        self,
        task: Task,
        grammar: Grammar,
        *,
        tested: bool = True,
        constrained: bool = True,
        how: str = "auto",
        proxy: Task | None = None,
    ) -> None:
        self.task, self.grammar, self.tested, self.constrained = task, grammar, tested, constrained
        made = cache(lambda task: trainer(task, grammar, how))
        self.proxy = proxy or task
        self.train: Train = made(task)
        self._runs = (self.proxy, made(self.proxy)), (task, self.train)
        self.screen: Callable[[Any], Screened] = screener(grammar)

    def sample(self, key: Key[Array, ""], n: int) -> Int[Array, "n L"]:
        """Draws rules that pass the tests, where they are tested.

        Raises:
          ValueError: if hardly any rule of the grammar passes.
        """
        found: list[np.ndarray] = []
        for _ in range(TRIES):
            if len(found) >= n:
                break
            key, key_draw = jax.random.split(key)
            drawn = self._draw(key_draw, max(64, 4 * n))
            good = np.asarray(self.screen(drawn).good) if self.tested else np.ones(len(drawn), bool)
            found.extend(np.asarray(drawn)[good])
        if len(found) < n:
            raise ValueError(
                f"Of {self.grammar.name} hardly any rule passes the tests ({len(found)} in {TRIES} "
                f"tries); take a grammar with gradients among its leaves, or `tested=False`."
            )
        return jnp.asarray(np.stack(found[:n]))

    def _draw(self, key: Key[Array, ""], n: int) -> Int[Array, "n L"]:
        return grow.sample(key, self.grammar, n, constrained=self.constrained)

    def evaluate(self, key: Key[Array, ""], asked: Asked) -> Measured:
        """Trains what is worth it; `extra` is `Told`."""
        tapes = np.asarray(asked.genotypes)
        there = tapes[:, 0] != END
        good = there & np.asarray(self.screen(asked.genotypes).good) if self.tested else there
        told = Told(
            jnp.zeros(len(tapes), jnp.float32),
            jnp.full((len(tapes), self.task.seeds), self.task.bound, jnp.float32),
        )
        failure = jnp.where(jnp.asarray(there), 1, 3)
        if good.any():
            rate, best, (scores, *_) = tune(*self._runs, key, tapes[good])
            worth = best > self.proxy.bound
            rate = jnp.where(worth, rate, 0.0)
            told = Told(told.rate.at[good].set(rate), told.scores.at[good].set(scores))
            worth &= scores.mean(1) > self.task.bound
            failure = failure.at[good].set(jnp.where(worth, 0, 2))
        fine = failure == 0
        fitness = jnp.where(fine, told.scores.mean(1), -jnp.inf)
        return Measured(fitness, fine.astype(jnp.float32), told, failure)
