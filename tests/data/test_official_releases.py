"""The importer, on small releases written here in the official layouts."""

import bz2
import io
import os
import pickle
import tarfile
import zipfile

import numpy as np
import pytest

from jaxnas.data import official, tables
from jaxnas.data.dataset import DataError, cache_folder

CELLS = [(4, 2, 1, 2, 1, 1), (3, 3, 4, 0, 3, 4), (1, 1, 1, 1, 1, 1)]
SPLITS = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
    "ImageNet16-120": ("x-valid", "x-test", "ori-test"),
}
SEEDS = {
    200: {dataset: [777, 888, 999] for dataset in SPLITS} | {"cifar10": [777, 999]},
    12: {dataset: [111] for dataset in SPLITS} | {"cifar10-valid": [111, 777]},
}


def _name(cell):
    a, b, c, d, e, f = (tables.OPERATIONS[op] for op in cell)
    return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def _accuracy(index, epochs, dataset, split, seed, epoch):
    """A number that differs wherever the importer could look in the wrong place."""
    place = 10 * list(SPLITS).index(dataset) + SPLITS[dataset].index(split)
    return 1 + index + place + seed / 10_000 + (epochs == 12) / 3 + epoch / 1000


def _record(index, cell, epochs):
    runs = {}
    for dataset, splits in SPLITS.items():
        for seed in SEEDS[epochs][dataset]:
            accuracies = {
                f"{split}@{epoch}": _accuracy(index, epochs, dataset, split, seed, epoch)
                for split in splits
                for epoch in (0, epochs - 1)
            }
            runs[dataset, seed] = {
                "name": dataset,
                "net_state_dict": None,
                "epochs": epochs,
                "seed": seed,
                "params": np.float64(0.1),
                "flop": 15.6,
                "eval_names": list(splits),
                "eval_acc1es": accuracies,
            }
    return {
        "arch_index": index,
        "arch_str": _name(cell),
        "all_results": runs,
        "dataset_seed": SEEDS[epochs],
        "clear_net_done": True,
    }


def _records(twelve="12", two_hundred="200"):
    return {
        index: {twelve: _record(index, cell, 12), two_hundred: _record(index, cell, 200)}
        for index, cell in enumerate(CELLS)
    }


def _whole(records):
    names = [_name(cell) for cell in CELLS]
    return {"meta_archs": names, "arch2infos": records, "evaluated_indexes": set(records)}


def _pack(path, content):
    path.write_bytes(bz2.compress(pickle.dumps(content, protocol=4)))


def _write_simple(tmp_path):
    path = tmp_path / "NATS-tss-v1_0-3ffb9-simple"
    path.mkdir()
    _pack(path / "meta.pickle.pbz2", _whole({}))
    for index, record in _records().items():
        _pack(path / f"{index:06d}.pickle.pbz2", record)
    return path


def _write_tar(tmp_path):
    simple = _write_simple(tmp_path)
    path = simple.with_suffix(".tar")
    with tarfile.open(path, "w") as archive:
        archive.add(simple, arcname=simple.name)
    return path


def _write_full(tmp_path):
    path = tmp_path / "NATS-tss-v1_0-3ffb9.pickle.pbz2"
    _pack(path, _whole(_records()))
    return path


def _torch_stream(content):
    """The format of PyTorch before 1.6: four pickles, the keys of storages, the storages."""
    sizes = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}
    parts = (official.TORCH_MAGIC, 1001, sizes, content, [])
    return b"".join(pickle.dumps(part, protocol=2) for part in parts)


def _write_old_torch(tmp_path):
    path = tmp_path / "NAS-Bench-201-v1_1-096897.pth"
    path.write_bytes(_torch_stream(_whole(_records("less", "full"))))
    return path


def _write_new_torch(tmp_path):
    path = tmp_path / "resaved.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("resaved/data.pkl", pickle.dumps(_whole(_records("less", "full")), 2))
        archive.writestr("resaved/version", "3")
    return path


LAYOUTS = [_write_simple, _write_tar, _write_full, _write_old_torch, _write_new_torch]


def _expected(epochs, columns, seed=None):
    return [
        [
            np.mean(
                [
                    _accuracy(index, epochs, dataset, split, one, epochs - 1)
                    for one in SEEDS[epochs][dataset]
                    if seed in (None, one)
                ]
            )
            for dataset, split in columns
        ]
        for index in range(len(CELLS))
    ]


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_layout_gives_the_means_of_the_right_splits(tmp_path, write):
    table = official.read_official(write(tmp_path))
    valid = [("cifar10-valid", "x-valid"), ("cifar100", "x-valid"), ("ImageNet16-120", "x-valid")]
    test = [("cifar10", "ori-test"), ("cifar100", "x-test"), ("ImageNet16-120", "x-test")]
    single = [("cifar10-valid", "ori-test"), *test[1:]]
    assert table.ops.tolist() == [list(cell) for cell in CELLS]
    np.testing.assert_allclose(table.valid, _expected(200, valid), rtol=1e-6)
    np.testing.assert_allclose(table.test, _expected(200, test), rtol=1e-6)
    np.testing.assert_allclose(table.valid_12, _expected(12, valid), rtol=1e-6)
    np.testing.assert_allclose(table.test_12, _expected(12, test), rtol=1e-6)
    np.testing.assert_allclose(table.test_seed888, _expected(200, single, 888), rtol=1e-6)
    assert table.params[:, 0].tolist() == [129_306, 802_426, 73_306]


def test_an_incomplete_release_is_not_imported(tmp_path, folder):
    with pytest.raises(DataError, match=r"`ops` is \[3, 6\], not \[15625, 6\]"):
        official.import_official(_write_full(tmp_path))
    assert not cache_folder().exists()


