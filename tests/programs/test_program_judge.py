"""Sources as a problem: each program trained once, each failure with its reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.judging import Desk, source

from jaxnas.core import Asked, Problem, Searcher
from jaxnas.programs.distinct import distinct
from jaxnas.programs.edits import edited
from jaxnas.programs.judge import REASONS, Judge, Score
from jaxnas.programs.page import pages, texts
from jaxnas.programs.seeds import MNIST1D

KEY = jax.random.key(0)
SEEDS = list(MNIST1D.values())


def asked(sources, budget=-1):
    return Asked(jnp.asarray(pages(sources)), jnp.full(len(sources), budget, jnp.int32))


def reasons(measured):
    return [REASONS[code] for code in measured.failure.tolist()]


@pytest.fixture
def desk():
    return Desk()


@pytest.fixture
def judge(desk):
    return Judge(desk.check, desk.train, steps=100, seeds=SEEDS)


def test_a_judge_is_a_problem_whose_samples_are_edited_seeds(judge):
    assert isinstance(judge, Problem)
    numbers = np.asarray(jax.random.randint(KEY, (5,), 0, 2**31 - 1)).tolist()
    wanted = [edited(SEEDS[n % 4], n, most=3) for n in numbers]
    assert texts(judge.sample(KEY, 5)) == wanted


def test_fitness_size_and_the_rest_come_back_in_the_order_asked(judge):
    told = judge.evaluate(KEY, asked([source(300, 80.0, "a"), source(200, 60.0, "b")]))
    assert told.fitness.tolist() == [80.0, 60.0]
    assert told.cost.tolist() == [100, 100]
    assert told.failure.tolist() == [0, 0]
    assert told.extra["params"].tolist() == [300, 200]
    assert told.extra["test"].tolist() == [79.0, 59.0]
    assert told.extra["depth"].tolist() == [3, 3]
    assert told.extra["width"].tolist() == [7, 7]
    assert told.extra["flops"].tolist() == [1e3, 1e3]
    assert told.extra["curve"].tolist() == [[2, 1], [2, 1]]


def test_every_failure_has_its_reason_and_the_words_to_mend_it(judge, desk):
    words = [word for word in REASONS[1:] if word not in ("non-finite", "duplicate", "low")]
    told = judge.evaluate(KEY, asked([*(f"# fails {w}" for w in words), source(1, "nan", "n")]))
    assert reasons(told) == [*words, "non-finite"]
    assert np.isneginf(told.fitness).all()
    assert told.cost.tolist() == [0] * len(words) + [50]
    said = [bytes(row).rstrip(b"\0").decode() for row in np.asarray(told.extra["message"])]
    assert said == [*(f"mend {w}" for w in words), ""]
    assert not np.asarray(told.extra["identity"])[:-1].any()
    assert desk.trained == [(["n"], 100)]


def test_equal_programs_are_trained_once_and_cost_what_they_cost(judge, desk):
    same = [source(300, 80.0, "a"), source(300, 80.0, "a", " # the same"), source(1, 50.0, "b")]
    told = judge.evaluate(KEY, asked(same))
    assert told.fitness.tolist() == [80, 80, 50]
    assert told.cost.tolist() == [100, 100, 100]
    assert desk.trained == [(["a", "b"], 100)]


def test_what_has_been_met_is_a_duplicate_and_not_trained(judge, desk):
    a, b, c = (source(100, 50.0 + i, name) for i, name in enumerate("abc"))
    first = judge.evaluate(KEY, asked([a, "# fails shape"]))
    met = np.asarray(first.extra["identity"])
    told = judge.evaluate(KEY, asked([b, a, "# fails shape", b + "#", c, ""]), met)
    assert reasons(told) == ["", "duplicate", "shape", "duplicate", "", "parse"]
    assert told.fitness.tolist() == [51, -np.inf, -np.inf, -np.inf, 52, -np.inf]
    assert told.cost.tolist() == [100, 0, 0, 0, 100, 0]
    assert told.extra["params"].tolist() == [100, 100, 0, 100, 100, 0]
    assert desk.trained == [(["a"], 100), (["b", "c"], 100)]


def test_a_budget_is_the_steps_that_are_trained(judge, desk):
    sources = [source(1, 10.0 + i, f"n{i}") for i in range(4)]
    told = judge.evaluate(KEY, asked(sources)._replace(budget=jnp.asarray([7, -1, 7, 500])))
    assert told.cost.tolist() == [7, 100, 7, 100]
    assert told.fitness.tolist() == [10, 11, 12, 13]
    assert desk.trained == [(["n0", "n2"], 7), (["n1", "n3"], 100)]
    judge.evaluate(KEY, asked(sources[:1]))
    assert desk.trained[2:] == [(["n0"], 100)]


def test_a_training_that_did_not_end_has_no_curve_and_spoils_none(desk):
    def train(programs, steps):
        late = Score(np.nan, np.nan, 0, "time", message="it took too long")
        return [desk.train(programs[:1], steps)[0], late]

    judge = Judge(desk.check, train, steps=100, seeds=SEEDS)
    told = judge.evaluate(KEY, asked([source(1, 10.0, "a"), source(1, 11.0, "b")]))
    assert reasons(told) == ["", "time"]
    assert told.fitness.tolist() == [10, -np.inf]
    assert np.array_equal(told.extra["curve"], [[2, 1], [np.nan, np.nan]], equal_nan=True)


def test_an_empty_page_is_no_candidate(judge, desk):
    told = judge.evaluate(KEY, asked(["", source(1, 10.0, "a"), ""]))
    assert told.fitness.tolist() == [-np.inf, 10, -np.inf]
    assert desk.checked == [[source(1, 10.0, "a")]]
    assert judge.evaluate(KEY, asked(["", ""])).cost.tolist() == [0, 0]


def test_there_must_be_a_step_to_train(desk):
    with pytest.raises(ValueError, match="`steps` must be at least 1, but got 0"):
        Judge(desk.check, desk.train, steps=0, seeds=SEEDS)


def listed(batches):
    """A searcher that asks for these batches."""

    def ask(key, state):
        return asked(batches[int(state)]), state + 1

    return Searcher(lambda key: jnp.int32(0), ask, lambda state, asked, measured: state)


def test_a_search_gives_a_program_fitness_once(judge, desk):
    a, b, c = (source(100, 50.0 + i, name) for i, name in enumerate("abc"))
    searcher = listed([[a, "# fails shape", a + "#"], [b, a, "# fails shape"], [c, b, c]])
    search = distinct(searcher, judge, most=9)
    state, infos = search.init(KEY), []
    for step in range(3):
        state, info = search.step(jax.random.fold_in(KEY, step), state)
        infos.append(info)
    assert [reasons(info["measured"]) for info in infos] == [
        ["", "shape", "duplicate"],
        ["", "duplicate", "shape"],
        ["", "duplicate", "duplicate"],
    ]
    nothing = -np.inf
    assert [i["measured"].fitness.tolist() for i in infos] == [
        [50, nothing, nothing],
        [51, nothing, nothing],
        [52, nothing, nothing],
    ]
    assert desk.trained == [(["a"], 100), (["b"], 100), (["c"], 100)]
    assert float(state.closed.cost) == 300
    assert int(state.count) == 9
    unread = [not row.any() for row in np.asarray(state.met)]
    assert unread == [False, True, False, False, False, True, False, False, False]
    assert texts(search.best(state)[None]) == [c]


def test_what_a_search_has_met_is_in_its_state_and_not_in_the_judge(desk):
    a, b = source(100, 50.0, "a"), source(100, 51.0, "b")
    searcher = listed([[a], [b], [a]])
    fresh = [Judge(desk.check, desk.train, steps=100, seeds=SEEDS) for _ in range(2)]
    first, second = (distinct(searcher, judge, most=3) for judge in fresh)
    state = first.init(KEY)
    for _ in range(2):
        state, _ = first.step(KEY, state)
    before = list(desk.trained)
    _, resumed = second.step(KEY, state)  # by a judge of another process
    _, straight = first.step(KEY, state)
    assert desk.trained == before
    assert reasons(resumed["measured"]) == reasons(straight["measured"]) == ["duplicate"]
    assert resumed["cost"] == straight["cost"] == 200
    _, other = first.step(KEY, first.init(KEY))  # another seed of the same run
    assert reasons(other["measured"]) == [""]
    assert other["cost"] == 100
