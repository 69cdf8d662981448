import json
import struct
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora.io import header, tensors

A = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
B = {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]}


def write(path, head, data=bytes(32), length=None):
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    size = struct.pack("<Q", len(text) if length is None else length)
    path.write_bytes(size + text + data)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.safetensors"


def test_values_are_those_of_the_library(path):
    rng = np.random.default_rng(0)
    values = {
        "a.b": rng.standard_normal((3, 5)).astype(np.float32),
        "é": rng.standard_normal(7).astype(np.float16),
        "c": rng.standard_normal((2, 1, 2)).astype(ml_dtypes.bfloat16),
        "empty": np.zeros((0, 4), np.float32),
        "one": np.array(3, np.float32),
    }
    save_file(values, path, metadata={"format": "pt"})
    found = tensors.open_file(path)
    assert found.entries.keys() == values.keys()
    for name, expected in load_file(path).items():
        got = found.read(name)
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(got, expected)


def test_order_and_gaps(path):
    write(path, {"b": B, "a": A, "__metadata__": {"x": "y"}})
    assert list(header.read(path)) == ["b", "a"]


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ({"a": A}, "its tensors end at byte .*, but the file has"),
        ({"a": A, "b": B | {"data_offsets": [16, 24]}}, "'b' begins at byte"),
        ({"a": A, "b": B | {"data_offsets": [25, 33]}}, "'b' begins at byte"),
        ({"a": A | {"shape": [2, 4]}}, r"'a' has the shape \(2, 4\) of F32.* 32 bytes"),
        ({"a": A | {"shape": [2**40, 2**40]}}, r"data_offsets \[0, 24\]"),
        ({"a": A | {"shape": [2**63, 2]}}, "no shape of up to 8 whole"),
        ({"a": A | {"shape": [-2, -3]}}, "no shape of up to 8 whole"),
        ({"a": A | {"shape": [True, 6]}}, "no shape of up to 8 whole"),
        ({"a": A | {"shape": [2.0, 3]}}, "no shape of up to 8 whole"),
        ({"a": A | {"shape": [1] * 100 + [6]}}, "no shape of up to 8 whole"),
        ({"a": A | {"shape": None}}, "no shape of up to 8 whole"),
        ({"a": A | {"data_offsets": [24, 0]}}, r"data_offsets \[24, 0\]"),
        ({"a": A | {"data_offsets": [-8, 16]}}, "no data_offsets of two"),
        ({"a": A | {"data_offsets": [0, 2**64]}}, "no data_offsets of two"),
        ({"a": A | {"data_offsets": [0]}}, "no data_offsets of two"),
        ({"a": A | {"dtype": "F33"}}, "dtype 'F33', which is unknown"),
        ({"a": A | {"dtype": ["F32"]}}, "which is unknown"),
        ({"a": A | {"more": 1}}, "no dtype, shape and data_offsets, and only these"),
        ({"a": [A]}, "no dtype, shape and data_offsets"),
        ({"a\x00": A}, r"'a\\x00' has no name"),
        ({"a\ud800": A}, "has no name"),
        ({"a" * 1001: A}, "has no name of up to 1000"),
        ({"a": A, "__metadata__": {"x": 1}}, "__metadata__ is no object of strings"),
        ({"a": A, "__metadata__": []}, "__metadata__ is no object of strings"),
        ([A], "its header is a list, expected an object"),
        (b'{"a": 1, "a": 2}', "no JSON in UTF-8 .*'a' is there twice"),
        (b'{"\xff\xfe": 1}', "no JSON in UTF-8 .*can't decode"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON in UTF-8"),
        (b'{"a": ' + b"[" * 100_000, "no JSON in UTF-8"),
        (b"[" * 300_000, "nests or lists more than 262144"),
        (b'{"a": {"dtype": "F32"', "no JSON in UTF-8"),
        (b"", "its header says it has 0 bytes"),
    ],
)
def test_headers_that_lie(path, head, message):
    with pytest.raises(ValueError, match=message) as caught:
        header.read(write(path, head))
    text = str(caught.value)
    assert text.startswith(f"{path} is not a readable safetensors file: ")
    assert len(text) < 700


@pytest.mark.parametrize("length", [4 * 2**30, 2**64 - 1, 10**9, 2**23 + 1, 1000])
def test_nothing_is_allocated_for_a_length_that_lies(path, length):
    write(path, {"a": A}, length=length)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=f"says it has {length} bytes, expected 2"):
            header.read(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_file_that_became_shorter(path):
    write(path, {"a": A, "b": B})
    found = tensors.open_file(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match="shorter than its header says"):
        found.read("b")


def test_json_with_one_key_twice(tmp_path):
    (tmp_path / "x.json").write_text('{"a": {"b": 1, "b": 2}}')
    with pytest.raises(ValueError, match="'b' is there twice"):
        tensors.read_json(tmp_path / "x.json")


def test_json_with_a_number_of_many_digits(tmp_path):
    (tmp_path / "x.json").write_text('{"a": ' + "9" * 5000 + "}")
    with pytest.raises(ValueError, match=r"x\.json is not JSON"):
        tensors.read_json(tmp_path / "x.json")
