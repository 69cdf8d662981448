"""MLPs of a mixture that lie in one tensor: the same decoder as of many tensors."""

import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora.io import mixtures, quantised, tensors
from jaxlora.models import pretrained

BASE = pathlib.Path(__file__).parents[1] / "data/families/qwen3_5_moe_text/base"
_NAME = re.compile(r"(.+\.experts)\.(\d+)\.(\w+)\.weight")


def joined(stored):
    """The tensors of a checkpoint with the MLPs of a layer in two."""
    out, parts = {}, {}
    for name, values in stored.items():
        match = _NAME.fullmatch(name)
        if match is None:
            out[name] = values
        else:
            parts.setdefault((match[1], match[3]), {})[int(match[2])] = values
    for (module, name), each in parts.items():
        parts[module, name] = np.stack([each[i] for i in range(len(each))])
    for module in {module for module, _ in parts}:
        both = [parts[module, f"{x}_proj"] for x in ("gate", "up")]
        out[f"{module}.gate_up_proj"] = np.concatenate(both, axis=1)
        out[f"{module}.down_proj"] = parts[module, "down_proj"]
    return out


@pytest.fixture
def folder(tmp_path):
    """The checkpoint so stored, within one that sees."""
    shutil.copytree(BASE, tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    few = joined(load_file(path))
    assert len(few) == len(load_file(BASE / path.name)) - 2 * (5 * 3 - 2)
    wrapped = {x.replace("model.", "model.language_model."): y for x, y in few.items()}
    save_file(wrapped | {"model.visual.x.weight": np.ones(3, np.float32)}, path)
    raw = json.loads((BASE / "config.json").read_text())
    outer = {"model_type": "qwen3_5_moe", "text_config": raw}
    (tmp_path / "base" / "config.json").write_text(json.dumps(outer))
    return tmp_path / "base"


def test_one_tensor_is_read_as_many(folder):
    taken = mixtures.apart(tensors.open_folder(folder))
    for name, values in load_file(BASE / "model.safetensors").items():
        here = name.replace("model.", "model.language_model.")
        np.testing.assert_array_equal(taken.read(here, finite=True), values)


@pytest.mark.slow
def test_a_decoder_of_such_tensors_is_written_as_any_other(folder, tmp_path):
    model, base = pretrained.load(folder)
    _, want = pretrained.load(BASE)
    jax.tree.map(np.testing.assert_array_equal, base, want)
    pretrained.save(tmp_path / "out", model, base, like=folder)
    written = load_file(tmp_path / "out" / "model.safetensors")
    plain = {x.replace("language_model.", "") for x in written}
    assert plain == {*load_file(BASE / "model.safetensors"), "model.visual.x.weight"}


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("down_proj", np.ones((2, 3), np.float32), r"F32 of the shape \(2, 3\)"),
        ("gate_up_proj", np.ones((2, 3, 4), np.float32), r"shape \(2, 3, 4\)"),
        ("down_proj", np.ones((2, 3, 4), np.int8), "I8 of the shape"),
    ],
)
def test_what_is_no_matrix_for_each_is_refused(name, values, message, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({f"model.layers.0.mlp.experts.{name}": values}, path)
    with pytest.raises(ValueError, match=message):
        mixtures.apart(tensors.open_folder(tmp_path))


def test_two_forms_of_one_tensor_are_refused(tmp_path):
    module = "model.layers.0.mlp.experts"
    names = f"{module}.down_proj", f"{module}.1.down_proj.weight"
    values = np.ones((2, 3, 4), np.float32), np.ones((3, 4), np.float32)
    save_file(dict(zip(names, values, strict=True)), tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"1\.down_proj\.weight' twice"):
        mixtures.apart(tensors.open_folder(tmp_path))


def test_such_tensors_may_lie_beside_quantised_ones(tmp_path):
    packed = load_file(BASE.parents[2] / "quantised" / "int8" / "model.safetensors")
    values = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    several = {"model.layers.0.mlp.experts.down_proj": values}
    save_file(packed | several, tmp_path / "model.safetensors")
    stored = quantised.opened(tensors.open_folder(tmp_path))
    taken = mixtures.apart(stored)
    name = "model.layers.0.mlp.experts.1.down_proj.weight"
    np.testing.assert_array_equal(taken.read(name), values[1])
    name = "model.layers.0.self_attn.q_proj.weight"
    np.testing.assert_array_equal(taken.read(name), stored.read(name))
    assert taken.read(name).dtype == np.float32


def test_numbers_that_are_none_are_named(tmp_path):
    values = np.ones((2, 3, 4), np.float32)
    values[1, 2, 3] = np.nan
    name = "model.layers.0.mlp.experts.down_proj"
    save_file({name: values}, tmp_path / "model.safetensors")
    taken = mixtures.apart(tensors.open_folder(tmp_path))
    first, second = (f"{name[:-10]}.{i}.down_proj.weight" for i in (0, 1))
    np.testing.assert_array_equal(taken.read(first, finite=True), values[0])
    with pytest.raises(ValueError, match=r"1\.down_proj\.weight' holds NaN"):
        taken.read(second, finite=True)
