import json
import struct

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxlora.io import tensors

A = np.arange(6, dtype=np.float32).reshape(2, 3)


def raw_file(path, header, data=b""):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def sharded(folder):
    """Two shards with an index, as transformers writes them."""
    save_file({"a": A}, folder / "model-00001-of-00002.safetensors")
    save_file({"b": A + 1}, folder / "model-00002-of-00002.safetensors")
    places = {
        "a": "model-00001-of-00002.safetensors",
        "b": "model-00002-of-00002.safetensors",
    }
    write_index(folder, places)
    return places


def write_index(folder, places):
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_float_types_are_read_as_stored(tmp_path, dtype):
    save_file({"a": A.astype(dtype)}, tmp_path / "model.safetensors")
    read = tensors.open_folder(tmp_path).read("a")
    assert read.dtype == dtype
    np.testing.assert_array_equal(read.astype(np.float32), A)


def test_headers_alone_are_read_on_opening(tmp_path):
    save_file({"a": A}, tmp_path / "model.safetensors")
    found = tensors.open_folder(tmp_path)
    assert found.entries["a"] == tensors.Entry((2, 3), "F32")
    assert found.entries["a"].nbytes == 24
    # What is read later is what is there later.
    save_file({"a": A + 1}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(found.read("a"), A + 1)


def test_shards_are_one_checkpoint(tmp_path):
    sharded(tmp_path)
    found = tensors.open_folder(tmp_path)
    assert set(found.entries) == {"a", "b"}
    np.testing.assert_array_equal(found.read("a"), A)
    np.testing.assert_array_equal(found.read("b"), A + 1)


def test_missing_shard(tmp_path):
    sharded(tmp_path)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"lacks 1 of 2 shards .*model-00002-of-00002"):
        tensors.open_folder(tmp_path)


def test_index_names_a_tensor_that_its_shard_lacks(tmp_path):
    places = sharded(tmp_path)
    write_index(tmp_path, places | {"c": "model-00001-of-00002.safetensors"})
    with pytest.raises(ValueError, match=r"places tensor 'c' in model-00001"):
        tensors.open_folder(tmp_path)


@pytest.mark.parametrize(
    "places", [{}, {"a": "../x"}, {"a": 3}, {"a": ".."}, [1], None]
)
def test_index_without_a_weight_map(tmp_path, places):
    write_index(tmp_path, places)
    with pytest.raises(ValueError, match="no weight_map"):
        tensors.open_folder(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00\xff", "[" * 100_000])
def test_json_that_is_none(tmp_path, text):
    (tmp_path / "x.json").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=r"x\.json"):
        tensors.read_json(tmp_path / "x.json")


def test_json_too_large(tmp_path):
    (tmp_path / "x.json").write_text('{"a": "' + "x" * 100 + '"}')
    with pytest.raises(ValueError, match="more than 50 bytes"):
        tensors.read_json(tmp_path / "x.json", limit=50)


def test_no_folder(tmp_path):
    with pytest.raises(ValueError, match="There is no folder"):
        tensors.open_folder(tmp_path / "none")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt"])
def test_pickles_are_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ValueError, match=f"only {name}: pickles can run code"):
        tensors.open_folder(tmp_path)


def test_empty_folder(tmp_path):
    with pytest.raises(ValueError, match=r"no model.safetensors; it holds nothing"):
        tensors.open_folder(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_file_cut_short(tmp_path, keep):
    path = tmp_path / "model.safetensors"
    save_file({"a": A}, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        ValueError, match=r"not a readable safetensors file: .*cut short"
    ):
        tensors.open_folder(tmp_path)


@pytest.mark.parametrize(
    ("begins", "cause"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "placeholder"),
        (b"<!DOCTYPE html><html>Not found</html>", "page of the web"),
        (b"GGUF\x03\x00\x00\x00", "file of GGUF"),
        (b"PK\x03\x04data.pkl", "zip file, as torch.save"),
    ],
)
def test_other_files_are_called_what_they_are(tmp_path, begins, cause):
    (tmp_path / "model.safetensors").write_bytes(begins)
    with pytest.raises(ValueError, match=f"model.safetensors is no .*{cause}"):
        tensors.open_folder(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "nbytes"),
    [("I8", 4), ("U8", 4), ("F8_E4M3", 4), ("F8_E5M2", 4), ("F4", 2), ("I32", 16)],
)
def test_quantised_types_are_refused(tmp_path, dtype, nbytes):
    header = {"a": {"dtype": dtype, "shape": [2, 2], "data_offsets": [0, nbytes]}}
    raw_file(tmp_path / "model.safetensors", header, bytes(nbytes))
    found = tensors.open_folder(tmp_path)
    with pytest.raises(ValueError, match=f"stored as {dtype}, .*quantised"):
        found.read("a")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path, bad):
    values = A.astype(np.float16)
    values[1, 1] = bad
    save_file({"a": values}, tmp_path / "model.safetensors")
    found = tensors.open_folder(tmp_path)
    assert not np.isfinite(found.read("a")).all()
    with pytest.raises(ValueError, match=r"'a' .* NaN or infinity"):
        found.read("a", finite=True)


def test_shards_that_no_index_or_another_names(tmp_path):
    save_file({"a": A}, tmp_path / "model-00001-of-00002.safetensors")
    with pytest.raises(ValueError, match=r"has shards .* but no model.safetensors.ind"):
        tensors.open_folder(tmp_path)
    text = json.dumps({"weight_map": {"a": "model-00001-of-00003.safetensors"}})
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=r"which it does not name: .* of other weight"):
        tensors.open_folder(tmp_path)


def test_floats_of_64_bits_become_32(tmp_path):
    save_file({"a": A.astype(np.float64) * (1 + 1e-12)}, tmp_path / "model.safetensors")
    read = tensors.open_folder(tmp_path).read("a", finite=True)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, A)
    save_file({"a": np.full((2, 3), 1e300)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="NaN or infinity"):
        tensors.open_folder(tmp_path).read("a", finite=True)
