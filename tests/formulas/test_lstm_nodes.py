"""Evolution of nodes: what is asked for is new, valid, and repeats bit for bit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.alike import compare

from jaxnas.core import Asked, Measured, close, run_host
from jaxnas.formulas.lstm_nodes import canonical, lstm_nodes, random_node, remember
from jaxnas.formulas.node_judge import NodeJudge, lowest
from jaxnas.formulas.recurrent import baseline, node, nodes, sees_input
from jaxnas.formulas.sequence_nets import Size, train
from jaxnas.formulas.sequence_tasks import find
from jaxnas.formulas.tape import END, depth, nested, parse, size, to_text

GRAMMAR = nodes(24)
KEY = jax.random.key(7)
LSTM, GRU = (baseline(GRAMMAR, name) for name in ("LSTM", "GRU"))
pytestmark = pytest.mark.usefixtures("quick_compile")


class Counting:
    """A problem without training: more `tanh` is better, a node with `relu` has no fitness."""

    def sample(self, key, n):
        del key
        return jnp.asarray(np.stack([LSTM] * n))

    def evaluate(self, key, asked):
        del key
        tapes = np.asarray(asked.genotypes)
        good = (tapes == GRAMMAR.token("tanh")).sum(1)
        fitness = np.where((tapes == GRAMMAR.token("relu")).any(1), -np.inf, good)
        return Measured(jnp.asarray(fitness, jnp.float32), jnp.ones(len(tapes)))


def search(**settings):
    settings = {
        "population": 12,
        "generations": 6,
        "species": 4,
        "founders": [LSTM, GRU],
    } | settings
    return close(lstm_nodes(GRAMMAR, **settings), Counting())


def asked_in(steps):
    return [np.asarray(info["asked"].genotypes) for *_, info in steps]


def test_every_structure_is_asked_for_once_and_sees_the_input():
    asked = np.concatenate(asked_in(run_host(search(), KEY, 6)))
    forms = {canonical(GRAMMAR, tape).tobytes() for tape in asked}
    assert len(forms) == len(asked) == 72
    for tape in asked:
        assert depth(nested(GRAMMAR, tape)) <= 15
        assert sees_input(GRAMMAR, tape)


def test_generation_zero_holds_the_founders():
    first = asked_in(run_host(search(), KEY, 1))[0]
    np.testing.assert_array_equal(first[:2], [LSTM, GRU])


def test_evolution_finds_more_than_random_nodes():
    *_, (_, state, _) = run_host(search(population=20, generations=15), KEY, 15)
    evolved, rng = state.fitness, np.random.default_rng(0)
    tanh = [(random_node(rng, GRAMMAR) == GRAMMAR.token("tanh")).sum() for _ in range(300)]
    assert float(evolved) > max(tanh)


def test_a_search_resumes_bit_for_bit_and_other_keys_give_others():
    trail = list(run_host(search(), KEY, 4))
    _, state, _ = trail[1]
    for (_, again, info), (_, wanted, told) in zip(
        run_host(search(), KEY, 4, state, 2), trail[2:], strict=True
    ):
        compare(again, wanted, 0)
        compare(info, told, 0)
    other = asked_in(run_host(search(), jax.random.key(8), 1))[0]
    assert (other != asked_in(trail)[0]).any()


def test_the_state_keeps_its_shapes_and_types():
    searcher = lstm_nodes(GRAMMAR, population=4, generations=2, species=2)
    state = searcher.init(KEY)
    kinds = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    for step in range(3):  # a generation more than there is room for
        asked, state = searcher.ask(jax.random.fold_in(KEY, step), state)
        state = searcher.tell(state, asked, Counting().evaluate(KEY, asked))
        assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == kinds


def test_a_generation_in_which_nothing_has_a_fitness_is_followed_by_new_nodes():
    searcher = lstm_nodes(GRAMMAR, population=4, generations=3, species=2)
    asked, state = searcher.ask(KEY, searcher.init(KEY))
    state = searcher.tell(state, asked, Measured(jnp.full(4, -jnp.inf), jnp.ones(4)))
    again, _ = searcher.ask(jax.random.key(1), state)
    assert (np.asarray(again.genotypes)[:, 0] != END).all()


def test_champions_outlive_their_generation():
    *_, (_, state, _) = run_host(search(), KEY, 5)
    fitness = np.asarray(state.searcher.fitness)
    assert fitness.max() == float(state.fitness)


SAME = [
    ("tanh(xh) * sigmoid(x)", "sigmoid(x) * tanh(xh)"),
    ("tanh(keep2(xh + c2))", "tanh(keep0(xh + c0))"),
    ("tanh(keep1(xh))", "tanh(xh)"),
    ("x + c1", "x + c2"),
    ("keep0(x) + keep0(hh) + c0", "keep0(x) + hh + c0"),
]
OTHERS = [
    ("tanh(xh) - sigmoid(x)", "sigmoid(x) - tanh(xh)"),
    ("keep0(x + c0)", "keep0(x) + c0"),
    ("blend(x, h, hh)", "blend(x, hh, h)"),
    ("keep0(x) + keep1(hh) + c0 + c1", "keep0(x) + keep1(hh) + c0 + c0"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_one_structure_has_one_canonical_form(one, other):
    forms = [canonical(GRAMMAR, parse(GRAMMAR, text)) for text in (one, other)]
    np.testing.assert_array_equal(*forms)


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_different_structures_have_different_forms(one, other):
    forms = [canonical(GRAMMAR, parse(GRAMMAR, text)).tolist() for text in (one, other)]
    assert forms[0] != forms[1]


def test_a_canonical_form_does_what_the_node_does():
    """All gates alike, so that their order does not matter."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        tape = random_node(rng, GRAMMAR)
        runs = [_run(one) for one in (tape, canonical(GRAMMAR, tape))]
        np.testing.assert_allclose(*runs, rtol=1e-5, atol=1e-6)