def test_the_real_table_survives_a_journey_through_the_official_layout(real, tmp_path):
    table = tables.nas_bench_201(real("nas_bench_201.npz"))

    def record(row, epochs, valid, test, half):
        last, seed = epochs - 1, 888
        values = {
            "cifar10-valid": {"x-valid": valid[row, 0], "ori-test": half[row, 0]},
            "cifar10": {"ori-test": test[row, 0]},
            "cifar100": {"x-valid": valid[row, 1], "x-test": test[row, 1]},
            "ImageNet16-120": {"x-valid": valid[row, 2], "x-test": test[row, 2]},
        }
        runs = {
            (dataset, seed): {
                "epochs": epochs,
                "eval_acc1es": {f"{split}@{last}": float(one) for split, one in splits.items()},
            }
            for dataset, splits in values.items()
        }
        return {"dataset_seed": {dataset: [seed] for dataset in values}, "all_results": runs}

    records = {
        row: {
            "less": record(row, 12, table.valid_12, table.test_12, table.test_12),
            "full": record(row, 200, table.valid, table.test, table.test_seed888),
        }
        for row in range(len(table.ops))
    }
    names = [_name(cell) for cell in table.ops.tolist()]
    path = tmp_path / "all.pth"
    path.write_bytes(_torch_stream({"meta_archs": names, "arch2infos": records}))
    back = tables.nas_bench_201(official.import_official(path))
    for key in ("ops", "valid", "test", "valid_12", "test_12", "params", "flops"):
        np.testing.assert_array_equal(getattr(back, key), getattr(table, key))
    np.testing.assert_array_equal(back.test_seed888[:, 0], table.test_seed888[:, 0])
    assert tables.nas_bench_201(cache_folder() / "nas_bench_201.npz").ops.shape == (15_625, 6)


def test_numbers_an_older_release_lacks_are_nan(tmp_path):
    content = _whole(_records("less", "full"))
    for record in content["arch2infos"].values():
        record["less"]["dataset_seed"] = {"cifar10-valid": [111, 777]}
    path = tmp_path / "NAS-Bench-201-v1_0-e61699.pth"
    path.write_bytes(_torch_stream(content))
    table = official.read_official(path)
    assert np.isfinite(table.valid_12[:, 0]).all()
    assert np.isnan(table.valid_12[:, 1:]).all()
    assert np.isnan(table.test_12).all()


class _Payload:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("layout", ["full", "simple", "old torch", "new torch"])
def test_a_release_with_code_in_it_is_refused_and_not_run(tmp_path, layout):
    target = tmp_path / "made"
    content = _whole({0: _Payload(f"touch {target}")})
    path = tmp_path / ("a.pth" if "torch" in layout else "a.pickle.pbz2")
    if layout == "full":
        _pack(path, content)
    elif layout == "simple":
        path = _write_simple(tmp_path)
        _pack(path / "000001.pickle.pbz2", content)
    elif layout == "old torch":
        path.write_bytes(_torch_stream(content))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", pickle.dumps(content))
    with pytest.raises(DataError, match="it asks for"):
        official.read_official(path)
    assert not target.exists()


@pytest.mark.parametrize("write", LAYOUTS[1:])
def test_a_truncated_release_is_a_data_error_that_names_it(tmp_path, write):
    path = write(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=path.name):
        official.read_official(path)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda record: record.pop("200"), "cell 1 is not recorded as expected .*'200'"),
        (lambda record: record["12"].pop("all_results"), "cell 1 .*all_results"),
        (lambda record: record["200"]["all_results"].clear(), "cell 1 .*KeyError"),
        (
            lambda record: record["200"]["all_results"]["cifar10", 777]["eval_acc1es"].clear(),
            "cell 1 .*ori-test@199",
        ),
        (
            lambda record: record["200"]["all_results"]["cifar10", 777].update(epochs=None),
            "cell 1 .*TypeError",
        ),
        (
            lambda record: record["200"]["all_results"]["cifar10", 777]["eval_acc1es"].update(
                {"ori-test@199": 1e300}
            ),
            "cell 1 .*no percentages",
        ),
    ],
)
def test_an_unexpected_record_names_the_cell(tmp_path, change, cause):
    path, record = _write_simple(tmp_path), _records()[1]
    change(record)
    _pack(path / "000001.pickle.pbz2", record)
    with pytest.raises(DataError, match=cause):
        official.read_official(path)


def test_what_is_missing_is_named(tmp_path):
    path = _write_simple(tmp_path)
    (path / "000002.pickle.pbz2").unlink()
    with pytest.raises(DataError, match=r"it lacks 000002\.pickle\.pbz2"):
        official.read_official(path)
    (path / "meta.pickle.pbz2").unlink()
    with pytest.raises(DataError, match=r"it lacks meta\.pickle\.pbz2"):
        official.read_official(path)
    with pytest.raises(DataError, match="does not exist"):
        official.read_official(tmp_path / "absent")
    full = tmp_path / "a.pickle.pbz2"
    _pack(full, {"meta_archs": []})
    with pytest.raises(DataError, match="lacks 'arch2infos'"):
        official.read_official(full)
    _pack(full, {"meta_archs": [], "arch2infos": {}})
    with pytest.raises(DataError, match="lists no cells"):
        official.read_official(full)


def test_another_kind_of_file_is_refused(tmp_path):
    other = tmp_path / "a.pth"
    other.write_bytes(pickle.dumps({"no": "magic"}))
    with pytest.raises(DataError, match="magic number"):
        official.read_official(other)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme", "")
    other.write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="no whole PyTorch file"):
        official.read_official(other)
    text = tmp_path / "a.txt"
    text.write_text("hello")
    with pytest.raises(DataError, match="no whole tar archive"):
        official.read_official(text)
