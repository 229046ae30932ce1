"""EvoPrompting with a scripted model, against lists in plain Python and prompts written by hand."""

import random
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.evoprompting import rounds_of
from reference.judging import Desk, source

from jaxnas.core import run_host
from jaxnas.llm import Reply, scripted
from jaxnas.programs.distinct import distinct
from jaxnas.programs.evoprompting import (
    STUB,
    Example,
    Settings,
    Tuner,
    best,
    dialogue,
    evoprompting,
    front,
    prompt,
    rows,
    steps,
    untuned,
)
from jaxnas.programs.judge import REASONS, Judge
from jaxnas.programs.page import texts
from jaxnas.programs.proposer import from_client

KEY = jax.random.key(3)
SEEDS = [source(9000, 70.0, "s1"), source(500, 60.0, "s2"), source(4810, 86.5, "s3")]
SMALL = Settings(rounds=4, prompts=3, samples=4, survivors=3, threshold=0.45)
HOSTILE = ("Sure!", "", f"{STUB}\n    x = (", f"{STUB}\n    # fails shape\n    x = 1")


def speak(request):
    """A program, a copy, a program that fails or nonsense, by the seed alone."""
    dice = random.Random(request.seed)
    if dice.random() < 0.3:
        return dice.choice(HOSTILE)
    if dice.random() < 0.15:
        return Reply(source(1, 99.0, "cut"), "length")
    size, accuracy = dice.randint(100, 9000), dice.randint(300, 999) / 10
    return source(size, accuracy, f"n{dice.randint(0, 40)}x")


class Heard:
    """A model that keeps what it was asked, and a tuner that keeps what it was given."""

    def __init__(self, speak=speak):
        self.requests, self.tuned, self.states = [], [], []
        self.write = from_client(scripted(self._answer), wanted="Model", begun=STUB)
        self.speak = speak

    def _answer(self, request):
        self.requests.append(request)
        return self.speak(request)

    def tuner(self):
        def tune(state, key, sources):
            self.tuned.append(sources)
            return state + 1

        def proposer(state):
            self.states.append(int(state))
            return self.write

        return Tuner(lambda key: jnp.int32(0), tune, proposer)


def search(settings, tuner, seeds=SEEDS):
    desk = Desk()
    judge = Judge(desk.check, desk.train, steps=10, seeds=seeds)
    most = rows(len(seeds), settings)
    return distinct(evoprompting(tuner, seeds, settings), judge, most)


@pytest.fixture(scope="module")
def whole():
    """A run, and what was heard in it."""
    heard = Heard()
    trail = list(run_host(search(SMALL, heard.tuner()), KEY, steps(3, SMALL)))
    return trail, heard


def told(trail):
    """All rows of the run: serial, source, size, error (None without fitness), parents."""
    found = []
    for _, state, info in trail:
        asked, measured = info["asked"], info["measured"]
        for n, one in enumerate(texts(asked.genotypes)):
            if one:
                row = len(found)
                fit = float(measured.fitness[n])
                size = float(state.closed.searcher.size[row])
                error = None if np.isneginf(fit) else 1 - fit / 100
                found.append((row + 1, one, size, error, asked.parents[n].tolist()))
    return found


def by_round(found):
    plain = [(serial, size, error) for serial, _, size, error, _ in found]
    a_round = SMALL.prompts * SMALL.samples
    return plain[:3], [plain[i : i + a_round] for i in range(3, len(plain), a_round)]


def test_parents_survivors_and_tuning_are_those_of_plain_lists(whole):
    trail, heard = whole
    found = told(trail)
    assert len(found) == 3 + 4 * 3 * 4 == rows(3, SMALL)
    seeds, children = by_round(found)
    assert any(error is not None and error >= 0.45 for one in children for *_, error in one)
    history, tuned, _ = rounds_of(seeds, children, survivors=3, threshold=0.45)
    assert len(set(map(tuple, history))) == 4
    for number, parents in enumerate(history):
        state = trail[number * SMALL.prompts][1].closed.searcher
        assert [int(row) + 1 for row in state.parents if row >= 0] == parents
        mine = found[3 + number * 12 : 3 + (number + 1) * 12]
        assert {p for *_, drawn in mine for p in drawn} <= set(parents)
    sources = {serial: one for serial, one, *_ in found}
    assert heard.tuned == [[sources[serial] for serial in one] for one in tuned]
    assert heard.states == [number for number in range(4) for _ in range(3)]


def test_nobody_is_a_parent_in_two_rounds(whole):
    trail, _ = whole
    seen = []
    for number in range(SMALL.rounds):
        state = trail[number * SMALL.prompts][1].closed.searcher
        seen += [int(row) for row in state.parents if row >= 0]
    assert len(seen) == len(set(seen)) == 12


