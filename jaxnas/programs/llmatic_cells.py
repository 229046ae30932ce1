"""LLMatic on NAS-Bench-201: cells are read from replies, measured by the table, never run.

Descriptors are the number of convolutions and the FLOPs; the paper has the ratio of width to depth
in the place of the first, which all cells of this space share. Cells that compute the same are one:
a repetition has the failure `duplicate` and costs no query.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key

from jaxnas.cells import nas_bench_201 as nb
from jaxnas.cells.tabular import Tabular
from jaxnas.core import Asked, Measured, Searcher
from jaxnas.data.tables import Nasbench201Table
from jaxnas.evolve.archive import Axis
from jaxnas.programs import cell_replies
from jaxnas.programs.llmatic import Candidates
from jaxnas.programs.sandbox.verdict import FAILURES

UNREAD, REPEATED = (1 + FAILURES.index(reason) for reason in ("parse", "duplicate"))
# One 1x1 convolution. The other edges pass on what they get: where they are cut, an edit of the edge
# behind them changes nothing, is a repetition, and so never leads to the next edit.
SEED = np.array([nb.SKIP, nb.SKIP, nb.SKIP, nb.CONV1, nb.SKIP, nb.SKIP], np.int8)


def cells(table: Nasbench201Table, dataset: str) -> Candidates:
    """Cells as candidates of LLMatic; the first one is a single 1x1 convolution.

    Args:
      table: for the FLOPs.
      dataset: whose FLOPs.
    """
    flops = np.empty(nb.SIZE, np.float32)
    flops[np.asarray(nb.code(jnp.asarray(table.ops)))] = table.flops[
        :, table.datasets.index(dataset)
    ]
    by_code = jnp.asarray(flops)

    def describe(asked: Asked, measured: Measured) -> Array:
        del measured
        ops = asked.genotypes
        convolutions = ((ops == nb.CONV1) | (ops == nb.CONV3)).sum(-1)
        read = jnp.maximum(ops, 0)
        return jnp.stack([convolutions.astype(jnp.float32), by_code[nb.code(read)]], 1)

    return Candidates(
        seed=SEED,
        mutations=cell_replies.MUTATIONS,
        crossover=cell_replies.CROSSOVER,
        creation=cell_replies.CREATION,
        axes=(
            Axis("convolutions", 0, len(nb.EDGES)),
            Axis("FLOPs", float(flops.min()), float(flops.max())),
        ),
        write=cell_replies.write,
        read=cell_replies.read,
        describe=describe,
    )


class CellJudge(NamedTuple):
    """A `Problem` over cells that may be unreadable, or known already (a budget of 0).

    Attributes:
      table: what readable ones are looked up in; every query costs 1.
    """

    table: Tabular

    def sample(self, key: Key[Array, ""], n: int) -> Int[Array, "N 6"]:
        """Draws `n` cells uniformly."""
        return self.table.sample(key, n)

    def evaluate(self, key: Key[Array, ""], asked: Asked) -> Measured:
        """Looks up what can be."""
        unread = (asked.genotypes < 0).any(-1)
        fails = jnp.where(unread, UNREAD, jnp.where(asked.budget == 0, REPEATED, 0))
        known = asked._replace(genotypes=jnp.maximum(asked.genotypes, 0))
        said, good = self.table.evaluate(key, known), fails == 0
        fitness = jnp.where(good, said.fitness, -jnp.inf)
        return Measured(fitness, said.cost * good, said.extra, fails.astype(jnp.int32))


class Memory(NamedTuple):
    """A searcher's state and what it has asked for.

    Attributes:
      searcher: state of the searcher.
      seen: `[15625]` which canonical codes.
    """

    searcher: Any
    seen: Bool[Array, " cells"]


def without_repeats(searcher: Searcher) -> Searcher:
    """Gives cells that compute what an earlier one did a budget of 0."""
    canonical = jnp.asarray(nb.canonical_codes())

    def codes(genotypes: Int[Array, "N 6"]) -> Int[Array, " N"]:
        """Canonical code; out of range for an unreadable one."""
        read = canonical[nb.code(jnp.maximum(genotypes, 0))]
        return jnp.where((genotypes < 0).any(-1), nb.SIZE, read)

    def init(key: Key[Array, ""]) -> Memory:
        return Memory(searcher.init(key), jnp.zeros(nb.SIZE, bool))

    def ask(key: Key[Array, ""], state: Memory) -> tuple[Asked, Memory]:
        asked, inner = searcher.ask(key, state.searcher)
        own, order = codes(asked.genotypes), jnp.arange(len(asked.genotypes))
        earlier = ((own[:, None] == own) & (order[:, None] > order)).any(-1)
        known = (own < nb.SIZE) & (earlier | state.seen.at[own].get(mode="clip"))
        asked = asked._replace(budget=jnp.where(known, 0, asked.budget))
        return asked, state._replace(searcher=inner)

    def tell(state: Memory, asked: Asked, measured: Measured) -> Memory:
        seen = state.seen.at[codes(asked.genotypes)].set(True, mode="drop")
        return Memory(searcher.tell(state.searcher, asked, measured), seen)

    return Searcher(init, ask, tell)


def to_text(genotype: np.ndarray) -> str:
    """The official string of a cell, or that there is none."""
    return nb.to_text(genotype) if (np.asarray(genotype) >= 0).all() else "no cell in the reply"
