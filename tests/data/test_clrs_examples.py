"""Examples of CLRS-30 against the arrays that dm-clrs itself makes of the same random numbers."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxnas.data import clrs
from jaxnas.data.clrs_probes import ALGORITHMS, POINTERS, Probe, shape, spec
from jaxnas.data.dataset import DataError

KEY = jax.random.wrap_key_data(np.uint32([0, 7]))


@pytest.fixture(scope="module")
def package():
    """The package's samplers, or a skip that says what is missing."""
    try:
        return clrs._samplers()
    except DataError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_probes_are_those_that_the_package_states(package, algorithm):
    stated = dict(package.specs.SPECS[algorithm])
    mine = {p.name: (p.stage, p.place, p.kind) for p in spec(algorithm)}
    if mine.get("pred") == ("input", "node", "pointer"):
        assert mine.pop("pred")[1:] == stated.pop("pred_h")[1:]
    ordered = [name for name, told in stated.items() if told[2] == "should_be_permutation"]
    for name in ordered:
        del stated[name]
        assert mine.pop(name) == ("output", "node", "permutation_pointer")
        assert mine.pop(f"{name}_mask") == ("output", "node", "mask_one")
    assert mine == stated


@pytest.mark.parametrize(
    ("algorithm", "length"),
    [("bubble_sort", 5), ("mst_kruskal", 6), ("lcs_length", 6), ("kmp_matcher", 20)],
)
def test_arrays_are_those_of_the_package_with_its_own_changes(package, algorithm, length):
    mine = clrs.examples(algorithm, KEY, 3, length)
    theirs = next(_published(package, algorithm, length))
    stages = [(theirs.features.inputs, mine.inputs), (theirs.outputs, mine.outputs)]
    stages += [(theirs.features.hints, mine.hints)]
    kinds = {p.name: p.kind for p in spec(algorithm)}
    assert mine.lengths.tolist() == theirs.features.lengths.tolist()
    for points, arrays in stages:
        assert sorted(arrays) == sorted(p.name for p in points)
        for point in points:
            array, data = np.asarray(arrays[point.name]), np.asarray(point.data)
            if kinds[point.name] == "permutation_pointer":
                data = data.argmax(-1)
            data = np.moveaxis(data, 0, 1) if arrays is mine.hints else data
            np.testing.assert_allclose(array, data, rtol=1e-6, err_msg=point.name)


def _published(package, algorithm, length):
    """As the package's training example draws and changes examples."""
    edges = tuple(p / 2 if algorithm == "mst_kruskal" else p for p in clrs.EDGES)
    known = {"lcs_length": {}, "bubble_sort": {}, "mst_kruskal": {"p": edges}}
    settings = known.get(algorithm, {"length_needle": -8})
    seed = np.uint32([0, 7])
    sampler, probes = package.build_sampler(algorithm, 3, seed=seed, length=length, **settings)
    rng = np.random.RandomState([0, 7, 1])
    drawn = package.process_random_pos(iter([sampler.next()]), rng)
    if algorithm in ("lcs_length", "kmp_matcher"):
        probes, drawn = package.process_pred_as_input(probes, drawn)
    return package.process_permutations(probes, drawn, True)[1]


def test_equal_keys_give_equal_examples_and_others_do_not(package):
    a, b = (clrs.examples("bfs", KEY, 2, 4) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, a, b)
    other = clrs.examples("bfs", jax.random.key(1), 2, 4)
    assert not np.array_equal(a.inputs["pos"], other.inputs["pos"])


def test_hints_are_padded_with_zeros_after_the_end_of_each_run(package):
    drawn = clrs.examples("articulation_points", KEY, 3, 4, steps=40)
    assert drawn.lengths.min() >= 1
    for name, hint in drawn.hints.items():
        probe = next(p for p in spec("articulation_points") if p.name == name)
        assert hint.shape == (3, 40, *shape(probe, 4))
        assert hint.dtype == (np.int32 if probe.kind in POINTERS else np.float32)
        for row, length in zip(np.asarray(hint), drawn.lengths, strict=True):
            assert not row[int(length) :].any()
    # While a run lasts exactly one node has a `mask_one`.
    marked = np.asarray(drawn.hints["u"].sum(-1))
    np.testing.assert_array_equal(marked, np.arange(40) < np.asarray(drawn.lengths)[:, None])


def test_positions_grow_within_each_string(package):
    positions = np.asarray(clrs.examples("kmp_matcher", KEY, 4, 20).inputs["pos"])
    falls = (np.diff(positions) < 0).sum(1)
    assert falls.max() <= 1
    assert (positions >= 0).all()
    assert (positions < 1).all()


def test_the_test_set_has_the_published_number_and_size_of_graphs(package, monkeypatch):
    monkeypatch.setattr(clrs, "TEST_EXAMPLES", 2)
    assert clrs.benchmark("bfs").inputs["adj"].shape == (2, 64, 64)
    assert clrs.benchmark("minimum").inputs["pos"].shape == (128, 64)
    assert clrs.benchmark("bfs", 9).inputs["adj"].shape == (2, 9, 9)


def test_sampling_leaves_no_stand_in_for_other_packages_behind(package):
    code = (
        "import sys, jax; from jaxnas.data import clrs;"
        "clrs.examples('minimum', jax.random.key(0), 1, 3);"
        "clrs.examples('minimum', jax.random.key(0), 1, 3);"
        "print(sorted({'clrs', 'tensorflow', 'haiku'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"
    assert "Ignoring" not in told.stderr


def test_without_the_package_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "clrs._src.samplers", raising=False)
    monkeypatch.setattr(clrs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install --no-deps dm-clrs==2\.0\.3"):
        clrs.examples("bfs", KEY, 1, 4)


def test_unknown_algorithms_and_sizes_are_refused():
    with pytest.raises(ValueError, match=r"one of activity_selector, .*, but is 'a_star'"):
        spec("a_star")
    with pytest.raises(ValueError, match="`length` at least 17 for kmp_matcher"):
        clrs.examples("kmp_matcher", KEY, 1, 16)
    with pytest.raises(ValueError, match="`number` must be at least 1"):
        clrs.examples("bfs", KEY, 0, 4)


def test_string_matchers_are_trained_on_one_size_and_others_on_five():
    assert clrs.lengths("bfs") == (4, 7, 11, 13, 16)
    assert clrs.lengths("naive_string_matcher") == (20,)
    assert clrs.lengths("kmp_matcher", (4, 7)) == (17,)


def test_shapes_of_values_and_of_their_logits():
    assert shape(Probe("pi", "output", "node", "pointer"), 4) == (4,)
    assert shape(Probe("pi", "output", "node", "pointer"), 4, predicted=True) == (4, 4)
    assert shape(Probe("b", "hint", "edge", "categorical", 3), 4, predicted=True) == (4, 4, 3)
    assert shape(Probe("t", "hint", "graph", "scalar"), 4) == ()