def test_samples_of_a_prompt_share_it_and_its_parents_and_differ_in_their_seeds(whole):
    trail, heard = whole
    assert len(heard.requests) == 48
    assert len({request.seed for request in heard.requests}) == 48
    found, hot = told(trail), set()
    for at in range(0, 48, 4):
        asked = heard.requests[at : at + 4]
        talk = [message["content"] for message in asked[0].messages]
        assert all([m["content"] for m in r.messages] == talk for r in asked)
        assert len({r.temperature for r in asked}) == 1
        hot.add(asked[0].temperature)
        drawn = found[3 + at][4]
        assert all(found[3 + at + i][4] == drawn for i in range(4))
        shown = re.findall(r"# params=(\d+)", "".join(talk))
        assert [int(size) for size in shown] == [int(found[serial - 1][2]) for serial in drawn]
        assert talk[-1].endswith(f"`{STUB}`.")
    assert hot <= {0.2, 0.6, 0.8, 1.0}
    assert len(hot) > 1


def test_duplicates_failures_and_nonsense_count_and_score_nothing(whole):
    trail, _ = whole
    reasons = [REASONS[c] for *_, i in trail[1:] for c in i["measured"].failure.tolist()]
    assert len(reasons) == 48
    assert {"", "parse", "shape", "duplicate"} == set(reasons)
    spoilt = [one for _, one, *_ in told(trail) if one.startswith("<no program")]
    assert spoilt
    names = [re.search(r"name=(\w+)", one) for _, one, _, error, _ in told(trail) if error]
    assert len({name[1] for name in names}) == len(names)


def test_the_best_is_among_survivors_and_the_front_over_everything_measured(whole):
    trail, _ = whole
    state, found = trail[-1][1].closed.searcher, told(trail)
    good = [(size, error, serial) for serial, _, size, error, _ in found if error is not None]
    for threshold in (SMALL.threshold, 1.0, 0.25):
        alive = [one for one in good if one[1] < threshold]
        top = min(alive, key=lambda one: (one[0] * one[1], one[2]))
        assert int(best(state, threshold)) + 1 == top[2]
    nothing = min(good, key=lambda one: (one[0] * one[1], one[2]))
    assert int(best(state, 1e-6)) + 1 == nothing[2]
    better = [
        s
        for size, error, s in good
        if not any(a <= size and b <= error and (a, b) != (size, error) for a, b, _ in good)
    ]
    assert sorted(row + 1 for row in front(state)) == sorted(better)


def test_a_run_goes_on_from_any_step_as_if_it_had_not_stopped(whole):
    trail, _ = whole
    for start in (1, 4, 6, 12):
        _, state, _ = trail[start - 1]
        plain = jax.tree.map(lambda x: x if _is_key(x) else jnp.asarray(np.asarray(x)), state)
        again = search(SMALL, Heard().tuner())
        rest = list(run_host(again, KEY, steps(3, SMALL), plain, start))
        assert len(rest) == 13 - start
        for (_, a, i), (_, b, j) in zip(rest, trail[start:], strict=True):
            for x, y in zip(jax.tree.leaves((a, i)), jax.tree.leaves((b, j)), strict=True):
                assert np.array_equal(_plain(x), _plain(y), equal_nan=not _is_key(x))


def _is_key(x):
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _plain(x):
    return np.asarray(jax.random.key_data(x) if _is_key(x) else x)


def run(settings, heard, seeds=SEEDS):
    return list(run_host(search(settings, heard.tuner(), seeds), KEY, steps(len(seeds), settings)))


def test_few_shot_prompting_shows_the_seeds_in_every_round():
    heard = Heard()
    run(SMALL._replace(selection="seeds"), heard)
    for request in heard.requests:
        names = re.findall(r"name=(\w+)", request.messages[0]["content"])
        assert set(names) <= {"s1", "s2", "s3"}


def test_random_parents_survived_and_are_other_than_the_best(whole):
    trail = run(SMALL._replace(selection="random"), Heard())
    seen, differ, found = set(), False, told(trail)
    for number in range(1, SMALL.rounds):
        chosen = [int(r) for r in trail[number * 3][1].closed.searcher.parents if r >= 0]
        assert len(chosen) == 3
        assert not seen & set(chosen)
        seen |= set(chosen)
        alive = [s - 1 for s, _, _, e, _ in found[3 : 3 + number * 12] if e and e < 0.45]
        assert set(chosen) <= set(alive)
        top = sorted(set(alive) - (seen - set(chosen)), key=lambda r: found[r][2] * found[r][3])
        differ |= set(chosen) != set(top[:3])
    assert differ


