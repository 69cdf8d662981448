"""Folders that hold weights twice."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxlora.io import adapter_folders, tensors, weight_sets

A = np.arange(6, dtype=np.float32).reshape(2, 3)
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
FIRST, SECOND = (f"model-0000{i}-of-00002.safetensors" for i in (1, 2))


def index_of(folder, *files):
    places = {f"a{i}": file for i, file in enumerate(files)}
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))


def test_the_single_file_is_read_and_that_is_said(tmp_path):
    save_file({"a0": A}, tmp_path / SINGLE)
    index_of(tmp_path, FIRST)
    np.testing.assert_array_equal(tensors.open_folder(tmp_path).read("a0"), A)
    (note,) = weight_sets.notes(tmp_path)
    assert f"twice: {SINGLE} is read, as transformers" in note
    assert note.endswith(f"{INDEX}, which names 1 other files ({FIRST} not there).")
    save_file({"a0": A + 1}, tmp_path / FIRST)
    np.testing.assert_array_equal(tensors.open_folder(tmp_path).read("a0"), A)
    (note,) = weight_sets.notes(tmp_path)
    assert note.endswith(f"other files and {FIRST}.")
    (tmp_path / SINGLE).unlink()
    np.testing.assert_array_equal(tensors.open_folder(tmp_path).read("a0"), A + 1)
    assert not list(weight_sets.notes(tmp_path))


@pytest.mark.parametrize(
    "other",
    ["consolidated.safetensors", "model.fp16.safetensors", "pytorch_model.bin", SECOND],
)
def test_files_beside_the_ones_that_are_read(tmp_path, other):
    save_file({"a0": A}, tmp_path / FIRST)
    index_of(tmp_path, FIRST)
    (tmp_path / other).write_bytes(b"x")
    (tmp_path / "training_args.bin").write_bytes(b"x")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    (note,) = weight_sets.notes(tmp_path)
    assert f"{INDEX}, of 1 files, is read" in note
    assert note.endswith(f"not {other}.")


@pytest.mark.parametrize("text", ["{no json", "{}", "[]", '{"weight_map": 3}'])
def test_a_damaged_index_beside_the_single_file_is_not_needed(tmp_path, text):
    save_file({"a0": A}, tmp_path / SINGLE)
    (tmp_path / INDEX).write_text(text)
    (note,) = weight_sets.notes(tmp_path)
    assert note.endswith(f"{INDEX}, which is damaged.")


def test_an_index_of_the_single_file_is_no_second_set(tmp_path):
    save_file({"a0": A}, tmp_path / SINGLE)
    index_of(tmp_path, SINGLE)
    assert not list(weight_sets.notes(tmp_path))


def test_adapters_have_second_sets_too(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    for name in ("adapter_model.safetensors", "adapter_model.bin"):
        (tmp_path / name).write_bytes(b"x")
    (note,) = adapter_folders.notes([tmp_path])
    assert "adapter_model.safetensors is read" in note
    assert note.endswith("not adapter_model.bin.")
    (tmp_path / "adapter_model.safetensors").unlink()
    assert not list(adapter_folders.notes([tmp_path]))
