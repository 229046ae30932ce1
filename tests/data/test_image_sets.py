"""Readers of image sets, on tiny files written here in the official formats."""

import gzip
import hashlib
import io
import os
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxnas.data import images, jpeg_pack
from jaxnas.data.dataset import DataError, cache_folder

ROWS = 6
PATTERN = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The official layouts with a handful of rows a file."""
    ten = replace(images.CIFAR10, train_rows=ROWS, test_rows=ROWS)
    monkeypatch.setattr(images, "CIFAR10", ten)
    hundred = replace(images.CIFAR100, train_rows=ROWS, test_rows=ROWS)
    monkeypatch.setattr(images, "CIFAR100", hundred)
    monkeypatch.setattr(images, "CIFAR_HELD_OUT", 2)
    counts = images.Counts(train=ROWS, test=ROWS, held_out=2)
    monkeypatch.setattr(images, "MNIST_COUNTS", counts)
    monkeypatch.setattr(images, "FASHION_COUNTS", counts)


def _cifar_content(layout):
    """Random pixels [N, 32, 32, 3] and labels for each file, training files first."""
    names = (*layout.train, layout.test)
    rng = np.random.default_rng(1)
    return {
        name: (
            rng.integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8),
            rng.integers(0, layout.classes, ROWS, dtype=np.uint8),
        )
        for name in names
    }


def _planes(x):
    return x.transpose(0, 3, 1, 2).reshape(len(x), -1)


def _python_files(layout):
    """The pickled version as bytes; protocol 2 and bytes as keys, as Python 2 wrote it."""
    return {
        name: pickle.dumps(
            {
                b"data": _planes(x),
                layout.label.encode(): y.tolist(),
                b"coarse_labels": [99] * len(y),
            },
            protocol=2,
        )
        for name, (x, y) in _cifar_content(layout).items()
    }


def _binary_files(layout):
    """The binary version as bytes; a coarse label before the fine one in CIFAR-100."""
    files = {}
    for name, (x, y) in _cifar_content(layout).items():
        labels = np.full((ROWS, layout.label_bytes), 19, np.uint8)
        labels[:, -1] = y
        files[f"{name}.bin"] = np.concatenate([labels, _planes(x)], axis=1).tobytes()
    return files


def _write_folder(path: Path, files):
    path.mkdir(parents=True)
    for name, raw in files.items():
        (path / name).write_bytes(raw)


def _write_tar(path: Path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in {"readme.html": b"", **files}.items():
            member = tarfile.TarInfo(f"some-folder/{name}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))


@pytest.mark.parametrize("number", [10, 100])
@pytest.mark.parametrize(("make", "kind"), [(_python_files, "python"), (_binary_files, "binary")])
@pytest.mark.parametrize(("write", "place"), [(_write_folder, 0), (_write_tar, 1)])
def test_every_version_of_cifar_gives_the_same_pixels_and_labels(
    folder, number, make, kind, write, place
):
    layout = images.CIFAR10 if number == 10 else images.CIFAR100
    write(folder / getattr(layout, kind)[place], make(layout))
    data = images.cifar10() if number == 10 else images.cifar100()
    content = list(_cifar_content(layout).values())
    x = np.concatenate([pixels for pixels, _ in content[:-1]])
    y = np.concatenate([labels for _, labels in content[:-1]])
    np.testing.assert_array_equal(np.concatenate([data.train.x, data.valid.x]), x)
    np.testing.assert_array_equal(np.concatenate([data.train.y, data.valid.y]), y)
    np.testing.assert_array_equal(data.test.x, content[-1][0])
    np.testing.assert_array_equal(data.test.y, content[-1][1])
    assert (len(data.valid.y), data.note, len(data.classes)) == (2, "", number)
    assert data.train.y.dtype == np.int32


def test_a_folder_given_by_name_is_the_only_one_searched(folder, tmp_path):
    _write_folder(tmp_path / "other" / images.CIFAR10.python[0], _python_files(images.CIFAR10))
    with pytest.raises(DataError, match="CIFAR-10: not found in"):
        images.cifar10()
    assert len(images.cifar10(tmp_path / "other").test.y) == ROWS


def test_a_truncated_archive_names_the_path_and_the_cause(folder):
    path = folder / "cifar-10-binary.tar.gz"
    _write_tar(path, _binary_files(images.CIFAR10))
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz: the archive is truncated"):
        images.cifar10()


@pytest.mark.parametrize(
    "raw", [b"", b"no archive at all" * 100, gzip.compress(b"no tar" * 500, mtime=0)]
)
def test_something_else_under_the_name_of_an_archive_is_a_data_error(folder, raw):
    (folder / "cifar-10-python.tar.gz").write_bytes(raw)
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz: the archive"):
        images.cifar10()


def test_an_archive_without_a_batch_names_it(folder):
    files = _python_files(images.CIFAR10)
    del files["data_batch_3"]
    _write_tar(folder / "cifar-10-python.tar.gz", files)
    with pytest.raises(DataError, match="lacks data_batch_3"):
        images.cifar10()


def test_a_folder_without_a_batch_names_it(folder):
    files = _python_files(images.CIFAR10)
    del files["test_batch"]
    _write_folder(folder / "cifar-10-batches-py", files)
    with pytest.raises(DataError, match=r"cifar-10-batches-py.test_batch"):
        images.cifar10()


def test_a_link_in_place_of_a_batch_is_not_followed(folder):
    path = folder / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name in (*images.CIFAR10.train, images.CIFAR10.test):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/hostname"
            archive.addfile(member)
    with pytest.raises(DataError, match="lacks data_batch_1"):
        images.cifar10()


class _Payload:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("write", [_write_folder, _write_tar])
def test_a_batch_that_is_a_hostile_pickle_is_refused_and_not_run(folder, tmp_path, write):
    target = tmp_path / "made"
    files = _python_files(images.CIFAR10)
    files["data_batch_2"] = pickle.dumps(_Payload(f"touch {target}"), 2)
    write(folder / images.CIFAR10.python[write is _write_tar], files)
    with pytest.raises(DataError, match=r"data_batch_2: its pickle is refused .*system"):
        images.cifar10()
    assert not target.exists()


@pytest.mark.parametrize(
    ("batch", "cause"),
    [
        ([1, 2], "no CIFAR batch"),
        ({b"data": np.zeros((ROWS, 3072), np.uint8)}, "no CIFAR batch"),
        ({b"data": np.zeros((ROWS, 3072)), b"labels": [0] * ROWS}, r"its data are float64"),
        ({b"data": np.zeros((ROWS, 9), np.uint8), b"labels": [0] * ROWS}, r"not uint8\[N, 3072\]"),
        ({b"data": np.zeros((5, 3072), np.uint8), b"labels": [0] * 5}, "6 of each were expected"),
        ({b"data": np.zeros((6, 3072), np.uint8), b"labels": [10] * 6}, "run from 10 to 10"),
        ({b"data": np.zeros((6, 3072), np.uint8), b"labels": ["a"] * 6}, "not integers"),
    ],
)
def test_a_pickle_that_is_no_batch_names_the_cause(folder, batch, cause):
    files = _python_files(images.CIFAR10) | {"data_batch_1": pickle.dumps(batch, 2)}
    _write_folder(folder / "cifar-10-batches-py", files)
    with pytest.raises(DataError, match=cause):
        images.cifar10()


def test_a_binary_file_of_the_wrong_size_names_both_sizes(folder):
    files = _binary_files(images.CIFAR10)
    files["data_batch_4.bin"] = files["data_batch_4.bin"][:-1]
    _write_folder(folder / "cifar-10-batches-bin", files)
    with pytest.raises(DataError, match=r"data_batch_4\.bin: it holds 18437 bytes, 6 rows of 3073"):
        images.cifar10()


def _jpeg(pixels):
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _write_pack(path, **changes):
    """A pack of flat colours, which JPEG keeps almost exactly."""
    arrays = {}
    for part, count in (("train", 7), ("test", 3)):
        x = np.arange(count, dtype=np.uint8)[:, None, None, None] * 20
        files = [_jpeg(np.broadcast_to(one, (32, 32, 3)).copy()) for one in x]
        arrays[f"{part}_blob"] = np.frombuffer(b"".join(files), np.uint8)
        arrays[f"{part}_off"] = np.cumsum([0, *map(len, files)])
        arrays[f"{part}_y"] = np.arange(count, dtype=np.uint8)
    np.savez(path, **{key: changes.get(key, value) for key, value in arrays.items()})
    return arrays


def test_the_jpeg_pack_is_decoded_and_says_that_it_is_lossy(folder):
    _write_pack(folder / "cifar10_jpeg.npz")
    data = images.cifar10()
    assert "lossy JPEG" in data.note
    means = np.concatenate([data.train.x, data.valid.x]).mean((1, 2, 3))
    np.testing.assert_allclose(means, np.arange(7) * 20, atol=1.5)
    assert data.test.y.tolist() == [0, 1, 2]


def test_decoded_pixels_are_kept_under_the_fingerprint_of_the_pack(folder, monkeypatch):
    path = folder / "cifar10_jpeg.npz"
    _write_pack(path)
    first = images.cifar10()
    (kept,) = cache_folder().iterdir()
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] in kept.name
    monkeypatch.setattr(jpeg_pack, "_decode", lambda *_: pytest.fail("decoded again"))
    np.testing.assert_array_equal(images.cifar10().train.x, first.train.x)


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", None])
def test_damaged_kept_pixels_are_decoded_again(folder, damage):
    _write_pack(folder / "cifar10_jpeg.npz")
    first = images.cifar10()
    (kept,) = cache_folder().iterdir()
    kept.write_bytes(kept.read_bytes()[:-100] if damage is None else damage)
    np.testing.assert_array_equal(images.cifar10().train.x, first.train.x)


def test_an_unwritable_cache_only_costs_time(folder, monkeypatch):
    _write_pack(folder / "cifar10_jpeg.npz")
    blocked = folder / "a_file"
    blocked.touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert len(images.cifar10().test.y) == 3


def test_a_lossless_version_is_preferred_to_the_jpeg_pack(folder):
    _write_pack(folder / "cifar10_jpeg.npz")
    _write_folder(folder / "cifar-10-batches-bin", _binary_files(images.CIFAR10))
    assert images.cifar10().note == ""


def test_a_broken_jpeg_is_named_by_its_number(folder):
    path = folder / "cifar10_jpeg.npz"
    arrays = _write_pack(path)
    blob, start = arrays["train_blob"].copy(), int(arrays["train_off"][2])
    blob[start : start + 40] = 0
    _write_pack(path, train_blob=blob)
    with pytest.raises(DataError, match=r"cifar10_jpeg\.npz: train image 2 is no whole JPEG"):
        images.cifar10()
    assert not cache_folder().exists()


def test_a_pack_with_a_truncated_or_oversized_jpeg_is_refused(folder):
    path = folder / "cifar10_jpeg.npz"
    arrays = _write_pack(path)
    cut = arrays["test_off"].copy()
    cut[1] -= 200
    _write_pack(path, test_off=cut)
    with pytest.raises(DataError, match="test image"):
        images.cifar10()
    big = np.frombuffer(_jpeg(np.zeros((40, 32, 3), np.uint8)), np.uint8)
    _write_pack(path, test_blob=big, test_off=np.array([0, len(big)]), test_y=np.array([0]))
    with pytest.raises(DataError, match=r"test image 0 is \[40, 32, 3\]"):
        images.cifar10()


def test_offsets_that_do_not_fit_are_refused(folder):
    path = folder / "cifar10_jpeg.npz"
    arrays = _write_pack(path)
    _write_pack(path, train_off=arrays["train_off"][:-1])
    with pytest.raises(DataError, match="`train_off` holds 7 offsets"):
        images.cifar10()


def _idx(array, magic=None):
    header = struct.pack(f">{1 + array.ndim}I", magic or 0x800 | array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def _idx_files(rows=ROWS):
    files = {}
    for seed, part in enumerate(("train", "t10k")):
        rng = np.random.default_rng(seed)
        files[f"{part}-images-idx3-ubyte"] = _idx(rng.integers(0, 256, (rows, 28, 28)))
        files[f"{part}-labels-idx1-ubyte"] = _idx(np.arange(rows) % 10)
    return files


@pytest.mark.parametrize("where", ["mnist", "MNIST/raw", "fashion-mnist", "FashionMNIST/raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_idx_files_are_read_gzipped_or_not(folder, where, packed):
    files = _idx_files()
    if packed:
        files = {f"{name}.gz": gzip.compress(raw, mtime=0) for name, raw in files.items()}
    _write_folder(folder / where, files)
    data = images.fashion_mnist() if where.lower().startswith("fashion") else images.mnist()
    pixels = np.random.default_rng(0).integers(0, 256, (ROWS, 28, 28, 1))
    np.testing.assert_array_equal(np.concatenate([data.train.x, data.valid.x]), pixels)
    assert data.test.y.tolist() == list(range(ROWS))
    assert data.note == ""


def test_loose_idx_files_are_read_only_where_the_caller_points(folder):
    for name, raw in _idx_files().items():
        (folder / name).write_bytes(raw)
    with pytest.raises(DataError, match="not found"):
        images.mnist()
    assert len(images.mnist(folder).test.y) == ROWS
    assert len(images.fashion_mnist(folder).test.y) == ROWS


def test_a_truncated_idx_file_names_the_path_and_the_cause(folder):
    files = _idx_files()
    name = "train-images-idx3-ubyte"
    files[name] = files[name][:-1]
    _write_folder(folder / "mnist", files)
    with pytest.raises(DataError, match=rf"mnist.{name}: it holds 4703 bytes of data, .*4704"):
        images.mnist()


def test_a_truncated_gzip_of_an_idx_file_names_the_path_and_the_cause(folder):
    files = {f"{name}.gz": gzip.compress(raw, mtime=0)[:-20] for name, raw in _idx_files().items()}
    _write_folder(folder / "fashion-mnist", files)
    with pytest.raises(DataError, match=r"idx3-ubyte\.gz: it cannot be read whole"):
        images.fashion_mnist()


@pytest.mark.parametrize(
    ("name", "raw", "cause"),
    [
        ("train-images-idx3-ubyte", b"\0\0\x08", "ends after 3 bytes, inside its header"),
        (
            "train-images-idx3-ubyte",
            _idx(np.zeros((6, 28, 28)), magic=0x0D03),
            r"its magic number is 3331, not 2051 \(unsigned bytes, 3 axes\)",
        ),
        ("t10k-labels-idx1-ubyte", _idx(np.zeros((6, 1))), "its magic number is 2050, not 2049"),
        ("t10k-images-idx3-ubyte", _idx(np.zeros((6, 14, 56))), r"its images are \[14, 56\]"),
        ("t10k-labels-idx1-ubyte", _idx(np.zeros(5)), "6 examples and 5 labels"),
        ("train-labels-idx1-ubyte", _idx(np.full(6, 10)), "labels run from 10 to 10"),
    ],
)
def test_an_idx_file_that_is_not_what_its_name_says_names_the_cause(folder, name, raw, cause):
    _write_folder(folder / "mnist", _idx_files() | {name: raw})
    with pytest.raises(DataError, match=cause):
        images.mnist()


def test_a_missing_companion_is_named(folder):
    files = _idx_files()
    del files["t10k-labels-idx1-ubyte"]
    _write_folder(folder / "mnist", files)
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte: it is missing"):
        images.mnist()


def test_mnist_npz_with_part_of_the_test_set_says_so(folder):
    x, y = np.zeros((ROWS, 28, 28), np.uint8), np.arange(ROWS)
    np.savez(folder / "mnist.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])
    assert images.mnist().note == "first 4 of 6 test images"
    np.savez(folder / "mnist.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    assert images.mnist().note == ""
    np.savez(folder / "mnist.npz", x_train=x, y_train=y, x_test=x[:, :5], y_test=y)
    with pytest.raises(DataError, match=r"`x_test` is uint8\[6, 5, 28\]"):
        images.mnist()


def test_the_sample_of_cifar_splits_3200_400_400(folder):
    x = np.zeros((4000, 32, 32, 3), np.uint8)
    x[:, 0, 0, 0] = np.arange(4000) % 251
    np.savez(folder / "cifar10_lossless4000.npz", x=x, y=np.arange(4000) % 10)
    data = images.cifar10_4000()
    assert [len(split.y) for split in (data.train, data.valid, data.test)] == [3200, 400, 400]
    assert data.test.x[0, 0, 0, 0] == 3600 % 251
    assert "not CIFAR-10's test set" in data.note
    np.savez(folder / "cifar10_lossless4000.npz", x=x[:99], y=np.zeros(99, int))
    with pytest.raises(DataError, match="4000 of each were expected"):
        images.cifar10_4000()


@pytest.mark.parametrize(
    ("files", "load"),
    [
        (("mnist.npz",), images.mnist),
        (("fashion-mnist/train-images-idx3-ubyte.gz",), images.fashion_mnist),
        (("cifar10_lossless4000.npz",), images.cifar10_4000),
    ],
)
def test_the_stated_mean_and_deviation_are_those_of_the_real_images(real, monkeypatch, files, load):
    real(files[0])
    monkeypatch.setattr(images, "MNIST_COUNTS", images.Counts())
    monkeypatch.setattr(images, "FASHION_COUNTS", images.Counts())
    data = load()
    x = np.concatenate([data.train.x, data.valid.x]).reshape(-1, len(data.mean)) / np.float64(255)
    sample = 3e-3 if data.name == "cifar10_4000" else 1e-7
    np.testing.assert_allclose(x.mean(0), data.mean, atol=sample)
    np.testing.assert_allclose(x.std(0), data.std, atol=sample)


def test_validation_held_out_of_real_images_holds_every_class(real, monkeypatch):
    monkeypatch.setattr(images, "MNIST_COUNTS", images.Counts())
    for name, load in (("mnist.npz", images.mnist), (images.SAMPLE, images.cifar10_4000)):
        real(name)
        counts = np.bincount(load().valid.y, minlength=10)
        assert counts.min() > 0.6 * counts.mean()


def test_a_pack_sorted_by_class_is_dealt_out_one_of_each_class_in_turn():
    y = np.repeat(np.arange(3, dtype=np.int32), [4, 2, 3])
    dealt = jpeg_pack._dealt(images.Split(np.arange(9), y))
    assert dealt.y.tolist() == [0, 1, 2, 0, 1, 2, 0, 2, 0]
    assert dealt.x.tolist() == [0, 4, 6, 1, 5, 7, 2, 8, 3]


def test_the_real_jpeg_pack_agrees_with_the_lossless_sample(real):
    pack, sample = real(jpeg_pack.NAME), real(images.SAMPLE)
    arrays, exact = dict(np.load(pack)), dict(np.load(sample))
    offsets, blob = arrays["train_off"], arrays["train_blob"].tobytes()
    errors = []
    for label in range(10):
        # Within a class the pack keeps the official order.
        ours, theirs = (np.flatnonzero(y == label)[:10] for y in (arrays["train_y"], exact["y"]))
        for row, official in zip(ours, theirs, strict=True):
            raw = blob[offsets[row] : offsets[row + 1]]
            pixels = jpeg_pack._decode_one(raw, pack, "image", "").astype(np.float64)
            errors.append(np.square(pixels - exact["x"][official]).mean())
    assert 29 < np.median(10 * np.log10(255**2 / np.array(errors))) < 32