def test_without_survivors_the_parents_stay_and_with_few_all_become_parents():
    settings = SMALL._replace(rounds=3, prompts=1, samples=3)
    late = {"n": 0}

    def one_good(request):
        late["n"] += 1
        return source(100, 90.0, "good") if late["n"] == 4 else "nothing"

    trail = run(settings, Heard(one_good))
    parents = [[int(r) for r in s.closed.searcher.parents if r >= 0] for _, s, _ in trail]
    assert parents == [[0, 1, 2], [0, 1, 2], [6], [6]]


def test_more_seeds_than_samples_take_several_steps_and_fewer_leave_places_empty():
    two = SMALL._replace(samples=2, rounds=1, prompts=1)
    trail = run(two, Heard())
    assert len(trail) == steps(3, two) == 3
    kinds = [[bool(one) for one in texts(i["asked"].genotypes)] for *_, i in trail]
    assert kinds == [[True, True], [True, False], [True, True]]
    assert [int(s.closed.searcher.asked) for _, s, _ in trail] == [2, 3, 5]
    assert all(i["asked"].parents.tolist() == [[0, 0]] * 2 for *_, i in trail[:2])


def test_seeds_that_cannot_be_trained_are_no_parents_and_without_any_it_ends():
    broken = ["# fails import", SEEDS[1]]
    trail = run(SMALL._replace(rounds=1), Heard(), broken)
    assert [int(r) for r in trail[0][1].closed.searcher.parents] == [1, -1, -1]
    with pytest.raises(ValueError, match="`seeds` must hold a program that can be trained"):
        run(SMALL, Heard(), broken[:1])


def test_a_prompt_is_what_the_paper_shows():
    examples = [
        Example("import flax.linen as nn\n\n\nclass Model(nn.Module):\n    a = 1\n", 4800, 0.135),
        Example("class Model(nn.Module):\n    b = 2\n", 15210, 0.25),
    ]
    assert prompt(examples) == (
        '"""Metrics:\n'
        "{'num_params': '4800', 'val_accuracy': '0.865'}\n"
        '"""\n'
        "class Model(nn.Module):\n"
        "    a = 1\n"
        "\n"
        "\n"
        '"""Metrics:\n'
        "{'num_params': '15210', 'val_accuracy': '0.750'}\n"
        '"""\n'
        "class Model(nn.Module):\n"
        "    b = 2\n"
        "\n"
        "\n"
        '"""Metrics:\n'
        "{'num_params': '4300', 'val_accuracy': '0.882'}\n"
        '"""\n'
        "class Model(nn.Module):"
    )


def test_in_a_dialogue_the_model_has_answered_before():
    first, second = "class Model(nn.Module):\n    a = 1", "class Model(nn.Module):\n    b = 2"
    shown = [
        Example(f"import flax.linen as nn\n\n\n{first}\n", 4800, 0.135),
        Example(second, 15210, 0.25),
    ]
    talk = dialogue(shown, "You write networks.")
    assert [one["role"] for one in talk] == ["system", *["user", "assistant"] * 2, "user"]
    assert [one["content"] for one in talk[:3:2]] == ["You write networks.", first]
    assert talk[4]["content"] == second
    for one, size, accuracy in zip(
        talk[1::2], (4800, 15210, 4300), (0.865, 0.75, 0.8823), strict=True
    ):
        metrics = f"{{'num_params': '{size}', 'val_accuracy': '{accuracy:.3f}'}}"
        assert one["content"] == f'"""Metrics:\n{metrics}\n"""\nBegin with `{STUB}`.'


@pytest.mark.parametrize(
    ("size", "wanted"), [(4810, 4300), (91082, 82000), (5210, 4700), (15210, 13700), (40, 0)]
)
def test_the_size_wanted_is_nine_tenths_to_the_next_hundred(size, wanted):
    last = prompt([Example("x", size, 0.5), Example("y", 10**6, 0.9)]).rsplit('"""Metrics:', 1)[1]
    assert f"'num_params': '{wanted}', 'val_accuracy': '0.510'" in last


def test_a_model_that_only_completes_text_gets_the_file_alone():
    heard = Heard()
    run(SMALL._replace(instruction="", rounds=1, prompts=1), heard)
    assert heard.requests[0].messages[0]["content"].startswith('"""Metrics:\n{')


def test_the_numbers_are_the_paper_s():
    assert rows(4, Settings()) - 4 == 1600
    assert steps(4, Settings()) == 101
    assert Settings()[:6] == (10, 10, 16, 2, 10, 0.5)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"rounds": 0}, "`rounds` must be at least 1, but got 0"),
        ({"examples": 0}, "`examples` must be at least 1"),
        ({"selection": "worst"}, "`selection` must be one of best, random, seeds, but got 'worst'"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting, words):
    with pytest.raises(ValueError, match=words):
        evoprompting(untuned(Heard().write), SEEDS, Settings(**setting))
