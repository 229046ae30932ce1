import numpy as np
import pytest

from jaxnas.cells.nas_bench_201 import flops
from jaxnas.data import tables
from jaxnas.data.dataset import DataError


@pytest.fixture
def table(real):
    return tables.nas_bench_201(real("nas_bench_201.npz"))


def test_every_cell_of_the_space_is_there_once(table):
    assert len(np.unique(table.ops, axis=0)) == 15_625
    assert table.datasets == ("cifar10", "cifar100", "ImageNet16-120")


def test_the_best_cells_by_test_are_the_published_ones(table):
    assert table.test.argmax(0).tolist() == [6111, 9930, 857]
    np.testing.assert_allclose(table.test.max(0), [94.3733, 73.5133, 47.3111], atol=1e-4)


def test_the_best_cells_by_validation_are_the_published_ones(table):
    assert table.valid.argmax(0).tolist() == [6111, 9930, 10676]
    np.testing.assert_allclose(table.valid.max(0), [91.6067, 73.4933, 46.7333], atol=1e-4)
    assert abs(table.test[10676, 2] - 46.20) < 1e-4


def test_the_cell_of_skips_scores_what_collapsed_searches_report(table):
    (row,) = np.flatnonzero((table.ops == 1).all(1))
    np.testing.assert_allclose(table.test[row], [54.30, 15.61, 16.32], atol=5e-3)
    np.testing.assert_allclose(table.test_seed888[row], [39.98, 15.62, 15.87], atol=5e-3)


def test_the_mean_is_over_the_stored_seeds(table):
    np.testing.assert_allclose(table.test[0, 0], (85.62 + 86.18 + 85.79) / 3, atol=1e-2)
    np.testing.assert_allclose(table.valid[0, 0], (82.092 + 81.616 + 82.24) / 3, atol=1e-4)
    np.testing.assert_allclose(table.test[0, 1], (51.98 + 53.68 + 53.08) / 3, atol=1e-2)
    np.testing.assert_allclose(table.test_seed888[0, 1:], [53.68, 25.77], atol=1e-2)


def test_counts_are_the_published_ones():
    ops = np.array([tables.ANCHORS[0], tables.ANCHORS[11], (3,) * 6, (1,) * 6])
    params = tables.count_params(ops)
    assert params[:, 0].tolist() == [129_306, 802_426, 1_531_546, 73_306]
    assert params[:2].tolist() == [[129_306, 135_156, 136_456], [802_426, 808_276, 809_576]]
    assert tables.count_flops(ops)[0, 0] == 7_943_872 + 2 * 4_362_240 + 1_290_240
    columns = ((10, 32), (100, 32), (120, 16))  # classes and pixels a side
    official = [[flops(cell, classes=n, size=side) for n, side in columns] for cell in ops[:2]]
    assert official == [
        [15_647_370, 15_653_220, 3_919_480],
        [113_951_370, 113_957_220, 28_495_480],
    ]


def test_the_names_of_cells_are_read_edge_by_edge():
    best = (
        "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|"
        "+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"
    )
    assert tables.parse_cell(best) == tables.ANCHORS[6111]


@pytest.mark.parametrize(
    "name", ["", "|none~0|", "|max_pool~0|+|none~0|none~1|+|none~0|none~1|none~2|", "|a~b|"]
)
def test_what_is_no_cell_is_refused(name):
    with pytest.raises(ValueError, match=r"name|index|invalid"):
        tables.parse_cell(name)


def _swap_rows(arrays):
    for array in arrays.values():
        array[[5, 11]] = array[[11, 5]]


def _repeat_row(arrays):
    for array in arrays.values():
        array[7] = array[8]


def _set(key, value):
    def change(arrays):
        arrays[key][3, 1] = value

    return change


def _drop_row(arrays):
    arrays["valid"] = arrays["valid"][1:]


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (_swap_rows, r"not in the official order \(row 11 differs\)"),
        (_repeat_row, "15624 distinct cells"),
        (_drop_row, r"`valid` is \[15624, 3\], not \[15625, 3\]"),
        (_set("ops", 5), "`ops` must be integers within 0..4"),
        (_set("test", 100.5), "`test` holds values that are no percentages"),
        (_set("valid", np.nan), "`valid` holds values that are no percentages"),
        (_set("test_12", -1), "`test_12` holds"),
        (_set("params", 1), "`params` disagrees with the cells"),
        (_set("flops", 1), "`flops` disagrees with the cells"),
        (lambda arrays: arrays.pop("flops"), "it lacks flops"),
    ],
)
def test_a_table_that_would_answer_wrong_is_refused(table, tmp_path, change, cause):
    arrays = {key: getattr(table, key).copy() for key in tables.KEYS}
    change(arrays)
    np.savez(tmp_path / "changed.npz", **arrays)
    with pytest.raises(DataError, match=rf"changed\.npz: .*{cause}"):
        tables.nas_bench_201(tmp_path / "changed.npz")


def test_missing_twelve_epoch_numbers_are_allowed(table, tmp_path):
    arrays = {key: getattr(table, key).copy() for key in tables.KEYS}
    arrays["valid_12"][:, 1:] = np.nan
    np.savez(tmp_path / "older.npz", **arrays)
    assert np.isnan(tables.nas_bench_201(tmp_path / "older.npz").valid_12[:, 1:]).all()


def test_an_absent_table_says_how_to_make_it(folder):
    with pytest.raises(DataError, match="import_official"):
        tables.nas_bench_201()
