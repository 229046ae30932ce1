"""Optimizer search: Monte-Carlo traversal of the super-tree of all update rules.

Wang et al., "Efficient Non-Parametric Optimizer Search for Diverse Tasks", NeurIPS 2022,
arXiv:2209.13575. A node of the super-tree is a rule with holes; its children fill one hole with one
symbol. On each level children are drawn and completed at random, what fails a test or was seen
before costs nothing, and 32 new rules are trained. A child's score is the mean of the rules that
came from it; the best child that still has holes is the next node. After four levels 128 rules
have been trained.

Where we differ: roll-outs never outgrow the tape (the published code drops those that do), and a
child without any score is never preferred to one that has some.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxnas.core import Asked, Measured, Searcher
from jaxnas.formulas.filters import BLOCK, WIDTH, Screened, known
from jaxnas.formulas.grow import blank, complete, fill, weights
from jaxnas.formulas.tape import END, HOLE, Grammar, to_text


class State(NamedTuple):
    """A traversal; `V` levels, `C` children of a node (hole x symbol), `P` places in the pool.

    Attributes:
      nodes: `[V + 1, L]` the node of each level reached so far.
      level: where the traversal is; `V` when it is over.
      rounds: how often this level has asked.
      attempts: roll-outs drawn on this level.
      trained: new rules of this level that were worth a score.
      totals: `[V, C]` sum of the scores of each child.
      counts: `[V, C]` how many scores that were.
      credit: `[N, C]` how many roll-outs of each child led to each rule that was asked for.
      tapes: `[P, L]` rules asked for so far.
      prints: `[P, 25]` what they are known by.
      fitness: `[P]` theirs, `-inf` for those that were not worth a score.
      known: how many places of the pool are taken.
      drawn: `[3]` roll-outs drawn so far, those that failed a test, those that were known already.
    """

    nodes: Int[Array, "V+1 L"]
    level: Int[Array, ""]
    rounds: Int[Array, ""]
    attempts: Int[Array, ""]
    trained: Int[Array, ""]
    totals: Float[Array, "V C"]
    counts: Int[Array, "V C"]
    credit: Int[Array, "N C"]
    tapes: Int[Array, "P L"]
    prints: Float[Array, "P 25"]
    fitness: Float[Array, " P"]
    known: Int[Array, ""]
    drawn: Int[Array, " 3"]


def optimizer_search(
    grammar: Grammar,
    screen: Callable[[Int[Array, "N L"]], Screened],
    *,
    samples: int = 32,
    levels: int = 4,
    rounds: int = 3,
    attempts: int = 4500,
    constrained: bool = True,
) -> Searcher:
    """Monte-Carlo traversal; a searcher for the host, since it takes as many roll-outs as it needs.

    An ask holds `samples` places of which those not needed are empty tapes; a problem must score
    these `-inf` at no cost. Rules that it rejects are replaced by others in the next round.

    Args:
      grammar: what rules are made of.
      screen: see `filters.screener`.
      samples: rules newly trained on a level, `N`.
      levels: how far the traversal goes, `V`.
      rounds: asks on a level before it goes on with fewer.
      attempts: roll-outs on a level before it goes on with fewer.
      constrained: whether redundant and hopeless branches are cut while growing.

    Raises:
      ValueError: if a number is not positive.
    """
    if min(samples, levels, rounds, attempts) < 1:
        raise ValueError(
            f"`samples`, `levels`, `rounds` and `attempts` must be at least 1, but got {samples}, "
            f"{levels}, {rounds} and {attempts}."
        )
    draw = _roll_outs(grammar, screen, constrained)

    def init(key: Key[Array, ""]) -> State:
        del key
        return _start(grammar, samples, levels, rounds)

    def ask(key: Key[Array, ""], state: State) -> tuple[Asked, State]:
        host = jax.tree.map(np.array, state)  # copies, to be written to
        first = int(host.known)
        full = first + (samples - host.trained if host.level < levels else 0)
        node = state.nodes[jnp.minimum(state.level, levels - 1)]
        for one in draw(key, node) if full > first else ():
            if host.known == full or host.attempts >= attempts:
                break
            host = _take(host, first, *one)
        asked = np.full((samples, grammar.nodes), END, np.int32)
        asked[: host.known - first] = host.tapes[first : host.known]
        budget = jnp.full(samples, -1, jnp.int32)
        return Asked(jnp.asarray(asked), budget), jax.tree.map(jnp.asarray, host)

    def tell(state: State, asked: Asked, measured: Measured) -> State:
        host = _score(jax.tree.map(np.array, state), asked, np.asarray(measured.fitness))
        done = host.trained >= samples or host.rounds >= rounds or host.attempts >= attempts
        if done and host.level < levels:
            host = _descend(grammar, host)
        return jax.tree.map(lambda old, x: jnp.asarray(x, old.dtype), state, host)

    return Searcher(init, ask, tell)


def _start(grammar: Grammar, samples: int, levels: int, rounds: int) -> State:
    children, places = grammar.nodes * len(grammar.symbols), samples * levels * rounds
    zero = jnp.int32(0)
    nodes = jnp.full((levels + 1, grammar.nodes), END, jnp.int32)
    return State(
        nodes=nodes.at[0].set(blank(grammar)),
        level=zero,
        rounds=zero,
        attempts=zero,
        trained=zero,
        totals=jnp.zeros((levels, children), jnp.float32),
        counts=jnp.zeros((levels, children), jnp.int32),
        credit=jnp.zeros((samples, children), jnp.int32),
        tapes=jnp.full((places, grammar.nodes), END, jnp.int32),
        prints=jnp.zeros((places, WIDTH), jnp.float32),
        fitness=jnp.full(places, -jnp.inf, jnp.float32),
        known=zero,
        drawn=jnp.zeros(3, jnp.int32),
    )


RollOuts = Callable[[Key[Array, ""], Int[Array, " L"]], Iterator[tuple[Any, ...]]]


def _roll_outs(grammar: Grammar, screen: Any, constrained: bool) -> RollOuts:
    """Draws children of a node without end, completes them, and tests them, a block at a time."""

    @jax.jit
    def draw(key: Key[Array, ""], node: Int[Array, " L"]) -> tuple[Array, Array]:
        key_child, key_grow = jax.random.split(key)
        odds = jnp.log(weights(grammar, node, constrained=constrained)).reshape(-1)
        child = jax.random.categorical(key_child, odds, shape=(BLOCK,))
        rows, tokens = jnp.divmod(child, len(grammar.symbols))
        partial = jax.vmap(lambda row, token: fill(grammar, node, row, token))(rows, tokens)
        grow = jax.vmap(lambda key, one: complete(key, grammar, one, constrained=constrained))
        return child, grow(jax.random.split(key_grow, BLOCK), partial)

    def run(key: Key[Array, ""], node: Int[Array, " L"]) -> Iterator[tuple[Any, ...]]:
        while True:
            key, key_draw = jax.random.split(key)
            child, tapes = draw(key_draw, node)
            tested = screen(tapes)
            columns = jax.device_get((child, tapes, tested.good, tested.prints))
            yield from zip(*columns, strict=True)

    return run


def _take(host: Any, first: int, child: Any, tape: Any, good: Any, answer: Any) -> Any:
    """Counts one roll-out: it fails, or is known and scores what it scored, or is to be trained."""
    host.drawn[0] += 1
    host = host._replace(attempts=host.attempts + 1)
    if not good:
        host.drawn[1] += 1
        return host
    place = known(host.prints[: host.known], answer)
    if place < 0:
        host.tapes[host.known], host.prints[host.known] = tape, answer
        host.credit[host.known - first, child] += 1
        return host._replace(known=host.known + 1)
    host.drawn[2] += 1
    if place >= first:  # asked for in this very round
        host.credit[place - first, child] += 1
    elif np.isfinite(host.fitness[place]):
        host.totals[host.level, child] += host.fitness[place]
        host.counts[host.level, child] += 1
    return host


def _score(host: Any, asked: Asked, fitness: Float[np.ndarray, " N"]) -> Any:
    """Hands the scores of new rules to the children they came from."""
    new = np.asarray(asked.genotypes)[:, 0] != END
    good = np.isfinite(fitness) & new
    if new.any():
        host.totals[host.level] += np.where(good, fitness, 0) @ host.credit
        host.counts[host.level] += good.astype(np.int32) @ host.credit
    host.credit[:] = 0
    host.fitness[host.known - new.sum() : host.known] = fitness[new]
    return host._replace(rounds=host.rounds + 1, trained=host.trained + good.sum())


def _descend(grammar: Grammar, host: Any) -> Any:
    """Goes to the child of the best mean score that still has holes."""
    totals, counts = host.totals[host.level], host.counts[host.level]
    node = host.nodes[host.level]
    rows, tokens = np.divmod(np.arange(len(totals)), len(grammar.symbols))
    holes = (node == HOLE).sum() - 1 + grammar.arity[tokens]
    open_ = (node[rows] == HOLE) & (holes > 0)
    means = np.where(open_ & (counts > 0), totals / np.maximum(counts, 1), -np.inf)
    if np.isfinite(means).any():
        best = int(means.argmax())
        host.nodes[host.level + 1] = fill(grammar, node, rows[best], tokens[best])
    else:  # nothing to go by: look once more from here
        host.nodes[host.level + 1] = node
    zero = np.int32(0)
    return host._replace(level=host.level + 1, rounds=zero, attempts=zero, trained=zero)


def traversal(grammar: Grammar, state: State, most: int = 8) -> list[dict[str, Any]]:
    """The way that was taken, for reports: each level's node and its best children.

    Returns:
      For each level `node` (text with `_` for holes), `scores` (how many) and `children`, a list of
      `[text, mean score, how many scores]`, best first.
    """
    host = jax.device_get(state)
    way = []
    for level in range(int(host.level)):
        node, counts = host.nodes[level], host.counts[level]
        means = np.where(counts > 0, host.totals[level] / np.maximum(counts, 1), -np.inf)
        children = []
        for c in np.argsort(-means)[: min(most, int((counts > 0).sum()))]:
            row, token = divmod(int(c), len(grammar.symbols))
            child = np.asarray(fill(grammar, node, row, token))
            children.append([to_text(grammar, child), float(means[c]), int(counts[c])])
        way.append(
            {
                "node": to_text(grammar, node),
                "scores": int(counts.sum()),
                "children": children,
            }
        )
    return way
