"""LLMatic against dicts in plain Python that are told the same plans."""

from functools import lru_cache
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.llmatic import Book

from jaxnas.core import Asked, Measured, close, run_host
from jaxnas.evolve.archive import Axis, grid, placed
from jaxnas.programs.llmatic import (
    ADDED,
    BROKEN,
    IDLE,
    LEGACY,
    PAPER,
    REPEATED,
    Candidates,
    llmatic,
    maps,
)
from jaxnas.programs.llmatic_plan import ABLATIONS, CROSSOVER, FIRST, FRESH, MUTATION
from jaxnas.programs.proposal import Proposal
from jaxnas.programs.sandbox.verdict import FAILURES

pytestmark = pytest.mark.usefixtures("quick_compile")
N = 10
CENTROIDS = grid(5, 5)
AXES = (Axis("first", 0, 10), Axis("second", -1, 1))
SEED = np.zeros(3, np.float32)


def toy():
    """Candidates are three numbers: two descriptors in their units, and a fitness."""
    return Candidates(
        seed=SEED,
        mutations=("one", "two", "three", "four"),
        crossover="cross",
        creation="create",
        axes=AXES,
        write=lambda words, parents, heat, seed: Proposal(
            [{"role": "user", "content": words}], [str(p.tolist()) for p in parents], heat, seed
        ),
        read=lambda reply: np.array([float(word) for word in reply.split()], np.float32),
        describe=lambda asked, measured: asked.genotypes[:, :2],
    )