def _run(tape):
    cell, h, c, out = node(GRAMMAR, tape), np.zeros(2), np.zeros((3, 2)), []
    for t in range(3):
        n = len(cell.gates)
        x, u, b = (
            [jnp.asarray(v, jnp.float32)] * n for v in ([0.3 * t, -0.2], 0.7 * h, [0.1, 0.2])
        )
        h, c = cell.step(x, u, b, jnp.asarray(h, jnp.float32), jnp.asarray(c, jnp.float32))
        out.append(h)
    return np.stack(out)


def test_remembering_moves_a_memory_or_adds_a_writer_and_a_reader():
    rng, plain = np.random.default_rng(0), parse(GRAMMAR, "tanh(xh) * sigmoid(x)")
    for _ in range(20):
        text = to_text(GRAMMAR, remember(rng, GRAMMAR, plain))
        assert any(f"keep{k}" in text for k in range(3))
        assert any(f"c{k}" in text for k in range(3))
    moved = [to_text(GRAMMAR, remember(rng, GRAMMAR, LSTM)) for _ in range(60)]
    assert to_text(GRAMMAR, LSTM).replace("c0", "c1") in moved


TASK = find("toy", streams=4, segment=10, words=12, tokens=400)
SIZE = Size(hidden=5, epochs=2, learning_rate=1e-2)


@pytest.fixture(scope="module")
def judged():
    tapes = [LSTM, parse(GRAMMAR, "tanh(hh)"), np.full_like(LSTM, END), GRU,
             parse(GRAMMAR, "keep0(x + c0 + c0 + c0)")]  # fmt: skip
    judge = NodeJudge(TASK, GRAMMAR, SIZE, seeds=2, group=2, budget=600, test=True)
    return judge.evaluate(KEY, Asked(jnp.asarray(np.stack(tapes)), jnp.array([-1, -1, -1, 2, -1])))


def test_a_judge_says_why_a_node_has_no_fitness(judged):
    assert judged.failure.tolist() == [0, 1, 3, 0, 2]
    assert jnp.isfinite(judged.fitness).tolist() == [True, False, False, True, False]


def test_a_judge_charges_what_was_trained(judged):
    assert judged.cost.tolist() == [4, 0, 0, 2, 4]
    told = judged.extra
    assert np.isfinite(told.curve[3, :, 0]).all()
    assert np.isnan(told.curve[3, :, 1]).all()


def test_a_judge_gives_equal_parameters_and_the_loss_of_training_alone(judged):
    told = judged.extra
    assert told.hidden[0] < told.hidden[3]
    assert abs(told.parameters[[0, 3]] - 600).max() < 60
    size = SIZE._replace(hidden=int(told.hidden[0]))
    alone = train(TASK, GRAMMAR, LSTM[None], size, jax.random.split(KEY, 2))
    assert float(judged.fitness[0]) == pytest.approx(-float(alone.curve.min(2).mean()), rel=1e-5)
    np.testing.assert_allclose(told.test[0], alone.test[0], rtol=1e-5)


def test_the_lowest_loss_is_found_within_the_epochs_and_nan_goes_through():
    curve = np.array([[[3.0, 1.0, 2.0]], [[3.0, 2.0, 1.0]], [[3.0, np.nan, 1.0]]], np.float32)
    found = partial(lowest, curve)
    np.testing.assert_array_equal(found(np.array([3, 2, 3]))[:, 0], [1, 2, np.nan])
    np.testing.assert_array_equal(found(np.array([1, 1, 1]))[:, 0], [3, 3, 3])


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="must be at least 1 and `founders` fit"):
        lstm_nodes(GRAMMAR, population=1, founders=[LSTM, GRU])
    assert size(LSTM) == 15
