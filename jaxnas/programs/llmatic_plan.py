"""How LLMatic makes a generation: an operator, and for each candidate parents and instruction.

The constants are the paper's (`llmatic` has the citation); `LEGACY` are those of its published code.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jaxnas.evolve.archive import Archive

FIRST, MUTATION, CROSSOVER, FRESH = range(4)  # how a generation is made
ABLATIONS = ("none", "networks", "prompts", "mutation", "crossover", "random")
NOBODY = -1  # for a cell: the seed, or none


class Rules(NamedTuple):
    """The paper's constants.

    Attributes:
      mutation: chance that a generation mutates; else it crosses.
      init_networks: elites of the network archive that end the first phase.
      init_prompts: elites of the prompt archive that do.
      init_generations: generations after which it ends in any case.
      temperature: at the beginning.
      jitter: most by which it is moved before a mutation.
      step: by which it rises after success and falls otherwise.
      coolest: least temperature.
      hottest: greatest.
      crossover_temperature: of crossovers.
      neighbours: elites near the first parent from which the second is drawn.
      ablation: one of `ABLATIONS`: keep networks or prompts alone in an archive and the others in
        a plain population, only mutate, only cross, or write anew from the seed for ever.
      published: whether the published code's rules hold where they differ.
    """

    mutation: float = 0.7
    init_networks: int = 10
    init_prompts: int = 10
    init_generations: int = 10
    temperature: float = 0.6
    jitter: float = 0.1
    step: float = 0.05
    coolest: float = 0.1
    hottest: float = 1.0
    crossover_temperature: float = 0.7
    neighbours: int = 3
    ablation: str = "none"
    published: bool = False


PAPER = Rules()
LEGACY = Rules(mutation=0.85, init_prompts=20, published=True)


class Network(NamedTuple):
    """An elite of the network archive.

    Attributes:
      genotype: what was asked for.
      serial: its number among all that were.
    """

    genotype: PyTree
    serial: Int[Array, "*K"]


class Prompt(NamedTuple):
    """An elite of the prompt archive.

    Attributes:
      index: which instruction.
      temperature: it is given with.
      curiosity: rewards of what was written by it since it came.
    """

    index: Int[Array, "*K"]
    temperature: Float[Array, "*K"]
    curiosity: Float[Array, "*K"]


class Plan(NamedTuple):
    """How the candidates of a generation are made.

    Attributes:
      operator: `[]` one of `FIRST`, `MUTATION`, `CROSSOVER`, `FRESH`.
      parents: `[N, 2]` cells of the network archive; -1 for the seed, and for no second one.
      prompt: `[N]` which instruction; -1 where it is not one of the mutations.
      elite: `[N]` cell of the prompt archive it comes from; -1 for none.
      temperature: `[N]` each is written with.
    """

    operator: Int[Array, ""]
    parents: Int[Array, "N 2"]
    prompt: Int[Array, " N"]
    elite: Int[Array, " N"]
    temperature: Float[Array, " N"]


def planned(rng: np.random.Generator, host: Any, count: int, batch: int, rules: Rules) -> Plan:
    """What the next generation is made of, in numpy."""
    operator = _operator(rng, host, batch, rules)
    parents = np.full((batch, 2), NOBODY, np.int32)
    prompt = elite = np.full(batch, NOBODY, np.int32)
    temperature = np.full(batch, rules.temperature, np.float32)
    if operator == FIRST:
        prompt = rng.integers(count, size=batch).astype(np.int32)
    elif operator == CROSSOVER:
        parents = _pairs(rng, host.networks, batch, rules)
        temperature[:] = _crossover_temperature(rng, host.prompts, rules)
    elif operator == MUTATION:
        network, elite = (_by_rank if rules.published else _by_chance)(rng, host, batch)
        parents[:, 0] = network
        known = elite >= 0
        own = host.prompts.genotypes
        prompt = np.where(known, own.index[elite], rng.integers(count, size=batch))
        temperature = np.where(known, own.temperature[elite], rules.temperature)
        temperature = _jittered(rng, temperature, rules)
    made: Any = (np.int32(operator), parents, np.int32(prompt), elite, np.float32(temperature))
    return Plan(*made)


def _operator(rng: np.random.Generator, host: Any, batch: int, rules: Rules) -> int:
    if rules.ablation == "random":
        return FRESH
    networks, prompts = (np.isfinite(a.fitness).sum() for a in (host.networks, host.prompts))
    full = rules.ablation != "networks" and prompts >= rules.init_prompts
    early = host.asked < rules.init_generations * batch
    if early and networks < rules.init_networks and not full:
        return FIRST
    chance = {"mutation": 1.0, "crossover": 0.0}.get(rules.ablation, rules.mutation)
    return MUTATION if rng.random() < chance or networks < 2 else CROSSOVER


def _by_chance(rng: np.random.Generator, host: Any, batch: int) -> tuple[Any, Any]:
    """Any elite; for half of them the most curious instruction, for the others any that is kept."""
    networks, prompts = (
        np.flatnonzero(np.isfinite(a.fitness)) for a in (host.networks, host.prompts)
    )
    network = rng.choice(networks, batch) if len(networks) else np.full(batch, NOBODY)
    if not len(prompts):
        return network, np.full(batch, NOBODY, np.int32)
    curious = np.full(batch, _most_curious(rng, host.prompts))
    first_half = np.arange(batch) < (batch + 1) // 2
    elite = np.where(first_half, curious, rng.choice(prompts, batch))
    return network, elite.astype(np.int32)


def _by_rank(rng: np.random.Generator, host: Any, batch: int) -> tuple[Any, Any]:
    """The network and the instruction of one rank among the three best, for all candidates."""
    rank = rng.integers(3)
    chosen = []
    for archive, worth in (
        (host.networks, host.networks.fitness),
        (host.prompts, host.prompts.genotypes.curiosity),
    ):
        there = np.flatnonzero(np.isfinite(archive.fitness))
        order = there[np.argsort(-worth[there], kind="stable")]
        at = (order[rank] if len(order) >= 3 else order[0]) if len(order) else NOBODY
        chosen.append(np.full(batch, at, np.int32))
    return chosen[0], chosen[1]


def _most_curious(rng: np.random.Generator, prompts: Archive) -> int:
    """Cell of the most curious instruction; which of several is left to chance."""
    curiosity = np.where(np.isfinite(prompts.fitness), prompts.genotypes.curiosity, -np.inf)
    return int(rng.choice(np.flatnonzero(curiosity == curiosity.max())))


def _jittered(rng: np.random.Generator, temperature: Any, rules: Rules) -> Any:
    """Every second one is moved; by the published code's rules they walk on from the first."""
    moves = rng.uniform(-rules.jitter, rules.jitter, len(temperature))
    if not rules.published:
        moves[::2] = 0
        return np.clip(temperature + moves, rules.coolest, rules.hottest)
    walk, now = [], temperature[0]
    for n, move in enumerate(moves):
        now = temperature[0] if n == 1 else np.clip(now + move, rules.coolest, rules.hottest)
        walk.append(now)
    return np.array(walk)


