"""Queries of the real table: every data set, split and length; what the numbers are called."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.cells import nas_bench_201 as nb
from jaxnas.cells.tabular import COLUMNS, from_official_index, official_index, tabular
from jaxnas.core import Asked, Problem

DATASETS = ("cifar10", "cifar100", "ImageNet16-120")
BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
FIELDS = [
    ("valid", 200, "valid"),
    ("test", 200, "test"),
    ("valid", 12, "valid_12"),
    ("test", 12, "test_12"),
    ("test_seed888", 200, "test_seed888"),
]


def ask(problem, *cells):
    genotypes = jnp.asarray(np.stack(cells), jnp.int8)
    budget = jnp.full(len(cells), -1, jnp.int32)
    return problem.evaluate(jax.random.key(0), Asked(genotypes, budget))


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize(("split", "epochs", "field"), FIELDS)
def test_every_cell_gets_its_own_row_in_every_column(cell_table, dataset, split, epochs, field):
    problem = tabular(cell_table, dataset=dataset, split=split, epochs=epochs)
    said = ask(problem, *cell_table.ops)
    column = DATASETS.index(dataset)
    np.testing.assert_array_equal(said.fitness, getattr(cell_table, field)[:, column])
    np.testing.assert_array_equal(said.extra, cell_table.test[:, column])
    assert said.cost.tolist() == [1.0] * 15_625
    assert said.fitness.dtype == said.cost.dtype == jnp.float32
    assert isinstance(problem, Problem)


def test_every_column_that_is_offered_was_tried():
    assert {(split, epochs): field for split, epochs, field in FIELDS} == COLUMNS


@pytest.mark.parametrize("report", ["valid", "test", "test_seed888"])
def test_what_is_reported_may_be_chosen(cell_table, report):
    problem = tabular(cell_table, dataset="cifar100", split="valid", epochs=12, report=report)
    said = ask(problem, *cell_table.ops[:50])
    np.testing.assert_array_equal(said.extra, getattr(cell_table, report)[:50, 1])


def test_labels_say_data_set_split_epochs_and_seeds(cell_table):
    problem = tabular(cell_table, dataset="ImageNet16-120", split="valid", epochs=12)
    assert all(word in problem.label for word in ("ImageNet16-120", "validation", "%", "12 epochs"))
    assert "12-epoch series" in problem.label
    reported = problem.reported_label
    assert all(word in reported for word in ("ImageNet16-120", "test", "200 epochs", "mean over"))
    assert "validation" not in reported


def test_the_label_of_a_single_seed_speaks_of_no_mean(cell_table):
    problem = tabular(cell_table, split="test_seed888", report="test_seed888")
    for label in (problem.label, problem.reported_label):
        assert "seed 888" in label
        assert "mean" not in label


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"dataset": "cifar"}, "`dataset` must be one of cifar10, cifar100.*got 'cifar'"),
        ({"split": "train"}, "'train' after 200 epochs.*`split` and `epochs`"),
        ({"epochs": 90}, "'valid' after 90 epochs"),
        ({"split": "test_seed888", "epochs": 12}, "'test_seed888' after 12 epochs"),
        ({"report": "nothing"}, "'nothing' after 200 epochs"),
    ],
)
def test_what_the_table_does_not_have_is_refused(cell_table, choice, message):
    with pytest.raises(ValueError, match=message):
        tabular(cell_table, **choice)


@pytest.mark.parametrize(
    ("dataset", "split", "optimum", "row"),
    [
        ("cifar10", "test", 94.3733, 6111),
        ("cifar100", "test", 73.5133, 9930),
        ("ImageNet16-120", "test", 47.3111, 857),
        ("cifar10", "valid", 91.6067, 6111),
        ("cifar100", "valid", 73.4933, 9930),
        ("ImageNet16-120", "valid", 46.7333, 10676),
    ],
)
def test_the_optimum_of_a_column_is_the_published_cell(cell_table, dataset, split, optimum, row):
    """Equal cells share the first place, so the published one is looked up."""
    problem = tabular(cell_table, dataset=dataset, split=split)
    said = ask(problem, from_official_index(cell_table, row))
    assert abs(float(problem.fitness.max()) - optimum) < 1e-4
    assert float(said.fitness[0]) == float(problem.fitness.max())


def test_the_cell_a_collapsed_search_ends_with_scores_as_published(cell_table):
    skips = np.full(6, nb.SKIP)
    for dataset, published in zip(DATASETS, (54.30, 15.61, 16.32), strict=True):
        said = ask(tabular(cell_table, dataset=dataset, split="test"), skips)
        assert abs(float(said.fitness[0]) - published) < 5e-3


def test_official_indices_there_and_back(cell_table):
    assert official_index(cell_table, nb.from_text(BEST)) == 6111
    assert nb.to_text(from_official_index(cell_table, 6111)) == BEST
    for index in (0, 11, 284, 15_624):
        assert official_index(cell_table, from_official_index(cell_table, index)) == index
    for index in (-1, 15_625):
        with pytest.raises(
            ValueError, match=f"`index` must be between 0 and 15624, but got {index}"
        ):
            from_official_index(cell_table, index)
