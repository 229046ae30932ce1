"""The traversal of the super-tree, replayed from what it drew by a program of its own."""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import expressions as slow
from reference.alike import compare
from reference.super_tree import Level, ask, best, tell

from jaxnas.core import Measured, close, run_host
from jaxnas.formulas import optimizer_search as room
from jaxnas.formulas.filters import Screened
from jaxnas.formulas.optimizer_search import optimizer_search, traversal
from jaxnas.formulas.tape import END, to_text
from jaxnas.formulas.update_rules import space

pytestmark = pytest.mark.usefixtures("quick_compile")
GNN = space("gnn")
SAMPLES, LEVELS, ROUNDS = 8, 3, 3
KEY = jax.random.key(4)


def screen(tapes):
    """Fails about half; rules are known by a number out of 211."""
    tapes = np.asarray(tapes)
    prints = np.zeros((len(tapes), 25), np.float32)
    prints[:, 0] = (7 * tapes.sum(1) + 31 * (tapes != END).sum(1)) % 211
    good = jnp.asarray(tapes.sum(1) % 2 == 0)
    return Screened(good, jnp.ones(len(tapes)), jnp.asarray(prints))


def score(tape):
    """A number that favours some symbols and some sizes; a fifth of all rules is worth nothing."""
    tokens = [int(token) for token in tape if token != END]
    worth = np.sin(3.0 * tokens[0]) + 0.1 * len(tokens) + 0.01 * sum(tokens)
    return -np.inf if sum(tokens) % 5 == 0 else np.float32(worth)


class Scores(NamedTuple):
    """A problem that trains nothing."""

    worth: object = staticmethod(score)

    def sample(self, key, n):
        return jnp.tile(jnp.array([0, 17, 17, *[END] * 7], jnp.int32), (n, 1))

    def evaluate(self, key, asked):
        tapes = np.asarray(asked.genotypes)
        fitness = [-np.inf if tape[0] == END else self.worth(tape) for tape in tapes]
        fitness = jnp.asarray(fitness, jnp.float32)
        return Measured(fitness, jnp.isfinite(fitness).astype(jnp.float32))


def searcher(**more):
    settings = {"samples": SAMPLES, "levels": LEVELS, "rounds": ROUNDS} | more
    return optimizer_search(GNN, screen, **settings)


SEARCH = close(searcher(), Scores())
STEPS = LEVELS * ROUNDS


@pytest.fixture(scope="module")
def story():
    """Every state of one search, and every roll-out it counted, step by step."""
    drawn, take = [], room._take

    def told(host, first, child, tape, good, answer):
        drawn[-1].append((int(child), tape.copy(), bool(good), answer.copy()))
        return take(host, first, child, tape, good, answer)

    steps = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(room, "_take", told)
        drawn.append([])
        for step, state, info in run_host(SEARCH, KEY, STEPS):
            steps.append((step, jax.device_get(state), jax.device_get(info)))
            drawn.append([])
    return steps, drawn[:STEPS]


def test_each_level_goes_to_the_child_of_the_best_mean_over_its_roll_outs(story):
    steps, drawn = story
    pool, level, way = {}, Level(("_",)), []
    for rolls, (_, state, info) in zip(drawn, steps, strict=True):
        asked = info["asked"].genotypes
        fresh, waiting = ask(GNN.symbols, level, pool, rolls)
        room_left = 0 if len(way) == LEVELS else SAMPLES - level.trained
        assert len(fresh) <= room_left
        np.testing.assert_array_equal(asked[: len(fresh)], np.reshape([*fresh.values()], (-1, 10)))
        assert (asked[len(fresh) :] == END).all()
        tell(level, pool, fresh, waiting, score)
        if len(way) < LEVELS:
            totals = [level.totals.get(c, 0) for c in range(10 * len(GNN.symbols))]
            counts = [level.counts.get(c, 0) for c in range(10 * len(GNN.symbols))]
            np.testing.assert_allclose(state.searcher.totals[len(way)], totals, rtol=1e-4)
            assert state.searcher.counts[len(way)].tolist() == counts
            if level.trained >= SAMPLES or level.rounds == ROUNDS:
                way.append(level.node)
                level = Level(best(GNN.symbols, level))
    way.append(level.node)
    nodes = steps[-1][1].searcher.nodes
    assert [slow.decoded(GNN.symbols, tape) for tape in nodes] == way
    told = traversal(GNN, steps[-1][1].searcher)
    assert [one["node"] for one in told] == [to_text(GNN, tape) for tape in nodes[:LEVELS]]


