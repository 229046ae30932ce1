import json

import numpy as np
import pytest

from jaxnas.data.dataset import DataError
from jaxnas.data.safetensors import read_safetensors


def packed(header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def entry(dtype, shape, *offsets):
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


def test_tensors_come_back_in_their_dtypes_and_shapes(tmp_path):
    path = tmp_path / "a.safetensors"
    half = np.array([1.5, -2.0], np.float16)
    numbers = np.arange(6, dtype=np.int64).reshape(3, 2)
    header = {
        "__metadata__": {"format": "pt"},
        "numbers": entry("I64", [3, 2], 5, 53),
        "flag": entry("BOOL", [], 4, 5),
        "half": entry("F16", [2], 0, 4),
        "empty": entry("F32", [0, 7], 53, 53),
    }
    path.write_bytes(packed(header, half.tobytes() + b"\1" + numbers.tobytes()))
    tensors = read_safetensors(path, "")
    np.testing.assert_array_equal(tensors["numbers"], numbers, strict=True)
    np.testing.assert_array_equal(tensors["half"], half, strict=True)
    assert tensors["flag"].shape == ()
    assert bool(tensors["flag"])
    assert tensors["empty"].shape == (0, 7)
    assert not tensors["numbers"].flags.writeable


def test_bfloat16_comes_as_the_float32_of_the_same_value(tmp_path):
    path = tmp_path / "a.safetensors"
    values = np.array([1.0, -2.5, 3.0e38, 0.0, np.inf], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    path.write_bytes(packed({"x": entry("BF16", [5], 0, 10)}, bits.tobytes()))
    back = read_safetensors(path, "")["x"]
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, values, rtol=2**-8)
    np.testing.assert_array_equal(back[[0, 1, 3, 4]], values[[0, 1, 3, 4]])


EIGHT = bytes(8)


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (b"", "a header of 0 bytes does not fit 0 bytes"),
        (b"\2\0\0", "a header of 2 bytes does not fit 3 bytes"),
        (b"\xff" * 8 + b"{}", "a header of 18446744073709551615 bytes does not fit 10 bytes"),
        (packed(b"{"), "no complete safetensors file"),
        (packed(b"\xff\xff"), "no complete safetensors file"),
        (packed(b"[" * 100_000), "no complete safetensors file"),
        (packed([1]), "its header is no table"),
        (packed({"x": 1}), "the entry of 'x' is 1"),
        (packed({"x": {"dtype": "F32"}}, EIGHT), "the entry of 'x'"),
        (packed({"x": entry("F4", [2], 0, 8)}, EIGHT), "the entry of 'x'"),
        (packed({"x": entry(["F32"], [2], 0, 8)}, EIGHT), "the entry of 'x'"),
        (packed({"x": entry("F32", [3], 0, 8)}, EIGHT), "the entry of 'x'"),
        (packed({"x": entry("F32", [-1, -2], 0, 8)}, EIGHT), "the entry of 'x'"),
        (packed({"x": entry("F32", [2.0], 0, 8)}, EIGHT), "the entry of 'x'"),
        (packed({"x": entry("F32", [True, 2], 0, 8)}, EIGHT), "the entry of 'x'"),
        (packed({"x": entry("F32", [2], 0, 8, 9)}, EIGHT), "the entry of 'x'"),
        (packed({"x": entry("F32", [2], -8, 0)}, EIGHT), "the entry of 'x'"),
        (packed({"x": entry("F32", [2], 0, 8)}, EIGHT[:7]), "do not fill its 7 bytes"),
        (packed({"x": entry("F32", [2], 0, 8)}, EIGHT + EIGHT), "do not fill its 16 bytes"),
        (packed({"x": entry("F32", [2], 8, 16)}, EIGHT + EIGHT), "do not fill its 16 bytes"),
        (
            packed(
                {"x": entry("F32", [2], 0, 8), "y": entry("F32", [2], 4, 12)}, EIGHT + EIGHT[:4]
            ),
            "do not fill its 12 bytes",
        ),
        (packed({"x": entry("F32", [2**62, 2], 0, 2**65)}, EIGHT), "do not fill its 8 bytes"),
    ],
)
def test_a_file_whose_header_does_not_fit_it_is_refused(tmp_path, raw, cause):
    path = tmp_path / "a.safetensors"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=rf"a\.safetensors: .*{cause}.*Fetch it\."):
        read_safetensors(path, "Fetch it.")


def test_an_absent_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match="no complete safetensors file"):
        read_safetensors(tmp_path / "absent", "")
