"""Recurrent nodes evolved by genetic programming.

Rawal & Miikkulainen, "From Nodes to Networks: Evolving Recurrent Neural Networks", 2018,
arXiv:1803.04439. Generations of trees: species by the distance of their shapes, each with children
in proportion to its mean rank; homologous crossover of two members of one species; mutations that
exchange a symbol, insert or shrink a branch, add or move a memory. A hall of shame holds every
structure that was ever asked for, so that none is trained twice.

Where the paper gives no number we chose one: the rates below, three memories, trees of at most 15
levels. Generation zero holds the nodes people wrote beside random ones.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxnas.core import Asked, Measured, Searcher
from jaxnas.evolve.species import assign, champions, shares
from jaxnas.formulas.recurrent import MEMORIES, sees_input
from jaxnas.formulas.tape import END, Grammar, Tape, Tree, depth, flat, nested, size
from jaxnas.formulas.trees import distance, ends, homologous, insert, replace, shrink, spliced

TRIES = 40  # variations of one pair of parents before others are drawn


class State(NamedTuple):
    """A population by species; `P` candidates a generation, `S` species, `F` structures in all.

    Attributes:
      genotypes: `[S + P, L]` champions of the generation before and the last generation; empty
        tapes where there is none.
      fitness: `[S + P]` `-inf` where nothing was measured.
      representatives: `[S, L]` one of each species.
      alive: `[S]` which species there are.
      shame: `[F, L]` canonical forms of all structures asked for so far.
      known: how many those are.
    """

    genotypes: Int[Array, "S+P L"]
    fitness: Float[Array, " S+P"]
    representatives: Int[Array, "S L"]
    alive: Bool[Array, " S"]
    shame: Int[Array, "F L"]
    known: Int[Array, ""]


class Rates(NamedTuple):
    """How children are made.

    Attributes:
      crossover: share of children with two parents; all are mutated unless they have.
      mutation: share of those with two parents that are mutated as well.
      survivors: share of a species, the best, from which parents are drawn.
      threshold: distance from which on a tree is of another species.
      levels: most levels of a tree.
    """

    crossover: float = 0.6
    mutation: float = 0.5
    survivors: float = 0.5
    threshold: float = 0.3
    levels: int = 15


RATES = Rates()


def lstm_nodes(
    grammar: Grammar,
    *,
    founders: Sequence[Tape] = (),
    population: int = 100,
    generations: int = 30,
    species: int = 10,
    rates: Rates = RATES,
) -> Searcher:
    """Evolution of nodes; a searcher for the host.

    Args:
      grammar: of the nodes, see `recurrent.nodes`.
      founders: nodes to begin with, beside random ones.
      population: candidates a generation, `P`.
      generations: for how many generations the hall of shame has room.
      species: most of them, `S`.
      rates: how children are made.

    Raises:
      ValueError: if a number is not positive, or there are more founders than places.
    """
    if min(population, generations, species) < 1 or len(founders) > population:
        raise ValueError(
            f"`population`, `generations` and `species` must be at least 1 and `founders` fit into "
            f"the population, but got {population}, {generations}, {species} and {len(founders)}."
        )
    places = species + population

    def init(key: Key[Array, ""]) -> State:
        del key

        def empty(n: int) -> Array:
            return jnp.full((n, grammar.nodes), END, jnp.int32)

        unmeasured = jnp.full(places, -jnp.inf, jnp.float32)
        alive, shame = jnp.zeros(species, bool), empty(population * generations)
        return State(empty(places), unmeasured, empty(species), alive, shame, jnp.int32(0))

    def ask(key: Key[Array, ""], state: State) -> tuple[Asked, State]:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        host: Any = jax.tree.map(np.array, state)  # copies, to be written to
        children = _children(rng, grammar, host, founders, population, rates)
        asked = np.stack([child for child, _ in children]).astype(np.int32)
        forms = np.stack([form for _, form in children])
        room = np.arange(host.known, host.known + population) % len(host.shame)
        host.shame[room] = forms  # beyond its room the oldest are forgotten
        known = np.int32(host.known + population)
        budget = jnp.full(population, -1, jnp.int32)
        return Asked(jnp.asarray(asked), budget), _back(state, host._replace(known=known))

    def tell(state: State, asked: Asked, measured: Measured) -> State:
        host: Any = jax.tree.map(np.array, state)
        children, fitness = np.asarray(asked.genotypes), np.asarray(measured.fitness, np.float32)
        there = np.flatnonzero(host.genotypes[:, 0] != END)
        tapes = np.concatenate([host.genotypes[there], children])
        scores = np.concatenate([host.fitness[there], fitness])
        kinds, representatives, alive = _kinds(grammar, host, tapes, rates)
        best = champions(scores, kinds, places=species)
        old = [i for i in best if 0 <= i < len(there)]  # the others are among the children
        genotypes, kept = np.full_like(host.genotypes, END), np.full_like(host.fitness, -np.inf)
        genotypes[: len(old)], kept[: len(old)] = tapes[old], scores[old]
        genotypes[species:], kept[species:] = children, fitness
        alive &= np.isin(np.arange(species), kinds[np.isfinite(scores)])
        return _back(state, State(genotypes, kept, representatives, alive, host.shame, host.known))

    return Searcher(init, ask, tell)


def _back(like: State, host: Any) -> State:
    return jax.tree.map(lambda old, x: jnp.asarray(x, old.dtype), like, host)


def _kinds(grammar: Grammar, host: Any, tapes: np.ndarray, rates: Rates) -> Any:
    def apart(one: Tape, other: Tape) -> float:
        return distance(grammar, one, other)

    return assign(apart, host.representatives, host.alive, tapes, threshold=rates.threshold)


def _children(
    rng: np.random.Generator,
    grammar: Grammar,
    host: Any,
    founders: Sequence[Tape],
    population: int,
    rates: Rates,
) -> list[tuple[Tape, Tape]]:
    """Pairs of a child and its canonical form, none of which was asked for before."""
    seen = {form.tobytes() for form in host.shame[: host.known]}
    made: list[tuple[Tape, Tape]] = []

    def take(child: Tape) -> bool:
        form = canonical(grammar, child)
        tree = nested(grammar, child)
        good = sees_input(grammar, child) and depth(tree) <= rates.levels
        if good and form.tobytes() not in seen:
            seen.add(form.tobytes())
            made.append((child, form))
            return True
        return False

    if not host.known:
        for founder in founders:
            take(np.asarray(founder, np.int32))
    else:
        for parents in _parents(grammar, host, population, rates):
            _ = any(take(_child(rng, grammar, parents, rates)) for _ in range(TRIES))
    while len(made) < population:  # founders, and in the place of children that were all known
        take(random_node(rng, grammar))
    return made[:population]


def _parents(grammar: Grammar, host: Any, population: int, rates: Rates) -> list[list[Tape]]:
    """For each child to be, the tapes among which its parents are, best first."""
    there = np.flatnonzero(np.isfinite(host.fitness))
    if not len(there):
        return []
    tapes, fitness = host.genotypes[there], host.fitness[there]
    kinds, _, alive = _kinds(grammar, host, tapes, rates)
    counts = shares(fitness, kinds, places=len(alive), offspring=population)
    drawn = []
    for s, count in enumerate(counts):
        members = np.flatnonzero(kinds == s)
        members = members[np.argsort(-fitness[members], kind="stable")]
        most = max(1, int(np.ceil(rates.survivors * len(members))))
        drawn += [[tapes[i] for i in members[:most]]] * int(count)
    return drawn


def _child(rng: np.random.Generator, grammar: Grammar, parents: list[Tape], rates: Rates) -> Tape:
    tape = parents[rng.integers(len(parents))]
    if len(parents) > 1 and rng.random() < rates.crossover:
        other = parents[rng.integers(len(parents))]
        tape = homologous(rng, grammar, tape, other)[0]
        if rng.random() >= rates.mutation:
            return tape
    return (replace, insert, shrink, remember)[rng.integers(4)](rng, grammar, tape)


def remember(rng: np.random.Generator, grammar: Grammar, tape: Tape) -> Tape:
    """Moves a memory to another number, or adds one: something is kept, and a leaf reads it."""
    names = [grammar.symbols[token].name for token in tape if token != END]
    places = [row for row, name in enumerate(names) if name[:-1] in ("c", "keep")]
    k, new = int(rng.integers(MEMORIES)), tape.copy()
    if places and rng.random() < 0.5:
        row = places[rng.integers(len(places))]
        new[row] = grammar.token(f"{names[row][:-1]}{k}")
        return new
    leaves = np.flatnonzero(grammar.arity[tape[: size(tape)]] == 0)
    new[rng.choice(leaves)] = grammar.token(f"c{k}")
    row = int(rng.integers(size(tape)))
    piece = [grammar.token(f"keep{k}"), *new[row : ends(grammar, new)[row]]]
    grown = spliced(new, row, ends(grammar, new)[row], piece)
    return tape.copy() if grown is None else grown


def random_node(rng: np.random.Generator, grammar: Grammar, levels: int = 6) -> Tape:
    """Grows a tree: operators as likely as leaves after the root, leaves alone on the last level."""
    operators = np.flatnonzero(grammar.arity > 0)
    leaves = np.flatnonzero(grammar.arity == 0)

    def grow(level: int) -> list[int]:
        inner = level == 1 or (level < levels and rng.random() < 0.6)
        token = int(rng.choice(operators if inner else leaves))
        branches = [grow(level + 1) for _ in range(grammar.arity[token])]
        return [token, *(one for branch in branches for one in branch)]

    while True:
        tokens = grow(1)
        if len(tokens) <= grammar.nodes:
            return np.array(tokens + [END] * (grammar.nodes - len(tokens)), np.int32)


def canonical(grammar: Grammar, tape: Tape) -> Tape:
    """One form for structures that are the same.

    Operands of `add` and `mul` stand in one order, memories are numbered as they appear, what is
    never read is not kept, and what is never kept has one name.
    """
    tree = _ordered(grammar, _forgotten(nested(grammar, tape)))
    number: dict[str, int] = {}
    kept = set(_named(tree, "keep"))
    tree = _renumbered(tree, number, kept)
    return flat(grammar, tree)


def _named(tree: Tree, prefix: str) -> list[str]:
    """Numbers of the memories that symbols of that prefix name, in order."""
    own = [tree[0][-1]] if tree[0][:-1] == prefix else []
    return own + [k for operand in tree[1:] for k in _named(operand, prefix)]


def _forgotten(tree: Tree) -> Tree:
    """Without writers whose memory is not read, or written nearer the front."""
    read, written = set(_named(tree, "c")), set[str]()

    def walk(tree: Tree) -> Tree:
        if tree[0][:-1] == "keep":
            k = tree[0][-1]
            if k not in read or k in written:
                return walk(tree[1])
            written.add(k)
        return (tree[0], *[walk(operand) for operand in tree[1:]])

    return walk(tree)


def _ordered(grammar: Grammar, tree: Tree) -> Tree:
    operands = [_ordered(grammar, operand) for operand in tree[1:]]
    if operands and grammar.symbols[grammar.token(tree[0])].commutes:
        operands.sort(key=repr)
    return (tree[0], *operands)


def _renumbered(tree: Tree, number: dict[str, int], kept: set[str]) -> Tree:
    name, k = tree[0][:-1], tree[0][-1]
    if name in ("c", "keep"):
        name += str(number.setdefault(k, len(number)) if k in kept else MEMORIES - 1)
    else:
        name = tree[0]
    return (name, *[_renumbered(operand, number, kept) for operand in tree[1:]])