class Scripted:
    """A proposer of random numbers, and of a few that cannot be built; it keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def __call__(self, proposals):
        self.asked.append(proposals)
        return [self.reply(proposal.seed) for proposal in proposals]

    @staticmethod
    def reply(seed):
        rng = np.random.default_rng(seed)
        first, second, fitness = rng.uniform(0, 10), rng.uniform(-1, 1), rng.integers(0, 30)
        return f"{first} {second} {'nan' if rng.random() < 0.15 else float(fitness)}"


class Toy:
    """Fitness is the third number; of those above 24 it is said that they are repetitions."""

    def sample(self, key, n):
        return jnp.zeros((n, 3))

    def evaluate(self, key, asked):
        fitness = asked.genotypes[:, 2]
        again, broken = fitness > 24, jnp.isnan(fitness)
        reason = jnp.where(again, REPEATED, jnp.where(broken, 1 + FAILURES.index("shape"), 0))
        fitness = jnp.where(reason > 0, -jnp.inf, fitness)
        return Measured(fitness, jnp.ones(len(fitness)), None, reason.astype(jnp.int32))


def search(rules, propose=None, batch=N):
    searcher = llmatic(toy(), propose or Scripted(), centroids=CENTROIDS, batch=batch, rules=rules)
    return close(searcher, Toy())


def steps(rules, count=12, key=3, propose=None):
    return [
        jax.device_get((state.searcher, info))
        for _, state, info in run_host(search(rules, propose), jax.random.key(key), count)
    ]


def full(archive):
    """Cells with an elite."""
    return np.flatnonzero(np.asarray(archive.fitness) > -np.inf)


def told(state, info):
    """Plan and candidates of a step as the reference takes them."""
    plan, asked, measured = state.plan, info["asked"], info["measured"]
    where = placed(jnp.asarray(asked.genotypes[:, :2]), AXES)
    return (
        list(
            zip(plan.prompt.tolist(), plan.elite.tolist(), plan.temperature.tolist(), strict=True)
        ),
        [
            (fitness, failure == REPEATED, spot)
            for fitness, failure, spot in zip(
                measured.fitness.tolist(), measured.failure.tolist(), where.tolist(), strict=True
            )
        ],
    )


@pytest.mark.parametrize(
    "rules",
    [PAPER, LEGACY, *(PAPER._replace(ablation=name) for name in ("networks", "prompts"))],
    ids=["paper", "published code", "networks", "prompts"],
)
def test_archives_curiosity_and_temperatures_are_those_of_plain_dicts(rules):
    initial = search(rules).init(jax.random.fold_in(jax.random.key(3), 0)).searcher
    settings = {"published": rules.published}
    if rules.ablation == "networks":
        members = initial.prompts.genotypes
        rows = zip(members.index.tolist(), members.temperature.tolist(), strict=True)
        settings["population"] = dict(enumerate(rows))
    if rules.ablation == "prompts":
        settings["best"] = 25
    book, operators = Book(CENTROIDS.tolist(), 4, **settings), set()
    for state, info in steps(rules):
        book.learn(*told(state, info))
        operators.add(int(state.plan.operator))
        check_networks(state, book)
        check_prompts(state, book)
        assert float(state.rival) == book.rival
        assert int(state.asked) == book.asked
        if rules.ablation != "networks":
            assert state.scores.tolist() == book.scores
    assert operators == {FIRST, MUTATION, CROSSOVER}
    assert book.rewards == {ADDED, IDLE, BROKEN}


def check_networks(state, book):
    held, archive = {}, state.networks
    for at in full(archive):
        held[int(at)] = (int(archive.genotypes.serial[at]), float(archive.fitness[at]))
    if book.best is not None:
        assert list(held.values()) == book.members
    else:
        assert held == {at: elite[:2] for at, elite in book.networks.cells.items()}


def check_prompts(state, book):
    archive = state.prompts
    own = archive.genotypes
    cells = full(archive).tolist()
    if book.population is not None:
        wanted = book.population
        assert cells == list(range(25))
    else:
        wanted = {at: elite[0] for at, elite in book.prompts.cells.items()}
        worth = {at: elite[1] for at, elite in book.prompts.cells.items()}
        assert {at: float(archive.fitness[at]) for at in cells} == worth
    assert {at: int(own.index[at]) for at in cells} == {at: w[0] for at, w in wanted.items()}
    for at in cells:
        assert float(own.temperature[at]) == pytest.approx(wanted[at][1], abs=1e-5)
        assert float(own.curiosity[at]) == book.curiosity[at]


def test_the_constants_are_those_of_the_paper_and_of_the_published_code():
    assert (PAPER.mutation, LEGACY.mutation) == (0.7, 0.85)
    assert (PAPER.temperature, PAPER.jitter, PAPER.step) == (0.6, 0.1, 0.05)
    assert (PAPER.coolest, PAPER.hottest, PAPER.crossover_temperature) == (0.1, 1.0, 0.7)
    assert (LEGACY.init_networks, LEGACY.init_prompts) == (10, 20)
    assert (ADDED, IDLE, BROKEN) == (1.0, -0.5, -1.0)


def plans(state, rules, count, batch=N):
    """Many plans from one state, with the proposals they led to."""
    propose = Scripted()
    searcher = llmatic(toy(), propose, centroids=CENTROIDS, batch=batch, rules=rules)
    keys = [jax.random.key(n) for n in range(count)]
    made = [searcher.ask(key, state)[1].plan for key in keys]
    return [jax.tree.map(np.asarray, plan) for plan in made], propose.asked


@lru_cache
def late(rules=PAPER):
    return steps(rules)[-1][0]


def test_generations_mutate_in_seven_of_ten_cases_and_cross_in_the_others():
    made, _ = plans(late(), PAPER, 60)
    share = np.mean([plan.operator == MUTATION for plan in made])
    assert abs(share - 0.7) < 4 * (0.7 * 0.3 / 60) ** 0.5
    assert {int(plan.operator) for plan in made} == {MUTATION, CROSSOVER}


def test_a_mutation_takes_any_elite_and_for_the_first_half_the_most_curious_instruction():
    state, rules = late(), PAPER._replace(ablation="mutation")
    made, asked = plans(state, rules, 30)
    own, there = state.prompts.genotypes, full(state.prompts)
    most = np.asarray(own.curiosity)[there].max()
    for plan, proposals in zip(made, asked, strict=True):
        assert (own.curiosity[plan.elite[: N // 2]] == most).all()
        np.testing.assert_array_equal(plan.prompt, own.index[plan.elite])
        before = np.asarray(own.temperature)[plan.elite]
        np.testing.assert_array_equal(plan.temperature[::2], before[::2])
        moved = plan.temperature[1::2] - before[1::2]
        assert np.any(moved != 0)
        assert np.abs(moved).max() <= 0.1 + 1e-6
        assert [p.messages[0]["content"] for p in proposals] == [
            toy().mutations[i] for i in plan.prompt
        ]
        np.testing.assert_allclose([p.temperature for p in proposals], plan.temperature, atol=1e-6)
    random_half = {int(cell) for plan in made for cell in plan.elite[N // 2 :]}
    parents = {int(cell) for plan in made for cell in plan.parents[:, 0]}
    assert random_half == set(there.tolist())
    assert parents == set(full(state.networks).tolist())


def test_a_crossover_takes_an_elite_and_one_of_the_three_nearest():
    state, rules = late(), PAPER._replace(ablation="crossover")
    made, asked = plans(state, rules, 30)
    where, there = np.asarray(state.networks.descriptors), full(state.networks)
    seen = set()
    for plan, proposals in zip(made, asked, strict=True):
        assert set(plan.temperature.tolist()) == {np.float32(0.7)}
        assert set(plan.prompt.tolist()) == {-1}
        assert {p.messages[0]["content"] for p in proposals} == {"cross"}
        for one, other in plan.parents:
            apart = {int(c): np.linalg.norm(where[one] - where[c]) for c in there if c != one}
            rank = sorted(apart, key=apart.get).index(int(other))
            seen.add(rank)
            assert rank < 3
    assert seen == {0, 1, 2}


def test_the_published_code_takes_parents_by_rank_and_temperatures_that_walk():
    state, rules = late(LEGACY), LEGACY._replace(ablation="mutation")
    made, _ = plans(state, rules, 30)
    best = np.argsort(-np.asarray(state.networks.fitness), kind="stable")[:3].tolist()
    for plan in made:
        assert len(set(plan.parents[:, 0].tolist())) == len(set(plan.elite.tolist())) == 1
        base = float(state.prompts.genotypes.temperature[plan.elite[0]])
        assert plan.temperature[1] == pytest.approx(base)
        walk = np.diff(np.concatenate([[base], plan.temperature]))
        assert np.abs(np.delete(walk, 1)).max() <= 0.1 + 1e-6
        assert ((plan.temperature >= 0.1) & (plan.temperature <= 1.0)).all()
    assert {int(plan.parents[0, 0]) for plan in made} == set(best)
    crossed, _ = plans(state, LEGACY._replace(ablation="crossover"), 5)
    assert {int(cell) for plan in crossed for cell in plan.parents[:, 0]} == {best[0]}
    assert all((plan.parents[:, 1] != best[0]).all() for plan in crossed)


def test_every_ablation_is_a_setting_of_the_same_search():
    allowed = {"none": {FIRST, MUTATION, CROSSOVER}, "networks": {FIRST, MUTATION, CROSSOVER}}
    allowed |= {"prompts": allowed["none"], "mutation": {FIRST, MUTATION}}
    allowed |= {"crossover": {FIRST, CROSSOVER}, "random": {FRESH}}
    assert set(allowed) == set(ABLATIONS)
    for name, operators in allowed.items():
        propose = Scripted()
        trail = steps(PAPER._replace(ablation=name), propose=propose)
        assert {int(state.plan.operator) for state, _ in trail} == operators, name
        if name == "random":
            everything = [p for proposals in propose.asked for p in proposals]
            assert {p.messages[0]["content"] for p in everything} == {"create"}
            assert {tuple(p.parents) for p in everything} == {(str(SEED.tolist()),)}
            assert not full(trail[-1][0].prompts).size


def test_the_first_phase_asks_from_the_seed_and_ends():
    propose, trail = Scripted(), []
    trail = steps(
        PAPER._replace(init_networks=99, init_prompts=99, init_generations=4), 6, 3, propose
    )
    operators = [int(state.plan.operator) for state, _ in trail]
    assert operators[:4] == [FIRST] * 4
    assert FIRST not in operators[4:]
    for (_, info), proposals in zip(trail[:4], propose.asked, strict=False):
        assert {tuple(p.parents) for p in proposals} == {(str(SEED.tolist()),)}
        assert {p.temperature for p in proposals} == {0.6}
        assert not info["asked"].parents.any()
    assert all((info["asked"].budget == -1).all() for _, info in trail)
    for (before, _), (after, _) in pairwise(steps(PAPER)):
        early = max(full(before.networks).size, full(before.prompts).size) < 10
        assert (int(after.plan.operator) == FIRST) == early


def test_serial_numbers_of_parents_lead_to_the_sources_that_were_shown():
    propose = Scripted()
    trail = steps(PAPER, propose=propose)
    everyone = np.concatenate([info["asked"].genotypes for _, info in trail])
    checked = 0
    for (_, info), proposals in zip(trail, propose.asked, strict=True):
        for serials, proposal in zip(info["asked"].parents, proposals, strict=True):
            named = [str(everyone[serial - 1].tolist()) for serial in serials.tolist() if serial]
            if named:
                assert list(proposal.parents) == named
                checked += len(named)
    assert checked > 50


def test_a_resumed_search_goes_on_bit_for_bit():
    key, whole = jax.random.key(3), search(PAPER)
    trail = list(run_host(whole, key, 8))
    stored = jax.tree.map(np.asarray, trail[3][1])
    again = run_host(search(PAPER), key, 8, jax.tree.map(jnp.asarray, stored), 4)
    for (i, state, info), (j, wanted, other) in zip(again, trail[4:], strict=True):
        assert i == j
        jax.tree.map(np.testing.assert_array_equal, state, wanted)
        jax.tree.map(np.testing.assert_array_equal, info, other)


def test_a_search_in_which_nothing_can_be_built_goes_on_from_the_seed():
    propose = Scripted()
    propose.reply = lambda seed: "0 0 nan"
    trail = steps(PAPER._replace(init_generations=1), 4, 3, propose)
    state = trail[-1][0]
    assert not full(state.networks).size
    assert not full(state.prompts).size
    assert int(state.plan.operator) == MUTATION
    assert {tuple(p.parents) for p in propose.asked[-1]} == {(str(SEED.tolist()),)}


def test_maps_hold_fitness_where_there_is_an_elite_and_nan_elsewhere():
    state = late()
    drawn = maps(jax.tree.map(jnp.asarray, state))
    np.testing.assert_array_equal(
        np.flatnonzero(~np.isnan(drawn["archive_networks"])), full(state.networks)
    )
    assert np.nanmax(drawn["archive_networks"]) == float(state.networks.fitness.max())
    assert drawn["archive_prompts"].shape == (25,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": 0}, "`batch` must be at least 1, but got 0"),
        ({"rules": PAPER._replace(ablation="none at all")}, "`ablation` must be one of none, net"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        llmatic(toy(), Scripted(), centroids=CENTROIDS, **settings)


def test_what_is_said_of_a_batch_may_leave_out_reasons():
    searcher = llmatic(toy(), Scripted(), centroids=CENTROIDS, batch=2)
    state = searcher.init(jax.random.key(0))
    asked, state = searcher.ask(jax.random.key(1), state)
    fitness = jnp.array([1.0, jnp.nan])
    state = searcher.tell(state, asked, Measured(fitness, jnp.ones(2)))
    assert isinstance(asked, Asked)
    assert full(state.networks).size == 1