def test_roll_outs_are_counted_as_drawn_failed_and_known(story):
    steps, drawn = story
    rolls = list(itertools.chain(*drawn))
    failed = sum(not good for _, _, good, _ in rolls)
    distinct = len({answer.tobytes() for _, _, good, answer in rolls if good})
    state = steps[-1][1].searcher
    assert state.drawn.tolist() == [len(rolls), failed, len(rolls) - failed - distinct]
    assert state.known == distinct
    assert min(failed, len(rolls) - failed - distinct) >= 3


def test_no_rule_is_asked_for_twice_and_rejected_ones_are_replaced(story):
    steps, _ = story
    asked = np.concatenate([info["asked"].genotypes for *_, info in steps])
    asked = asked[asked[:, 0] != END]
    prints = np.asarray(screen(asked).prints)
    assert len(np.unique(prints, axis=0)) == len(asked)
    worth = np.isfinite([score(tape) for tape in asked])
    assert not worth.all()
    assert worth.sum() == steps[-1][1].cost == SAMPLES * LEVELS


def test_32_rules_are_trained_on_each_of_four_levels_and_nothing_after():
    worth = close(searcher(samples=32, levels=4), Scores(lambda tape: np.float32(tape[:3].sum())))
    costs = [int(state.cost) for _, state, _ in run_host(worth, KEY, 6)]
    assert costs == [32, 64, 96, 128, 128, 128]


def test_a_level_goes_on_with_fewer_when_its_rounds_are_over():
    # Without a score there is nothing to go by, and the search looks again from where it is.
    nothing = close(searcher(rounds=2, levels=2), Scores(lambda tape: -np.inf))
    states = [jax.device_get(state) for _, state, _ in run_host(nothing, KEY, 5)]
    assert [int(state.searcher.level) for state in states] == [0, 1, 1, 2, 2]
    assert states[-1].cost == 0
    assert states[-1].searcher.known == 32
    assert (states[-1].searcher.nodes == states[-1].searcher.nodes[0]).all()
    told = traversal(GNN, states[-1].searcher)
    assert [one["children"] for one in told] == [[], []]


def test_a_level_goes_on_with_fewer_when_its_roll_outs_are_spent():
    few = close(searcher(samples=64, levels=1, attempts=40, rounds=5), Scores())
    *_, (_, state, info) = run_host(few, KEY, 1)
    assert state.searcher.drawn[0] == 40
    assert state.searcher.level == 1
    assert 0 < np.isfinite(np.asarray(info["measured"].fitness)).sum() < 64


def test_a_search_is_a_function_of_its_key(story):
    for (_, ours, _), (_, theirs, _) in zip(run_host(SEARCH, KEY, 3), story[0], strict=False):
        compare(ours, theirs, 0)
    *_, (_, other, _) = run_host(SEARCH, jax.random.key(5), 3)
    assert (np.asarray(other.searcher.tapes) != story[0][2][1].searcher.tapes).any()


@pytest.mark.parametrize("step", [1, 4])
def test_a_search_resumes_bit_for_bit_from_stored_arrays(story, step):
    state = jax.tree.map(jnp.asarray, story[0][step - 1][1])
    resumed = run_host(SEARCH, KEY, STEPS, state, step)
    for (i, ours, info), (j, theirs, told) in zip(resumed, story[0][step:], strict=True):
        assert i == j
        compare(ours, theirs, 0)
        compare(info, told, 0)


def test_states_keep_their_shapes_and_types_and_are_not_written_to(story):
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), jax.eval_shape(SEARCH.init, KEY))
    state = SEARCH.init(KEY)
    before = jax.device_get(state)
    after, _ = SEARCH.step(KEY, state)
    compare(state, before, 0)
    for one in (after, story[0][-1][1]):
        assert jax.tree.map(lambda x: (x.shape, x.dtype), one) == shapes


@pytest.mark.parametrize("name", ["samples", "levels", "rounds", "attempts"])
def test_numbers_that_are_not_positive_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}`.* must be at least 1, but got"):
        searcher(**{name: 0})