def _pairs(rng: np.random.Generator, networks: Archive, batch: int, rules: Rules) -> Any:
    """Elites and one near to each; by the published code's rules the best one and any other."""
    there = np.flatnonzero(np.isfinite(networks.fitness))
    if rules.published:
        best = there[np.argmax(networks.fitness[there])]
        others = rng.choice(there[there != best], batch)
        return np.stack([np.full(batch, best), others], 1).astype(np.int32)
    near = _apart(networks.descriptors[there], cosine=rules.ablation == "prompts")
    np.fill_diagonal(near, np.inf)
    order = np.argsort(near, axis=1, kind="stable")[:, : min(rules.neighbours, len(there) - 1)]
    first = rng.integers(len(there), size=batch)
    second = order[first, rng.integers(order.shape[1], size=batch)]
    return np.stack([there[first], there[second]], 1).astype(np.int32)


def _apart(where: Any, *, cosine: bool) -> Any:
    """`[M, M]` distances of descriptors."""
    if not cosine:
        return np.sqrt(((where[:, None] - where) ** 2).sum(-1))
    length = np.linalg.norm(where, axis=1, keepdims=True)
    unit = where / np.maximum(length, 1e-9)
    return 1 - unit @ unit.T


def _crossover_temperature(rng: np.random.Generator, prompts: Archive, rules: Rules) -> float:
    if rules.published and np.isfinite(prompts.fitness).any():
        return float(prompts.genotypes.temperature[_most_curious(rng, prompts)])
    return rules.crossover_temperature
