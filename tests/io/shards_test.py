import json

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from jaxlora.io import shards, tensors

VALUES = {
    "b.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a.weight": np.arange(4, dtype=np.float32),
    "half": np.arange(3).astype(ml_dtypes.bfloat16),
}
ENTRIES = {name: shards.entry_of(values) for name, values in VALUES.items()}


def test_file_is_the_one_of_the_library(tmp_path):
    shards.write_file(tmp_path / "ours", ENTRIES, VALUES.__getitem__)
    save_file(VALUES, tmp_path / "theirs", metadata={"format": "pt"})
    ours, theirs = (load_file(tmp_path / name) for name in ("ours", "theirs"))
    assert set(ours) == set(theirs)
    for name, values in theirs.items():
        assert ours[name].dtype == values.dtype
        np.testing.assert_array_equal(ours[name], values)
    with safe_open(tmp_path / "ours", "numpy") as file:
        assert file.metadata() == {"format": "pt"}  # transformers asks for it


def test_values_that_are_views_are_written_in_order(tmp_path):
    turned = np.arange(6, dtype=np.float32).reshape(2, 3).T
    entries = {"a": shards.entry_of(turned)}
    shards.write_file(tmp_path / "x", entries, lambda _: turned)
    np.testing.assert_array_equal(load_file(tmp_path / "x")["a"], turned)


def test_wider_types_come_first_so_that_all_are_aligned(tmp_path):
    values = {"a": VALUES["half"], "b": VALUES["b.weight"]}
    entries = {name: shards.entry_of(value) for name, value in values.items()}
    shards.write_file(tmp_path / "x", entries, values.__getitem__)
    data = (tmp_path / "x").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    assert (8 + size) % 8 == 0
    assert header["b"]["data_offsets"] == [0, 24]


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=12),
    st.integers(1, 20),
)
def test_shards_hold_everything_once_and_no_more_than_allowed(sizes, most):
    named = {str(i): size for i, size in enumerate(sizes)}
    groups = shards.shards(named, most)
    assert [name for _, group in groups for name in group] == list(named)
    for _, group in groups:
        assert sum(named[name] for name in group) <= most or len(group) == 1
    n = len(groups)
    if n > 1:
        assert [file for file, _ in groups] == [
            f"model-{i + 1:05d}-of-{n:05d}.safetensors" for i in range(n)
        ]


def test_folder_of_shards_is_read_back(tmp_path):
    shards.write_folder(tmp_path, ENTRIES, VALUES.__getitem__, max_shard_bytes=24)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 24 + 16 + 6
    assert set(index["weight_map"].values()) == {
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    }
    found = tensors.open_folder(tmp_path)
    assert found.entries == ENTRIES
    for name, values in VALUES.items():
        np.testing.assert_array_equal(found.read(name), values)


def test_one_file_has_no_index(tmp_path):
    shards.write_folder(tmp_path, ENTRIES, VALUES.__getitem__)
    assert [file.name for file in tmp_path.iterdir()] == ["model.safetensors"]


def test_type_that_is_no_weight():
    with pytest.raises(ValueError, match="int32, expected float32"):
        shards.entry_of(np.zeros(3, np.int32))


def test_folder_appears_whole(tmp_path):
    target = tmp_path / "deep" / "out"
    with shards.new_folder(target) as new:
        (new / "x").write_text("1")
        assert not target.exists()
    assert (target / "x").read_text() == "1"
    assert [path.name for path in target.parent.iterdir()] == ["out"]


def test_folder_that_fails_leaves_nothing(tmp_path):
    def fail():
        with shards.new_folder(tmp_path / "out") as new:
            (new / "x").write_text("1")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_empty_folder_is_taken_and_a_full_one_is_not(tmp_path):
    (tmp_path / "out").mkdir()
    with shards.new_folder(tmp_path / "out") as new:
        (new / "x").write_text("1")
    with (
        pytest.raises(ValueError, match="exists already"),
        shards.new_folder(tmp_path / "out"),
    ):
        pass
    assert (tmp_path / "out" / "x").read_text() == "1"
