"""The four ways to run a search draw the same keys and resume from anywhere."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.core import (
    Leg,
    Search,
    compiled,
    legs_over_seeds,
    over_seeds,
    relay,
    run_chunks,
    run_host,
    run_scan,
)

pytestmark = pytest.mark.usefixtures("quick_compile")


def walk(size=3, scale=1.0, name="walk"):
    """A random walk that remembers the key data it was stepped with."""

    def init(key):
        return jax.random.normal(key, (size,))

    def step(key, state):
        state = state + scale * jax.random.normal(key, (size,))
        return state, {"x": state.sum(), "key": jax.random.key_data(key)}

    return Search(init, step, lambda state: state.argmax())


def expected(search, key, steps):
    """States after each step, by the contract: `fold_in(key, step)`, step 0 for `init`."""
    states = [search.init(jax.random.fold_in(key, 0))]
    for i in range(1, steps + 1):
        states.append(search.step(jax.random.fold_in(key, i), states[-1])[0])
    return states


def test_steps_are_keyed_by_folding_in_their_number():
    key = jax.random.key(4)
    states = expected(walk(), key, 6)
    hosted = list(run_host(walk(), key, 6))
    assert [i for i, *_ in hosted] == [1, 2, 3, 4, 5, 6]
    for (_, state, _), wanted in zip(hosted, states[1:], strict=True):
        np.testing.assert_array_equal(state, wanted)
    last, info = run_scan(walk(), key, 6)
    np.testing.assert_allclose(last, states[-1], rtol=1e-6)
    keys = [jax.random.key_data(jax.random.fold_in(key, i)) for i in range(1, 7)]
    np.testing.assert_array_equal(info["key"], keys)


@pytest.mark.parametrize("mode", ["scan", "step", "host"])
@pytest.mark.parametrize(
    ("steps", "every", "stops"),
    [(7, 3, [3, 6, 7]), (6, 3, [3, 6]), (2, 5, [2]), (1, 1, [1]), (5, 4, [4, 5])],
)
def test_chunks_stop_where_told_and_the_last_may_be_shorter(mode, steps, every, stops):
    key = jax.random.key(1)
    chunks = list(run_chunks(walk(), key, steps, every=every, mode=mode))
    assert [at for at, *_ in chunks] == stops
    assert [len(info["x"]) for *_, info in chunks] == np.diff([0, *stops]).tolist()
    _, whole = run_scan(walk(), key, steps)
    np.testing.assert_allclose(
        np.concatenate([info["x"] for *_, info in chunks]), whole["x"], rtol=1e-5
    )
    np.testing.assert_array_equal(
        np.concatenate([info["key"] for *_, info in chunks]), whole["key"]
    )


@pytest.mark.parametrize("mode", ["scan", "step", "host"])
def test_a_finished_run_is_extended_from_wherever_it_stopped(mode):
    key = jax.random.key(1)
    *_, (at, state, _) = run_chunks(walk(), key, 5, every=3, mode=mode)
    more = list(run_chunks(walk(), key, 12, every=3, mode=mode, state=state, start=at))
    assert [at for at, *_ in more] == [8, 11, 12]
    np.testing.assert_allclose(more[-1][1], expected(walk(), key, 12)[-1], rtol=1e-5)


def test_a_run_that_is_already_done_yields_nothing():
    state = walk().init(jax.random.key(0))
    assert list(run_chunks(walk(), jax.random.key(0), 4, every=2, state=state, start=4)) == []
    assert list(run_host(walk(), jax.random.key(0), 4, state, 4)) == []


def test_chunks_of_no_steps_and_unknown_modes_are_refused():
    with pytest.raises(ValueError, match="`every` must be at least 1, but got 0"):
        next(run_chunks(walk(), jax.random.key(0), 4, every=0))
    with pytest.raises(ValueError, match="`mode` must be scan, step or host, but got 'fast'"):
        next(run_chunks(walk(), jax.random.key(0), 4, every=1, mode="fast"))
    with pytest.raises(ValueError, match="`how` must be one of vmap, map, loop, but got 'pmap'"):
        over_seeds(walk(), "pmap")


@pytest.mark.parametrize(("mode", "times"), [("scan", 2), ("step", 1), ("host", 11)])
def test_chunks_trace_a_step_once_per_length_of_chunk(mode, times):
    traces, plain = Counter(), walk()

    def step(key, state):
        traces["step"] += 1
        return plain.step(key, state)

    list(run_chunks(plain._replace(step=step), jax.random.key(0), 11, every=3, mode=mode))
    assert traces["step"] == times


@pytest.mark.parametrize("how", ["vmap", "map", "loop"])
def test_seeds_side_by_side_are_separate_runs(how):
    keys = jax.random.split(jax.random.key(9), 3)
    lifted = over_seeds(walk(), how)
    states, infos = run_scan(lifted, keys, 5)
    assert infos["x"].shape == (5, 3)
    for s in range(3):
        alone, info = run_scan(walk(), keys[s], 5)
        np.testing.assert_allclose(states[s], alone, rtol=1e-6)
        np.testing.assert_allclose(infos["x"][:, s], info["x"], rtol=1e-5)
    assert lifted.best(states).tolist() == [int(walk().best(s)) for s in states]
    *_, (_, hosted, _) = run_host(lifted, keys, 5)
    np.testing.assert_allclose(hosted, states, rtol=1e-6)


def grow(key, state):
    """Takes over three numbers, makes five."""
    return jnp.concatenate([state, jax.random.normal(key, (2,))])


FIVE = walk(5, 2.0)
LEGS = [Leg(walk(3), 4), Leg(FIVE, 3, grow), Leg(walk(5), 2), Leg(FIVE, 1)]


def by_hand(key):
    """The states of the relay, in a loop: steps are counted through all legs."""
    state, states, step = LEGS[0].search.init(jax.random.fold_in(key, 0)), [], 0
    for n, leg in enumerate(LEGS):
        if leg.take_over:
            state = leg.take_over(jax.random.fold_in(key, 2**31 + n), state)
        for _ in range(leg.steps):
            step += 1
            state, _ = leg.search.step(jax.random.fold_in(key, step), state)
            states.append(state)
    return states


@pytest.mark.parametrize("mode", ["scan", "step", "host"])
@pytest.mark.parametrize("every", [1, 3, 100])
def test_a_relay_hands_over_between_states_of_different_shape(mode, every):
    key = jax.random.key(2)
    trail = list(relay(LEGS, key, every=every, mode=mode))
    ends = {1: [*range(1, 11)], 3: [3, 4, 7, 9, 10], 100: [4, 7, 9, 10]}[every]
    assert [i for i, *_ in trail] == ends
    assert [len(info["x"]) for *_, info in trail] == np.diff([0, *ends]).tolist()
    for i, state, _ in trail:
        np.testing.assert_allclose(state, by_hand(key)[i - 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("start", range(1, 10))
def test_a_relay_resumes_at_any_step_bit_for_bit(start):
    key = jax.random.key(2)
    whole = list(relay(LEGS, key, every=1))
    resumed = list(relay(LEGS, key, every=1, state=whole[start - 1][1], start=start))
    assert [i for i, *_ in resumed] == list(range(start + 1, 11))
    for (_, state, info), (_, wanted, told) in zip(resumed, whole[start:], strict=True):
        np.testing.assert_array_equal(state, wanted)
        np.testing.assert_array_equal(info["x"], told["x"])


@pytest.mark.parametrize("how", ["vmap", "map", "loop"])
def test_a_relay_of_many_seeds_is_separate_relays(how):
    keys = jax.random.split(jax.random.key(4), 3)
    mode = "host" if how == "loop" else "scan"
    *_, (_, states, _) = relay(legs_over_seeds(LEGS, how), keys, every=2, mode=mode)
    for s, key in enumerate(keys):
        np.testing.assert_allclose(states[s], by_hand(key)[-1], rtol=1e-5, atol=1e-6)


def test_legs_that_share_a_search_are_traced_once():
    traces = Counter()

    def step(key, state):
        traces["step"] += 1
        return FIVE.step(key, state)

    search = FIVE._replace(step=step)
    legs = legs_over_seeds([Leg(search, 2), Leg(walk(5), 2), Leg(search, 2), Leg(search, 2)])
    assert len(list(relay(legs, jax.random.split(jax.random.key(0), 2), every=2))) == 4
    assert traces["step"] == 1


def test_a_relay_that_is_done_yields_nothing():
    assert list(relay(LEGS, jax.random.key(2), every=1, state=jnp.zeros(5), start=10)) == []


BIG = jnp.asarray(np.random.default_rng(0).normal(size=(200, 300)), jnp.float32)


def test_compiled_equals_jit_on_trees_keys_and_every_kind_of_leaf():
    def f(x, tree, key):
        return {
            "y": (BIG @ x["a"]).sum() * tree[0],
            "n": jax.random.normal(key, (2,)),
            "none": None,
        }

    args = ({"a": jnp.arange(300.0)}, (2, None), jax.random.key(3))
    ours, theirs = compiled(f)(*args), jax.jit(f)(*args)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, theirs)


def test_compiled_keeps_the_result_types_of_jit_for_numbers_without_a_type():
    ours, theirs = compiled(jnp.multiply), jax.jit(jnp.multiply)
    half = jnp.ones(2, jnp.bfloat16)
    for number in (2.0, jnp.float32(2.0), 2):
        assert ours(half, number).dtype == theirs(half, number).dtype


def test_compiled_hands_closed_over_arrays_to_the_program_as_arguments(monkeypatch):
    programs = []

    def jit(f, **options):
        return lambda *args: (
            programs.append(real(f, **options).lower(*args).as_text()) or real(f)(*args)
        )

    real = jax.jit
    monkeypatch.setattr(jax, "jit", jit)
    np.testing.assert_allclose(compiled(lambda x: BIG * x)(2.0), 2 * BIG)
    monkeypatch.undo()
    inlined = jax.jit(lambda x: BIG * x).lower(2.0).as_text()
    assert len(inlined) > BIG.size  # what it is there to avoid
    assert len(programs) == 1
    assert len(programs[0]) < 2_000
    assert "tensor<200x300xf32>" in programs[0].split("{")[2]  # among the arguments of main


def test_compiled_traces_once_per_shapes_and_dtypes():
    traces = Counter()

    def f(x, scale=None):
        traces["f"] += 1
        return x * 2 if scale is None else x * scale

    run = compiled(f)
    for x in (np.ones(3, np.float32), jnp.zeros(3), jnp.ones(3)):
        run(x)
    assert traces["f"] == 1
    run(jnp.ones(4))
    run(jnp.ones(3, jnp.int32))
    run(jnp.ones(3), jnp.float32(2))
    assert traces["f"] == 4
    run(jnp.ones(4))
    assert traces["f"] == 4
