"""Recurrent nodes as a `Problem`: trained in groups, judged by what they predict."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxnas.core import Asked, Measured
from jaxnas.formulas.lstm_nodes import random_node
from jaxnas.formulas.recurrent import Node, node, sees_input
from jaxnas.formulas.sequence_nets import Size, hidden_for, parameters, train
from jaxnas.formulas.sequence_tasks import SequenceTask
from jaxnas.formulas.tape import END, Grammar

FAILURES = ("", "never sees its input", "diverged", "no node")


class Told(NamedTuple):
    """What is known of `N` measured nodes beyond their fitness; NaN where they were not trained.

    Attributes:
      scores: `[N, S]` lowest validation loss of each seed.
      test: `[N, S]` test loss at that epoch, if asked for.
      curve: `[N, S, epochs]` validation loss.
      train: `[N, S, epochs]` training loss.
      parameters: `[N]` weights used.
      hidden: `[N]` nodes in a layer.
    """

    scores: Float[np.ndarray, "N S"]
    test: Float[np.ndarray, "N S"]
    curve: Float[np.ndarray, "N S epochs"]
    train: Float[np.ndarray, "N S epochs"]
    parameters: Int[np.ndarray, " N"]
    hidden: Int[np.ndarray, " N"]


class NodeJudge:
    """Nodes of a grammar, judged by a task: fitness is minus the lowest validation loss.

    A candidate's `budget` is how many epochs it is trained for, `-1` for all; its cost is what was
    trained, over all seeds. One that never sees the input costs nothing.

    Args:
      task: what nodes predict.
      grammar: what they are made of.
      size: of the networks and their training.
      seeds: runs of each node, whose mean is its fitness.
      group: most nodes in one program.
      budget: if positive, every network has as many nodes in a layer as come nearest to so many
        parameters, in the place of `size.hidden`.
      test: whether the test streams are looked at.
    """

    def __init__(
        self,
        task: SequenceTask,
        grammar: Grammar,
        size: Size,
        *,
        seeds: int = 1,
        group: int = 16,
        budget: int = 0,
        test: bool = False,
    ) -> None:
        self.task, self.grammar, self.size, self.seeds = task, grammar, size, seeds
        self.group, self.budget, self.test = group, budget, test

    def sample(self, key: Key[Array, ""], n: int) -> Int[Array, "n L"]:
        """Draws nodes that see the input."""
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        found: list[np.ndarray] = []
        while len(found) < n:
            drawn = random_node(rng, self.grammar)
            found += [drawn] if sees_input(self.grammar, drawn) else []
        return jnp.asarray(np.stack(found))

    def evaluate(self, key: Key[Array, ""], asked: Asked) -> Measured:
        """Trains what sees the input; `extra` is `Told`."""
        tapes, epochs = np.asarray(asked.genotypes), self._epochs(asked)
        there = tapes[:, 0] != END
        good = np.array([sees_input(self.grammar, tape) for tape in tapes], bool)
        told = self._nothing(len(tapes))
        keys = jax.random.split(key, self.seeds)
        for rows, size in self._groups(tapes, epochs, good, told):
            out = train(self.task, self.grammar, tapes[rows], size, keys, test=self.test)
            told.test[rows] = out.test
            told.curve[rows, :, : size.epochs] = out.curve
            told.train[rows, :, : size.epochs] = out.train
        told.scores[:] = lowest(told.curve, epochs)
        fine = np.isfinite(told.scores).all(1)
        failure = np.select([~there, ~good, ~fine], [3, 1, 2], 0)
        fitness = np.where(fine, -told.scores.mean(1), -np.inf)
        cost = np.where(good, epochs * self.seeds, 0)
        return Measured(
            jnp.asarray(fitness, jnp.float32),
            jnp.asarray(cost, jnp.float32),
            told,
            jnp.asarray(failure, jnp.int32),
        )

    def _epochs(self, asked: Asked) -> Int[np.ndarray, " N"]:
        budget, most = np.asarray(asked.budget), self.size.epochs
        return np.where(budget < 0, most, np.clip(budget // self.seeds, 1, most))

    def _nothing(self, n: int) -> Told:
        def empty(*shape: int) -> Any:
            return np.full((n, *shape), np.nan, np.float32)

        counts = np.zeros((2, n), np.int32)
        curves = (empty(self.seeds, self.size.epochs) for _ in range(2))
        return Told(empty(self.seeds), empty(self.seeds), *curves, *counts)

    def _groups(
        self, tapes: np.ndarray, epochs: np.ndarray, good: np.ndarray, told: Told
    ) -> Iterator[tuple[list[int], Size]]:
        """Rows that share a program: of one size, and of about as many gates; notes their sizes."""
        alike: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for row in np.flatnonzero(good):
            cell = node(self.grammar, tapes[row])
            told.hidden[row] = self._hidden(cell)
            told.parameters[row] = parameters(
                self.task, cell, int(told.hidden[row]), self.size.layers
            )
            place = (int(told.hidden[row]), int(epochs[row]))
            alike.setdefault(place, []).append((len(cell.gates), int(row)))
        for (hidden, length), members in alike.items():
            rows = [row for _, row in sorted(members)]
            for first in range(0, len(rows), self.group):
                size = self.size._replace(hidden=hidden, epochs=length)
                yield rows[first : first + self.group], size

    def _hidden(self, cell: Node) -> int:
        if not self.budget:
            return self.size.hidden
        return hidden_for(self.task, cell, self.budget, self.size.layers)


def lowest(
    curve: Float[np.ndarray, "N S epochs"], epochs: Int[np.ndarray, " N"]
) -> Float[np.ndarray, "N S"]:
    """The lowest loss of a run within its epochs; NaN if any of them is not finite."""
    counted = np.arange(curve.shape[2]) < epochs[:, None, None]
    whole = np.where(counted, curve, -np.inf).max(2)  # NaN goes through
    best = np.where(counted, curve, np.inf).min(2)
    return np.where(np.isfinite(whole), best, np.nan).astype(np.float32)
