"""LLMatic: a language model varies networks, two archives say what it varies and how it is asked.

Nasir, Earle, Cleghorn, James & Togelius, "LLMatic: Neural Architecture Search via Large Language
Models and Quality Diversity Optimization", GECCO 2024, arXiv:2306.01102. The network archive holds
elites by size and shape, the prompt archive instructions with a temperature. A generation mutates
(an elite and an instruction) or crosses (an elite and one near it); temperatures rise after success;
an instruction's curiosity rises where its networks become elites. The paper's text is the default.
Where it leaves a choice, ours is: among the most curious chance decides; the random half of the
instructions is drawn from the prompt archive; one that wrote nothing that can be built is not kept;
the first phase ends after `init_generations` in any case, the second has the seed for a parent
while there is no elite. A repetition counts as built, not as an elite. The first phase trains as the
others do: the paper judges it untrained, but here the same programs, once judged, are repetitions.

`LEGACY` are the numbers of the published code and its rules where they differ: parents by rank, a
temperature that walks from sample to sample, success against the best so far, instructions worth 1
if they made an elite. What is a defect there is not repeated: descriptors not normalised, failures
replaced by their parent and credited to the instruction, one temperature left over for all,
curiosity lost with whatever is not archived, a second parent out of range. Inheritance of
weights is the judge's (`inheritance`), which is told the parents of every candidate; off by default.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree

from jaxnas.core import Asked, Measured, Searcher
from jaxnas.evolve.archive import Archive, Axis, add, empty, filled, placed
from jaxnas.programs.llmatic_plan import (
    ABLATIONS,
    CROSSOVER,
    FIRST,
    FRESH,
    LEGACY as LEGACY,
    NOBODY,
    PAPER as PAPER,
    Network,
    Plan,
    Prompt,
    Rules as Rules,
    planned,
)
from jaxnas.programs.proposal import Proposal, Proposer
from jaxnas.programs.sandbox.verdict import FAILURES

REPEATED = 1 + FAILURES.index("duplicate")
ADDED, IDLE, BROKEN = 1.0, -0.5, -1.0  # what a candidate does to the curiosity of its instruction
POPULATION_STEP = 0.1  # of temperatures in the ablation `networks`


class Candidates(NamedTuple):
    """What is searched, as far as the search needs to know.

    Attributes:
      seed: genotype of the network that all others come from.
      mutations: instructions, of which the prompt archive learns.
      crossover: instruction to combine two parents.
      creation: instruction to write anew, for the ablation `random`.
      axes: of the network archive.
      write: `(instruction, parents, temperature, seed) -> Proposal`.
      read: `(reply) -> genotype`; of one type and shape, whatever the reply.
      describe: `(asked, measured) -> [N, D]` in the units of the axes.
    """

    seed: Any
    mutations: tuple[str, ...]
    crossover: str
    creation: str
    axes: tuple[Axis, ...]
    write: Callable[[str, Sequence[Any], float, int], Proposal]
    read: Callable[[str], Any]
    describe: Callable[[Asked, Measured], Float[Array, "N D"]]


class State(NamedTuple):
    """Both archives, and what the next generation is compared with.

    Attributes:
      networks: elites, `Network`.
      prompts: elites, `Prompt`.
      scores: `[P]` how often each instruction beat the generation before.
      rival: best fitness of the generation before (published code: so far).
      asked: candidates asked for so far.
      plan: of the generation under way.
    """

    networks: Archive
    prompts: Archive
    scores: Float[Array, " P"]
    rival: Float[Array, ""]
    asked: Int[Array, ""]
    plan: Plan


def llmatic(
    candidates: Candidates,
    propose: Proposer,
    *,
    centroids: Float[Array, "K 2"],
    batch: int = 100,
    rules: Rules = PAPER,
) -> Searcher:
    """The search; for the host, since it asks a language model.

    Args:
      candidates: what is searched.
      propose: who writes.
      centroids: `[K, 2]` of the cells of both archives, see `archive.cvt`.
      batch: candidates a generation, `N`.
      rules: constants.

    Returns:
      A `Searcher`. All that is random comes from the keys, temperature and seed of every proposal
      among it, so that a run resumes bit for bit where replies are recorded.

    Raises:
      ValueError: if `batch` is not positive, there is no such ablation, `mutation` is no chance, or
        an axis has its ends the wrong way round.
    """
    _refuse(batch, rules, candidates.axes)

    def init(key: Key[Array, ""]) -> State:
        return _beginning(key, candidates, centroids, batch, rules)

    def ask(key: Key[Array, ""], state: State) -> tuple[Asked, State]:
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        host: Any = jax.tree.map(np.asarray, state)
        plan = planned(rng, host, len(candidates.mutations), batch, rules)
        elites = host.networks.genotypes
        replies = propose(_proposals(rng, candidates, elites, plan))
        genotypes = jax.tree.map(
            lambda *leaves: jnp.asarray(np.stack(leaves)), *map(candidates.read, replies)
        )
        serials = jnp.asarray(np.where(plan.parents >= 0, elites.serial[plan.parents], 0))
        asked = Asked(genotypes, jnp.full(batch, -1, jnp.int32), serials)
        return asked, state._replace(plan=jax.tree.map(jnp.asarray, plan))

    @jax.jit
    def learn(state: State, asked: Asked, measured: Measured, where: Array) -> State:
        fitness = jnp.where(jnp.isfinite(measured.fitness), measured.fitness, -jnp.inf)
        keep = _survivors if rules.ablation == "prompts" else add
        serials = state.asked + jnp.arange(1, batch + 1, dtype=jnp.int32)
        newcomers = Network(asked.genotypes, serials)
        networks, entered = keep(state.networks, newcomers, fitness, where)
        repeated = False if measured.failure is None else measured.failure == REPEATED
        built = (fitness > -jnp.inf) | repeated
        state = _rewarded(state, jnp.where(entered, ADDED, jnp.where(built, IDLE, BROKEN)))
        if rules.ablation == "networks":
            state = state._replace(prompts=_moved(state, entered, rules))
        else:
            state = _with_heirs(state, fitness, entered, built, rules)
        best = fitness.max()
        rest = rules.published | (best == -jnp.inf)  # where nothing was built, as it was
        rival = jnp.where(rest, jnp.maximum(best, state.rival), best)
        return state._replace(networks=networks, rival=rival, asked=state.asked + batch)

    def tell(state: State, asked: Asked, measured: Measured) -> State:
        where = placed(candidates.describe(asked, measured), candidates.axes)
        return learn(state, asked, measured._replace(extra=None), where)

    return Searcher(init, ask, tell)


def _refuse(batch: int, rules: Rules, axes: tuple[Axis, ...]) -> None:
    """Raises for what cannot be, before anything is asked."""
    if batch < 1:
        raise ValueError(f"`batch` must be at least 1, but got {batch}.")
    if rules.ablation not in ABLATIONS:
        raise ValueError(
            f"`ablation` must be one of {', '.join(ABLATIONS)}, but got {rules.ablation!r}."
        )
    if not 0 <= rules.mutation <= 1:
        raise ValueError(f"`mutation` must be from 0 to 1, but got {rules.mutation}.")
    placed(jnp.zeros((0, len(axes))), axes)


def prompt_axes(count: int) -> tuple[Axis, Axis]:
    """Axes of the prompt archive for so many instructions."""
    return Axis("instruction", 0, count), Axis("temperature", 0, 1)


def maps(state: State) -> dict[str, Float[Array, " K"]]:
    """Fitness in every cell of the archives, NaN in empty ones, for the `info` of a step."""
    both = {"archive_networks": state.networks, "archive_prompts": state.prompts}
    return {
        name: jnp.where(filled(archive), archive.fitness, jnp.nan) for name, archive in both.items()
    }


def _beginning(
    key: Key[Array, ""],
    candidates: Candidates,
    centroids: Float[Array, "K 2"],
    batch: int,
    rules: Rules,
) -> State:
    none, count = jnp.full(batch, NOBODY, jnp.int32), len(candidates.mutations)
    prompts = empty(Prompt(jnp.int32(0), jnp.float32(0), jnp.float32(0)), centroids)
    return State(
        empty(Network(jax.tree.map(jnp.asarray, candidates.seed), jnp.int32(0)), centroids),
        _random_prompts(key, prompts, count, rules) if rules.ablation == "networks" else prompts,
        jnp.zeros(count, jnp.float32),
        jnp.float32(-jnp.inf),
        jnp.int32(0),
        Plan(jnp.int32(FIRST), jnp.stack([none, none], 1), none, none, jnp.zeros(batch)),
    )


def _proposals(
    rng: np.random.Generator, candidates: Candidates, elites: Any, plan: Plan
) -> list[Proposal]:
    def genotype(cell: int) -> Any:
        if cell == NOBODY:
            return candidates.seed
        return jax.tree.map(lambda leaf: leaf[cell], elites.genotype)

    seeds = rng.integers(2**31 - 1, size=len(plan.prompt)).tolist()
    found = []
    for n, (one, other) in enumerate(np.asarray(plan.parents).tolist()):
        parents = [genotype(one), *([genotype(other)] if other != NOBODY else [])]
        instruction = _instruction(candidates, int(plan.operator), int(plan.prompt[n]))
        temperature = round(float(plan.temperature[n]), 6)
        found.append(candidates.write(instruction, parents, temperature, seeds[n]))
    return found


def _instruction(candidates: Candidates, operator: int, prompt: int) -> str:
    if operator == FRESH:
        return candidates.creation
    return candidates.crossover if operator == CROSSOVER else candidates.mutations[prompt]


def _with_heirs(
    state: State,
    fitness: Float[Array, " N"],
    entered: Bool[Array, " N"],
    built: Bool[Array, " N"],
    rules: Rules,
) -> State:
    """Instructions with the temperatures that their success gives them, put into their archive."""
    plan, rivals = state.plan, _rivals(state.rival, fitness, rules)
    mutated = (plan.prompt >= 0) & built
    won = mutated & (fitness > rivals)
    scores = state.scores.at[plan.prompt].add(won.astype(jnp.float32))
    worth = entered.astype(jnp.float32) if rules.published else scores[plan.prompt]
    rises = (fitness >= rivals) & (fitness > -jnp.inf)
    temperature = plan.temperature + jnp.where(rises, rules.step, -rules.step)
    temperature = jnp.clip(temperature, rules.coolest, rules.hottest)
    heirs = Prompt(plan.prompt, temperature, jnp.zeros_like(temperature))
    spot = placed(jnp.stack([plan.prompt, temperature], 1), prompt_axes(len(state.scores)))
    prompts, _ = add(state.prompts, heirs, jnp.where(mutated, worth, -jnp.inf), spot)
    return state._replace(prompts=prompts, scores=scores)


def _rivals(
    rival: Float[Array, ""], fitness: Float[Array, " N"], rules: Rules
) -> Float[Array, " N"]:
    """`[N]` what each is compared with: the generation before, or all that came before it."""
    if not rules.published:
        return jnp.full(fitness.shape, rival)
    return jax.lax.cummax(jnp.concatenate([rival[None], fitness]))[:-1]


def _rewarded(state: State, rewards: Float[Array, " N"]) -> State:
    """Curiosity of the instructions that were selected, after what was written by them."""
    prompts = state.prompts.genotypes
    cells = jnp.where(state.plan.elite >= 0, state.plan.elite, len(prompts.curiosity))
    curiosity = prompts.curiosity.at[cells].add(rewards, mode="drop")
    genotypes = prompts._replace(curiosity=curiosity)
    return state._replace(prompts=state.prompts._replace(genotypes=genotypes))


def _random_prompts(key: Key[Array, ""], prompts: Archive, count: int, rules: Rules) -> Archive:
    """A population of instructions with temperatures, for the ablation `networks`."""
    key_index, key_temperature = jax.random.split(key)
    cells = len(prompts.fitness)
    members = Prompt(
        jax.random.randint(key_index, (cells,), 0, count),
        jax.random.uniform(key_temperature, (cells,), minval=rules.coolest, maxval=rules.hottest),
        jnp.zeros(cells, jnp.float32),
    )
    return prompts._replace(genotypes=members, fitness=jnp.zeros(cells, jnp.float32))


def _moved(state: State, entered: Bool[Array, " N"], rules: Rules) -> Archive:
    """The population of instructions: warmer where they made elites, cooler elsewhere."""
    prompts, elite = state.prompts.genotypes, state.plan.elite
    cells = jnp.where(elite >= 0, elite, len(prompts.temperature))
    steps = jnp.where(entered, POPULATION_STEP, -POPULATION_STEP)
    moved = prompts.temperature.at[cells].add(steps, mode="drop")
    moved = jnp.clip(moved, rules.coolest, rules.hottest)
    members = prompts._replace(temperature=moved)
    return state.prompts._replace(genotypes=members, fitness=members.curiosity)


def _survivors(
    population: Archive, genotypes: PyTree, fitness: Float[Array, " N"], where: Float[Array, "N D"]
) -> tuple[Archive, Bool[Array, " N"]]:
    """A population of the best, wherever they lie, for the ablation `prompts`; like `archive.add`."""
    size = len(population.fitness)
    sound = jnp.isfinite(fitness) & jnp.isfinite(where).all(-1)
    pool = population._replace(
        genotypes=jax.tree.map(
            lambda old, new: jnp.concatenate([old, new]), population.genotypes, genotypes
        ),
        fitness=jnp.concatenate([population.fitness, jnp.where(sound, fitness, -jnp.inf)]),
        descriptors=jnp.concatenate([population.descriptors, jnp.nan_to_num(where)]),
    )
    best = jnp.argsort(-pool.fitness, stable=True)[:size]
    kept = jax.tree.map(lambda leaf: leaf[best], pool._replace(centroids=pool.fitness))
    entered = jnp.isin(size + jnp.arange(len(fitness)), best) & sound
    return kept._replace(centroids=population.centroids), entered
