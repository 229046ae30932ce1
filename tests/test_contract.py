"""One contract for every search: pure, resumable, traced once, liftable over seeds."""

import os
import subprocess
import sys
from collections import Counter
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.alike import compare, plain
from reference.searches import SEARCHES

from jaxnas.core import Asked, compiled, over_seeds, run_chunks, run_host, run_scan

STEPS, EVERY = 6, 3
KEY = jax.random.key(7)
pytestmark = pytest.mark.usefixtures("quick_compile")
every_search = pytest.mark.parametrize("name", SEARCHES)


@lru_cache
def built(name):
    """The search with a compiled step, its judge, and how often the step was traced."""
    search, judge = SEARCHES[name]()
    traces = Counter()

    def step(key, state):
        traces["step"] += 1
        return search.step(key, state)

    return search._replace(step=compiled(step)), search, judge, traces


@lru_cache
def hosted(name):
    return list(run_host(built(name)[0], KEY, STEPS))


@lru_cache
def chunked(name):
    return list(run_chunks(built(name)[1], KEY, STEPS, every=EVERY))


def stacked(infos):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *infos)


@every_search
def test_a_scan_is_the_steps_of_the_host(name):
    told = [info for *_, info in hosted(name)]
    for at, state, infos in chunked(name):
        compare(state, hosted(name)[at - 1][1], 1e-5)
        compare(infos, stacked(told[at - EVERY : at]), 1e-5)


@every_search
def test_the_host_resumes_bit_for_bit_from_stored_bytes(name):
    step = 3
    _, state, _ = hosted(name)[step - 1]
    leaves, tree = jax.tree.flatten(state)
    stored = [(x.dtype, plain(x).dtype, x.shape, plain(x).tobytes()) for x in leaves]
    resumed = run_host(built(name)[0], KEY, STEPS, tree.unflatten(map(restore, stored)), step)
    for (i, state, info), (j, wanted, told) in zip(resumed, hosted(name)[step:], strict=True):
        assert i == j
        compare(state, wanted, 0)
        compare(info, told, 0)


def restore(stored):
    dtype, kind, shape, data = stored
    array = np.frombuffer(data, kind)
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(jnp.asarray(array.reshape(*shape, -1)))
    return jnp.asarray(array.reshape(shape))


@every_search
def test_chunks_resume_bit_for_bit_at_their_ends(name):
    assert [at for at, *_ in chunked(name)] == [3, 6]
    at, state, _ = chunked(name)[0]
    again = run_chunks(built(name)[1], KEY, STEPS, every=EVERY, state=state, start=at)
    for (i, state, info), (j, wanted, told) in zip(again, chunked(name)[1:], strict=True):
        assert i == j
        compare(state, wanted, 0)
        compare(info, told, 0)


# These differ from their siblings in what is compiled once already.
LATER = ("DARTS second order", "DrNAS kl", "PC-DARTS", "SDARTS random")
ONE_BY_ONE = ("aging evolution in batches", "DARTS exact order")


@pytest.mark.parametrize(
    ("name", "how"),
    [
        pytest.param(name, how, marks=[pytest.mark.slow] * slow)
        for name in SEARCHES
        for how, slow in (("vmap", name in LATER), ("map", name not in ONE_BY_ONE))
    ],
)
def test_many_seeds_at_once_are_separate_runs(name, how):
    keys = jnp.stack([KEY, jax.random.key(8)])
    lifted = over_seeds(built(name)[1], how)
    states, infos = run_scan(lifted, keys, STEPS)
    for s, key in enumerate(keys):
        trail = hosted(name) if s == 0 else list(run_host(built(name)[0], key, STEPS))
        alone = trail[-1][1]
        compare(jax.tree.map(lambda x, s=s: x[s], states), alone, 1e-5)
        told = stacked([info for *_, info in trail])
        compare(jax.tree.map(lambda x, s=s: x[:, s], infos), told, 1e-5)
        best = jax.tree.map(lambda x, s=s: x[s], lifted.best(states))
        compare(best, built(name)[1].best(alone), 0)


@every_search
def test_a_step_is_traced_once(name):
    hosted(name)
    assert built(name)[3]["step"] == 1


@every_search
def test_a_step_is_traced_once_by_jit_too_so_its_state_keeps_its_types(name):
    search, key = built(name)[1], jax.random.fold_in(KEY, 1)
    state = jax.eval_shape(search.init, key)
    after, _ = jax.eval_shape(search.step, key, state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype, old.weak_type) == (new.shape, new.dtype, new.weak_type)


@every_search
def test_equal_keys_give_equal_runs_and_other_keys_others(name):
    again = list(run_host(built(name)[0], KEY, STEPS))
    compare(again[-1][1:], hosted(name)[-1][1:], 0)
    *_, (_, other, info) = run_host(built(name)[0], jax.random.key(8), STEPS)
    different = [
        not np.array_equal(plain(a), plain(b))
        for a, b in zip(
            jax.tree.leaves((other, info)), jax.tree.leaves(hosted(name)[-1][1:]), strict=True
        )
    ]
    assert any(different)


@every_search
def test_info_is_a_dict_of_arrays_of_fixed_shapes_and_types(name):
    kinds = [
        [(jnp.shape(x), jnp.result_type(x)) for x in jax.tree.leaves(info)]
        for *_, info in hosted(name)
    ]
    assert isinstance(hosted(name)[0][2], dict)
    assert kinds.count(kinds[0]) == STEPS


@every_search
def test_the_answer_is_judged_like_every_other_candidate(name):
    _, search, judge, _ = built(name)
    best, key = search.best(hosted(name)[-1][1]), jax.random.key(0)
    sample = judge.sample(key, 2)
    jax.tree.map(lambda a, b: (a.shape, a.dtype) == (b.shape[1:], b.dtype) or 1 / 0, best, sample)
    both = jax.tree.map(lambda a, b: jnp.stack([a, b[0]]), best, sample)
    said = judge.evaluate(key, Asked(both, jnp.full(2, -1, jnp.int32)))
    assert said.fitness.shape == said.cost.shape == (2,)
    assert bool(jnp.isfinite(said.fitness).all())
    info = hosted(name)[-1][2]
    if "measured" in info and judge.__class__.__name__ == "Tabular":
        assert float(said.fitness[0]) == float(info["fitness"])
        everyone = np.concatenate([i["measured"].fitness for *_, i in hosted(name)])
        assert float(said.fitness[0]) == everyone.max()


@pytest.mark.parametrize(
    "name",
    ["aging evolution in batches", pytest.param("DARTS first order", marks=pytest.mark.slow)],
)
def test_searches_spread_over_four_devices_change_nothing(name):
    script = Path(__file__).parent / "reference" / "run_sharded.py"
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    done = subprocess.run(
        [sys.executable, str(script), name], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2_000:]
    assert done.stdout.splitlines() == [f"{name} equal"]
