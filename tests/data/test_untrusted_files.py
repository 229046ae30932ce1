import gzip
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from jaxnas.data.dataset import DataError
from jaxnas.data.files import read_bytes, read_npz, unpickle, write_atomic

HERE = Path("some.pickle")


def _load(raw, **options):
    return unpickle(io.BytesIO(raw), HERE, "Fetch it again.", **options)


class Hostile:
    """Would make a folder when unpickled."""

    def __init__(self, target, call=os.mkdir):
        self.target, self.call = target, call

    def __reduce__(self):
        return self.call, (self.target,)


@pytest.mark.parametrize("call", [os.mkdir, os.system, eval, exec, getattr, __import__])
@pytest.mark.parametrize("tensors", [False, True])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, call, tensors):
    target = tmp_path / "made"
    text = f"__import__('os').mkdir({str(target)!r})"
    argument = {os.mkdir: str(target), os.system: f"mkdir {target}"}.get(call, text)
    raw = pickle.dumps({"data": [Hostile(argument, call)]})
    with pytest.raises(DataError, match=r"some\.pickle: its pickle is refused .*asks for"):
        _load(raw, tensors=tensors)
    assert not target.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_containers_and_arrays_come_back_at_every_protocol(protocol):
    content = OrderedDict(
        a=np.arange(6, dtype=np.uint8).reshape(2, 3), b=[1, 2.5, "x"], c={"d"}, e=np.float64(3)
    )
    back = _load(pickle.dumps(content, protocol))
    np.testing.assert_array_equal(back["a"], content["a"])
    assert (back["b"], back["c"], back["e"]) == ([1, 2.5, "x"], {"d"}, 3.0)


def test_bytes_are_rebuilt_with_one_encoding_only():
    raw = pickle.dumps(b"\xff", 2)
    assert _load(raw) == b"\xff"
    with pytest.raises(DataError, match="it encodes bytes as"):
        _load(raw.replace(b"latin1", b"utf-16"))


@pytest.mark.parametrize("keep", [0, 1, 10, -1])
def test_a_truncated_pickle_is_a_data_error(keep):
    raw = pickle.dumps({"a": np.arange(100)})
    with pytest.raises(DataError, match="refused or damaged"):
        _load(raw[:keep])


def test_tensors_are_read_over_only_on_request():
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n"
    storage = b"((S'storage'\nctorch\nFloatStorage\nS'0'\nS'cpu'\nI1\ntQ"
    raw = b"(dS'acc'\nF91.5\nsS'weight'\n" + rebuild + storage + b"I0\n))tRs."
    assert _load(raw, tensors=True) == {"acc": 91.5, "weight": None}
    with pytest.raises(DataError, match="torch"):
        _load(raw)


def test_gzip_is_told_by_content(tmp_path):
    path = tmp_path / "plainly_named"
    path.write_bytes(gzip.compress(b"hello"))
    assert read_bytes(path, "") == b"hello"


def test_a_truncated_gzip_names_the_path_and_the_cause(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes(1000))[:-6])
    with pytest.raises(DataError, match=r"a\.gz: it cannot be read whole .*Fetch it\."):
        read_bytes(path, "Fetch it.")


def test_a_damaged_npz_is_a_data_error(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(1000))
    whole = path.read_bytes()
    assert read_npz(path, ["x"], "")["x"][5] == 5
    with pytest.raises(DataError, match="it lacks y"):
        read_npz(path, ["x", "y"], "")
    path.write_bytes(whole[:-10])
    with pytest.raises(DataError, match="not a complete npz"):
        read_npz(path, ["x"], "")
    path.write_bytes(whole[:500] + b"\x55" + whole[501:])
    with pytest.raises(DataError, match="damaged"):
        read_npz(path, ["x"], "")


def test_an_npz_whose_header_is_no_literal_is_a_data_error(tmp_path):
    path, header = tmp_path / "a.npz", io.BytesIO()
    np.save(header, np.arange(3))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", header.getvalue().replace(b"'shape': (3,)", b"'shape': (3, "))
    with pytest.raises(DataError, match="damaged"):
        read_npz(path, ["x"], "")


def test_an_npz_with_pickled_objects_is_refused(tmp_path):
    path, target = tmp_path / "a.npz", tmp_path / "made"
    np.savez(path, x=np.array([Hostile(str(target))], dtype=object))
    with pytest.raises(DataError, match="damaged"):
        read_npz(path, ["x"], "")
    assert not target.exists()


def test_a_failed_write_leaves_neither_half_a_file_nor_a_changed_one(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def fail(file):
        file.write(b"half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomic(path, fail)
    assert [one.name for one in tmp_path.iterdir()] == ["a"]
    assert path.read_bytes() == b"old"
    write_atomic(path, lambda file: file.write(b"new") and None)
    assert path.read_bytes() == b"new"
