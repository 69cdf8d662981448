"""Adapters of one model whose files name its modules in different ways."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora import merge
from jaxlora.io import (
    collection,
    collection_about,
    collection_beside,
    collection_out,
    peft,
)
from jaxlora.merge import groups

LLAMA = Path(__file__).parents[1] / "data" / "hf" / "llama"
PEFT = "base_model.model."
Q0 = "model.layers.0.self_attn.q_proj"
WRAPPED = {
    "compile_outer": lambda key: f"_orig_mod.{key}",
    "compile_inner": lambda key: key.replace(PEFT, f"{PEFT}_orig_mod."),
    "ddp": lambda key: f"module.{key}",
    "fsdp": lambda key: key.replace(".mlp", "._fsdp_wrapped_module.mlp"),
    "fsdp_of_factors": lambda key: key.replace(
        ".weight", "._fsdp_wrapped_module.weight"
    ),
    "checkpointed": lambda key: key.replace(".0.", ".0._checkpoint_wrapped_module."),
    "twice": lambda key: PEFT + key,
    "value_head": lambda key: f"pretrained_model.{key}",
    "lightning": lambda key: f"model.{key}",
    "actor": lambda key: f"actor.module.{key}",
    "fabric": lambda key: f"_forward_module._orig_mod.{key}",
}


def respelled(folder, name, key, **config):
    """A copy of an adapter whose tensors have other names."""
    shutil.copytree(LLAMA / name, folder)
    path = folder / "adapter_model.safetensors"
    save_file({key(x): values for x, values in load_file(path).items()}, path)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def vision(key):
    return key.replace(f"{PEFT}model.", f"{PEFT}model.language_model.")


def automodel(key):
    return key.replace(f"{PEFT}model.", PEFT)


def deltas(folder):
    modules = peft.read(folder).modules
    return {path: x.scale * (x.b @ x.a) for path, x in modules.items()}


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("name", ["plain", "pattern"])
def test_names_of_wrappers_are_no_names_of_modules(tmp_path, wrapper, name):
    folder = respelled(tmp_path / "x", name, WRAPPED[wrapper])
    theirs, ours = deltas(folder), deltas(LLAMA / name)
    assert theirs.keys() == ours.keys()
    for path, delta in ours.items():
        np.testing.assert_array_equal(theirs[path], delta)


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": [f"_orig_mod.{Q0}"], "rank_pattern": {f"_orig_mod.{Q0}": 8}},
        {"target_modules": [Q0], "rank_pattern": {Q0: 8}, "r": 4},
        {"target_modules": r"model\.layers\.0\..*q_proj", "alpha_pattern": {Q0: 16}},
        {"target_modules": r"_orig_mod\.model\..*", "exclude_modules": r"model\.x\..*"},
    ],
)
def test_a_config_may_mean_the_plain_or_the_wrapped_name(tmp_path, fields):
    key = WRAPPED["compile_inner"]
    folder = respelled(tmp_path / "x", "plain", key, **fields)
    path = folder / "adapter_model.safetensors"
    save_file({x: y for x, y in load_file(path).items() if Q0 in x}, path)
    (module,) = peft.read(folder).modules.items()
    assert module[0] == Q0
    assert (module[1].a.shape[0], module[1].scale) == (8, 2.0)


def merged(tmp_path, folders):
    library = collection.open_folders(folders)
    source = groups.Source(library.library, library.shapes)
    mean = merge.preset("mean")
    with collection_out.writing(tmp_path / "merged", library) as write_site:
        for site, _, weight in groups.each(mean, source, [0.5, 0.5]):
            write_site(site, weight)
    return library, tmp_path / "merged"


@pytest.mark.parametrize("key", [vision, automodel, WRAPPED["ddp"]])
@pytest.mark.parametrize("turned", [False, True])
def test_two_spellings_of_one_module_are_one_module(tmp_path, key, turned):
    folders = [LLAMA / "plain", respelled(tmp_path / "b", "plain2", key)]
    library, out = merged(tmp_path, folders[::-1] if turned else folders)
    one, two, both = deltas(LLAMA / "plain"), deltas(LLAMA / "plain2"), deltas(out)
    assert both.keys() == one.keys()
    for path, delta in both.items():
        np.testing.assert_allclose(delta, 0.5 * one[path] + 0.5 * two[path], atol=1e-6)
    notes = [x for x in collection_about.notes(library) if "in 2 ways" in x]
    assert len(notes) == (key is not WRAPPED["ddp"])


@pytest.mark.parametrize(
    ("key", "around"), [(vision, "language_model."), (automodel, "")]
)
def test_a_spelling_that_all_share_is_kept(tmp_path, key, around):
    pair = [respelled(tmp_path / x, x, key) for x in ("plain", "plain2")]
    _, out = merged(tmp_path, pair)
    stored = load_file(out / "adapter_model.safetensors")
    assert key(f"{PEFT}{Q0}.lora_A.weight") in stored
    assert len(stored) == 28


def test_with_vision_factors_names_are_those_of_the_vision_model(tmp_path):
    tower = f"{PEFT}model.vision_tower.encoder.layers.0.self_attn.q_proj.lora_"
    seeing = respelled(tmp_path / "b", "plain2", vision)
    path = seeing / "adapter_model.safetensors"
    stored = load_file(path)
    factors = {
        f"{tower}A.weight": np.ones((8, 32)),
        f"{tower}B.weight": np.ones((32, 8)),
    }
    save_file(stored | {x: y.astype(np.float32) for x, y in factors.items()}, path)
    _, out = merged(tmp_path, [LLAMA / "plain", seeing])
    keys = load_file(out / "adapter_model.safetensors").keys()
    assert {x.split(".")[3] for x in keys} == {"language_model", "vision_tower"}
    assert len(keys) == 30


def biased(folder, name, key, tower):
    """An adapter that replaces a bias of what it adapts, a norm, and a head."""
    tensors = {f"{Q0}.base_layer.bias": 64, "model.norm.weight": 32}
    tensors = {f"{PEFT}{x}": np.ones(n, np.float32) for x, n in tensors.items()}
    tensors[f"{PEFT}lm_head.weight"] = np.ones((3, 32), np.float32)
    saved = [key(f"{PEFT}model.norm").removeprefix(PEFT), "lm_head"]
    config = {"modules_to_save": saved, "bias": "lora_only"}
    respelled(folder, name, lambda x: x, **config)
    path = folder / "adapter_model.safetensors"
    stored = {key(x): y for x, y in (load_file(path) | tensors).items()}
    if tower:
        seen = f"{PEFT}model.vision_tower.encoder.layers.0.self_attn.q_proj.lora_"
        stored[f"{seen}A.weight"] = np.ones((8, 32), np.float32)
        stored[f"{seen}B.weight"] = np.ones((32, 8), np.float32)
    save_file(stored, path)
    return folder


@pytest.mark.parametrize("tower", [False, True])
def test_what_is_replaced_is_named_as_modules_are(tmp_path, tower):
    folders = [
        biased(tmp_path / "a", "plain", vision, tower),
        biased(tmp_path / "b", "plain2", automodel, False),
    ]
    library = collection.open_folders(folders)
    beside, _ = collection_beside.of_merge(("a", "b"), library.files, (0.5, 0.5))
    source = groups.Source(library.library, library.shapes)
    with collection_out.writing(tmp_path / "out", library, beside) as write_site:
        for site, _, weight in groups.each(merge.preset("mean"), source, [0.5, 0.5]):
            write_site(site, weight)
    keys = {*load_file(tmp_path / "out" / "adapter_model.safetensors")}
    around = "model.language_model." if tower else "model."
    assert (
        f"{PEFT}{Q0}.lora_A.weight".replace("model.layers", f"{around}layers") in keys
    )
    assert {x for x in keys if "lora_" not in x} == {
        f"{PEFT}{around}layers.0.self_attn.q_proj.base_layer.bias",
        f"{PEFT}{around}norm.weight",
        f"{PEFT}lm_head.weight",
    }
    assert len(peft.open_folder(tmp_path / "out").replaced) == 3


def test_one_file_with_a_module_under_two_names_is_refused(tmp_path):
    folder = respelled(tmp_path / "x", "plain", lambda key: key)
    path = folder / "adapter_model.safetensors"
    stored = load_file(path)
    save_file(stored | {vision(x): y for x, y in stored.items()}, path)
    with pytest.raises(ValueError, match=r"are both lora_[AB] of .*, expected one"):
        peft.read(folder)
