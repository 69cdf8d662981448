"""The text part of a model that sees: everywhere the same, and kept whole by fuse."""

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora import cli, lora, models
from jaxlora.io import tensors
from jaxlora.models import adapters, beside, pretrained, replaced_leaves

RUN = jax.jit(models.apply, static_argnums=0)
TOKENS = np.array([[5, 9, 17, 200, 33]], np.int32)
TOWER = "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj"
OLD = {
    "model": "language_model.model",
    "lm_head": "language_model.lm_head",
    "tower": TOWER,
}
NEW = {"model": "model.language_model", "lm_head": "lm_head", "tower": f"model.{TOWER}"}


def seeing(folder, hf, names):
    """A tiny Gemma 3 with a tower of one layer, as transformers 4 or 5 names it."""
    shutil.copytree(hf / "gemma3_text" / "base", folder)
    raw = json.loads((folder / "config.json").read_text())
    raw = {"model_type": "gemma3", "text_config": raw, "dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(raw))
    path = folder / "model.safetensors"
    stored = {}
    for name, values in load_file(path).items():
        head, rest = name.split(".", 1)
        stored[f"{names[head]}.{rest}"] = values
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((32, 32)).astype(np.float16)
    stored[f"{names['tower']}.weight"] = weight
    stored[names["tower"].replace("q_proj", "position_ids")] = np.arange(3)[None]
    save_file(stored, path)
    return folder


def with_tower(folder, hf, names):
    """An adapter on q_proj and v_proj everywhere, the tower included."""
    shutil.copytree(hf / "gemma3_text" / "plain", folder)
    path = folder / "adapter_model.safetensors"
    stored = {
        key.replace("base_model.model.model", f"base_model.model.{names['model']}"): x
        for key, x in load_file(path).items()
    }
    key = f"base_model.model.{names['tower']}.lora_"
    stored[f"{key}A.weight"] = np.ones((8, 32), np.float32)
    stored[f"{key}B.weight"] = np.ones((32, 8), np.float32)
    save_file(stored, path)
    return folder


def run(folder, adapter=None):
    model, base = pretrained.load(folder)
    adapted = {} if adapter is None else {"adapter": adapters.load(adapter, base)}
    return np.asarray(RUN(model, base, TOKENS, **adapted))


@pytest.mark.parametrize("names", [OLD, NEW], ids=["old", "new"])
def test_vision_factors_are_left_out_and_fuse_keeps_the_tower(
    hf, tmp_path, names, capsys
):
    base = seeing(tmp_path / "base", hf, names)
    adapter = with_tower(tmp_path / "adapter", hf, names)
    want = run(hf / "gemma3_text" / "base", hf / "gemma3_text" / "plain")
    np.testing.assert_array_equal(run(base, adapter), want)
    assert np.abs(want - run(base)).max() > 0.1

    out = tmp_path / "fused"
    assert cli.main(["fuse", str(base), str(adapter), "--out", str(out)]) == 0
    assert "they are left out" in capsys.readouterr().err.replace("\n", " ")
    np.testing.assert_allclose(run(out), want, atol=1e-4)
    before, after = (tensors.open_folder(x) for x in (base, out))
    assert {x: e.shape for x, e in before.entries.items()} == {
        x: e.shape for x, e in after.entries.items()
    }
    tower = load_file(base / "model.safetensors"), load_file(out / "model.safetensors")
    kept = [name for name in tower[0] if "vision_tower" in name]
    assert len(kept) == 2
    for name in kept:
        assert tower[0][name].dtype == tower[1][name].dtype
        np.testing.assert_array_equal(tower[0][name], tower[1][name])
    raw = json.loads((out / "config.json").read_text())
    assert raw["model_type"] == "gemma3"
    assert raw["text_config"]["model_type"] == "gemma3_text"


def test_an_adapter_of_the_tower_alone_is_refused(hf, tmp_path):
    base = seeing(tmp_path / "base", hf, NEW)
    adapter = with_tower(tmp_path / "adapter", hf, NEW)
    path = adapter / "adapter_model.safetensors"
    save_file({x: y for x, y in load_file(path).items() if "tower" in x}, path)
    with pytest.raises(ValueError, match="nothing else than parts that see or hear"):
        run(base, adapter)


@pytest.mark.parametrize("names", [OLD, NEW], ids=["old", "new"])
def test_a_head_that_leaves_its_table_and_a_resized_vocabulary_are_written(
    hf, tmp_path, names
):
    folder = seeing(tmp_path / "base", hf, names)
    path = folder / "config.json"
    raw = json.loads(path.read_text())
    raw["quantization_config"] = {"load_in_8bit": True}
    path.write_text(json.dumps(raw))
    path, module = folder / "model.safetensors", names["tower"]
    stored, bytes_ = load_file(path), np.arange(1024).astype(np.int8).reshape(32, 32)
    scales = np.linspace(1, 2, 32).astype(np.float32)
    stored |= {f"{module}.weight": bytes_, f"{module}.SCB": scales}
    save_file(stored, path)
    model, base = pretrained.load(folder)
    model, base = replaced_leaves.untie(model, base)
    table = np.pad(base["embed"]["embedding"], ((0, 3), (0, 0)))
    base |= {"embed": {"embedding": table}, "head": 2 * table.T}
    config = dataclasses.replace(model.config, vocab_size=len(table))
    pretrained.save(tmp_path / "out", models.Decoder(config), base, like=folder)

    assert f"{names['lm_head']}.weight" in load_file(tmp_path / "out/model.safetensors")
    _, again = pretrained.load(tmp_path / "out")
    np.testing.assert_array_equal(again["head"], base["head"])
    np.testing.assert_array_equal(again["embed"]["embedding"], table)
    raw = json.loads((tmp_path / "out/config.json").read_text())
    assert raw["text_config"]["vocab_size"] == len(table)
    assert "quantization_config" not in raw
    got = tensors.open_folder(tmp_path / "out").read(f"{module}.weight")
    want = bytes_.astype(np.float32) * scales[:, None] / 127
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_qwen_keeps_what_sees_and_what_drafts(tmp_path):
    data = pathlib.Path(__file__).parents[1] / "data" / "families" / "qwen3_5_text"
    plain = load_file(data / "base" / "model.safetensors")
    others = {
        "model.visual.blocks.0.attn.qkv.weight": np.ones((6, 2), np.float16),
        "mtp.fc.weight": np.full((4, 8), 2, np.float16),
        "mtp.layers.0.self_attn.q_proj.weight": np.zeros((4, 4), np.float16),
    }
    folder, out = tmp_path / "base", tmp_path / "out"
    shutil.copytree(data / "base", folder)
    wrapped = {
        x.replace("model.", "model.language_model."): y for x, y in plain.items()
    }
    save_file(wrapped | others, folder / "model.safetensors")
    raw = json.loads((folder / "config.json").read_text())
    outer = {"model_type": "qwen3_5", "text_config": raw, "vision_config": {"depth": 1}}
    (folder / "config.json").write_text(json.dumps(outer))
    words = ["fuse", folder, data / "adapter1", "--out", out]
    assert cli.main([str(word) for word in words]) == 0
    assert "mtp, visual is not computed here" in next(beside.notes(folder))
    after = load_file(out / "model.safetensors")
    assert set(after) == {*wrapped, *others}
    for name, values in others.items():
        np.testing.assert_array_equal(after[name], values)
    _, base = pretrained.load(data / "base")
    want = lora.fuse(base, adapters.load(data / "adapter1", base))
    for ours, theirs in zip(
        *map(jax.tree.leaves, (pretrained.load(out)[1], want)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    raw = json.loads((out / "config.json").read_text())
    assert raw["vision_config"] == {"depth": 1}
    assert raw["text_config"]["model_type"] == "qwen3_5_text"
