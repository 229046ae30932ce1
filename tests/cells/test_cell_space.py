"""The space: codes, classes of equal cells, neighbours, mutation, parameters and FLOPs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.cells import number, topology

from jaxnas.cells import nas_bench_201 as nb
from jaxnas.cells.trained import random_cells

ALL = np.asarray(nb.from_code(jnp.arange(nb.SIZE)))


def test_codes_are_all_numbers_below_15625_in_reading_order():
    assert nb.SIZE == 15_625
    by_hand = list(itertools.product(range(5), repeat=6))  # the first edge leads
    np.testing.assert_array_equal(ALL, by_hand)
    np.testing.assert_array_equal(nb.code(jnp.asarray(ALL)), np.arange(15_625))
    assert nb.from_code(jnp.arange(6).reshape(2, 3)).shape == (2, 3, 6)
    assert int(nb.code(jnp.array([4] * 6, jnp.int8))) == 15_624  # beyond int8
    assert ALL.dtype == np.int8


@pytest.fixture(scope="module")
def classes():
    return [nb.canonical(cell) for cell in ALL]


def test_there_are_6466_distinct_cells(classes):
    assert len(set(classes)) == 6_466
    codes = nb.canonical_codes()
    assert len(np.unique(codes)) == 6_466
    assert bool((codes <= np.arange(15_625)).all())
    np.testing.assert_array_equal(codes[codes], codes)


def test_the_classes_are_those_of_the_published_rule(classes):
    published = [topology(cell) for cell in ALL]
    assert len(set(published)) == len(set(zip(published, classes, strict=True))) == 6_466


def test_cells_of_one_class_compute_the_same(classes):
    codes = nb.canonical_codes()
    values = np.array([number(cell) for cell in ALL])
    np.testing.assert_allclose(values, values[codes], rtol=1e-12, atol=1e-12)
    same_class = {name: code for code, name in reversed(list(enumerate(classes)))}
    assert [same_class[name] for name in classes] == codes.tolist()


def test_a_cell_has_24_neighbours_that_differ_in_one_edge():
    every = np.asarray(jax.vmap(nb.neighbours)(jnp.asarray(ALL)))
    assert every.shape == (15_625, 24, 6)
    assert every.min() == 0
    assert every.max() == 4
    assert bool(((every != ALL[:, None]).sum(-1) == 1).all())
    names = np.sort(np.asarray(nb.code(jnp.asarray(every))), axis=1)
    assert bool((np.diff(names, axis=1) > 0).all())


@pytest.mark.parametrize("cell", [[0, 0, 0, 0, 0, 0], [4, 4, 4, 4, 4, 4], [0, 1, 2, 3, 4, 2]])
def test_a_mutation_is_a_neighbour_each_as_likely_as_the_next(cell):
    parent, n = jnp.array(cell, jnp.int8), 24_000
    children = jax.vmap(nb.mutate, (0, None))(jax.random.split(jax.random.key(0), n), parent)
    assert children.dtype == jnp.int8
    names, counts = np.unique(np.asarray(nb.code(children)), return_counts=True)
    np.testing.assert_array_equal(names, np.sort(nb.code(nb.neighbours(parent))))
    chi_square = ((counts - n / 24) ** 2 / (n / 24)).sum()
    assert chi_square < 23 + 5 * (2 * 23) ** 0.5
    assert np.abs(counts - n / 24).max() < 5 * (n / 24 * 23 / 24) ** 0.5


def test_samples_are_uniform_over_edges_and_operations():
    cells = np.asarray(nb.sample(jax.random.key(1), 50_000))
    assert cells.dtype == np.int8
    counts = np.stack([(cells == op).sum(0) for op in range(5)])
    assert np.abs(counts - 10_000).max() < 5 * (50_000 * 0.2 * 0.8) ** 0.5
    pairs = np.bincount(cells[:, 0] * 5 + cells[:, 5], minlength=25)
    assert np.abs(pairs - 2_000).max() < 5 * (2_000 * 24 / 25) ** 0.5


def test_random_cells_of_a_baseline_are_all_different():
    cells = random_cells(jax.random.key(0), 5_000)
    assert cells.shape == (5_000, 6)
    assert len(np.unique(nb.code(cells))) == 5_000


CONV3, SKIP = np.full(6, nb.CONV3), np.full(6, nb.SKIP)
FIRST = nb.from_text(
    "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
)
ELEVENTH = nb.from_text(
    "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|none~0|nor_conv_3x3~1|avg_pool_3x3~2|"
)


@pytest.mark.parametrize(
    ("cell", "classes", "size", "params", "flops"),
    [
        (FIRST, 10, 32, 129_306, 15.64737),
        (FIRST, 100, 32, 135_156, 15.65322),
        (FIRST, 120, 16, 136_456, 3.91948),
        (ELEVENTH, 10, 32, 802_426, 113.95137),
        (ELEVENTH, 100, 32, 808_276, None),
        (ELEVENTH, 120, 16, 809_576, 28.49548),
        (CONV3, 10, 32, 1_531_546, None),
        (SKIP, 10, 32, 73_306, None),
    ],
)
def test_parameters_and_flops_are_those_of_the_benchmark(cell, classes, size, params, flops):
    assert nb.params(cell, classes=classes) == params
    if flops is not None:
        assert round(nb.flops(cell, classes=classes, size=size) / 1e6, 5) == flops


def test_parameters_agree_with_every_row_of_the_table(cell_table):
    for column, classes in enumerate((10, 100, 120)):
        ours = [nb.params(ops, classes=classes) for ops in cell_table.ops]
        np.testing.assert_array_equal(ours, cell_table.params[:, column])


def test_flops_are_those_of_the_table_less_what_its_rule_counts_besides(cell_table):
    """The table's column also counts batch norm, ReLU and pooling; the difference is per edge."""
    kinds = np.stack([(cell_table.ops == op).sum(1) for op in (2, 3, 4)], axis=1)
    design = np.column_stack([np.ones(len(kinds)), kinds])
    for column, (classes, size) in enumerate(((10, 32), (100, 32), (120, 16))):
        ours = np.array([nb.flops(ops, classes=classes, size=size) for ops in cell_table.ops])
        rest = cell_table.flops[:, column] - ours
        # Five cells at 16, 32 and 64 channels on 32, 16 and 8 pixels a side.
        maps = 5 * 16 * 32 * 32 * (1 + 1 / 2 + 1 / 4) * (size / 32) ** 2
        fitted = np.linalg.lstsq(design, rest.astype(float), rcond=None)[0]
        np.testing.assert_allclose(design @ fitted, rest, atol=1.0)
        # A convolution's ReLU and batch norm are three operations a value, a pool is nine.
        np.testing.assert_allclose(fitted[1:] / maps, [3, 3, 9], atol=1e-6)
