import json
import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora.io import peft, peft_config

DATA = Path(__file__).parents[1] / "data" / "hf"
Q0 = "model.layers.0.self_attn.q_proj"
Q1 = "model.layers.1.self_attn.q_proj"
Q_ONE = {"target_modules": ["q_proj"], "layers_to_transform": [1]}
KEY = f"base_model.model.{Q0}.lora_A.weight"


@pytest.fixture
def plain(tmp_path):
    """A copy of an adapter of rank 8 on every linear layer."""
    return shutil.copytree(DATA / "llama" / "plain", tmp_path / "plain")


def configure(folder, **fields):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def replace(folder, *, without=(), **tensors):
    path = folder / "adapter_model.safetensors"
    values = load_file(path)
    save_file({k: x for k, x in values.items() if k not in without} | tensors, path)


@pytest.mark.parametrize("name", ["plain", "rslora", "pattern"])
def test_updates_by_numpy(name):
    folder = DATA / "llama" / name
    stored = load_file(folder / "adapter_model.safetensors")
    adapter = peft.read(folder)
    assert len(adapter.modules) == len(stored) // 2
    scale = {"plain": 16 / 8, "rslora": 4 / 8**0.5, "pattern": 8 / 4}[name]
    module = adapter.modules[Q0]
    assert module.scale == scale
    np.testing.assert_array_equal(module.a, stored[KEY])
    np.testing.assert_array_equal(module.b, stored[KEY.replace("_A", "_B")])


def test_patterns_give_each_module_its_rank_and_scale():
    modules = peft.read(DATA / "llama" / "pattern").modules
    found = {
        path.removeprefix("model.layers."): (module.a.shape[0], module.scale)
        for path, module in modules.items()
    }
    assert found == {
        "0.self_attn.q_proj": (4, 2.0),
        "1.self_attn.q_proj": (2, 4.0),
        "0.self_attn.v_proj": (4, 4.0),
        "1.self_attn.v_proj": (4, 4.0),
        "0.mlp.down_proj": (8, 1.0),
        "1.mlp.down_proj": (8, 1.0),
    }


@pytest.mark.parametrize(
    ("patterns", "path", "rank"),
    [
        ({"q_proj": 3}, Q0, 3),
        ({"proj": 3}, Q0, 8),  # a key matches from a dot, or in full
        ({"layers.1.self_attn.q_proj": 3}, Q0, 8),
        ({"q_proj": 3, Q0: 5}, Q0, 3),  # the first that matches
        ({Q0: 5, "q_proj": 3}, Q0, 5),
        ({r".*\.0\..*": 5}, Q0, 5),
        ({"layersX0.self_attn.q_proj": 5}, Q0, 8),
        ({"layers.0.self_attn.._proj": 5}, Q0, 5),
        ({"self_attn": 5}, Q0, 8),
        ({}, Q0, 8),
    ],
)
def test_first_key_that_matches_counts(patterns, path, rank):
    raw = {"rank_pattern": patterns}
    assert peft_config.rank_of(raw, path) == rank
    assert peft_config.scale_of(raw, path) == 8 / rank
    assert peft_config.scale_of({"alpha_pattern": patterns}, path) == rank / 8


def test_root_of_the_modules_own_rank():
    raw = {"rank_pattern": {"q_proj": 16}, "use_rslora": True, "lora_alpha": 12}
    assert peft_config.scale_of(raw, Q0) == 3.0


@pytest.mark.parametrize(
    ("fields", "path", "expected"),
    [
        ({"target_modules": ["q_proj"]}, Q0, True),
        ({"target_modules": ["proj"]}, Q0, False),
        ({"target_modules": [Q0]}, Q0, True),
        ({"target_modules": [Q0]}, Q1, False),
        ({"target_modules": "all-linear"}, Q0, True),
        ({"target_modules": r".*\.[qk]_proj"}, Q0, True),
        ({"target_modules": r".*layers\.1\..*"}, Q0, False),
        ({"target_modules": "q_proj"}, Q0, False),  # a string must match in full
        ({"target_modules": ["q_proj"], "exclude_modules": [Q0]}, Q0, False),
        ({"target_modules": ["q_proj"], "exclude_modules": r".*\.1\..*"}, Q0, True),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1]}, Q0, False),
        ({"target_modules": ["q_proj"], "layers_to_transform": 1}, Q1, True),
        ({"target_modules": ["q_proj"], "layers_to_transform": []}, Q1, True),
        (
            {
                "target_modules": ["q_proj"],
                "layers_to_transform": [1],
                "layers_pattern": "layers",
            },
            Q1,
            True,
        ),
        (
            {
                "target_modules": ["q_proj"],
                "layers_to_transform": [1],
                "layers_pattern": ["blocks"],
            },
            Q1,
            False,
        ),
        (Q_ONE | {"layers_pattern": "(layers|h)"}, Q1, True),
        ({"target_modules": None}, Q0, False),
    ],
)
def test_targets(fields, path, expected):
    assert peft_config.is_target(fields, path) is expected


def test_names_of_adapters_in_keys_and_folders(tmp_path, plain):
    values = load_file(plain / "adapter_model.safetensors")
    named = {key.replace(".weight", ".mine.weight"): x for key, x in values.items()}
    save_file(named, plain / "adapter_model.safetensors")
    assert peft.read(tmp_path).modules.keys() == peft.read(plain).modules.keys()
    shutil.copytree(plain, tmp_path / "other")
    with pytest.raises(ValueError, match=r"it holds several, .*: other, plain"):
        peft.read(tmp_path)
    assert Q0 in peft.read(tmp_path, name="other").modules
    with pytest.raises(ValueError, match="There is no folder"):
        peft.read(tmp_path, name="third")


def test_defaults_of_the_config(plain):
    config = {"peft_type": "LORA", "target_modules": "all-linear"}
    (plain / "adapter_config.json").write_text(json.dumps(config))
    assert peft.read(plain).modules[Q0].scale == 1.0


def test_half_is_read_as_float32_and_bfloat16_as_it_is(plain):
    values = load_file(plain / "adapter_model.safetensors")
    values = {
        k: x.astype(np.float16 if "_A" in k else ml_dtypes.bfloat16)
        for k, x in values.items()
    }
    save_file(values, plain / "adapter_model.safetensors")
    module = peft.read(plain).modules[Q0]
    assert module.a.dtype == np.float32
    assert module.b.dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(
    "fields",
    [
        {"peft_type": "IA3"},
        {"use_dora": True},
        {"lora_bias": True},
        {"bias": "all"},
        {"bias": "lora_only"},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [1, 2]},
        {"target_parameters": ["experts.up"]},
        {"layer_replication": [[0, 1], [0, 1]]},
        {"alora_invocation_tokens": [5]},
        {"kasa_config": {"a": 1}},
        {"use_qalora": True},
        {"use_bdlora": {"nblocks": 2}},
        {"arrow_config": {"top_k": 2}},
        {"monteclora_config": {"a": 1}},
        {"fan_in_fan_out": True},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "corda"},
        {"init_lora_weights": "lora_ga"},
        {"init_lora_weights": "loftq"},
        {"init_lora_weights": "new"},
    ],
    ids=lambda fields: "-".join(map(str, next(iter(fields.items()))))[:30],
)
def test_more_than_a_low_rank_update_is_refused_by_name(plain, fields):
    configure(plain, **fields)
    with pytest.raises(ValueError, match=f"{next(iter(fields))} "):
        peft.read(plain)


def test_dora_is_refused():
    with pytest.raises(ValueError, match="use_dora True: DoRA"):
        peft.read(DATA / "llama" / "dora")


@pytest.mark.parametrize("init", [True, False, None, "gaussian", "eva", "orthogonal"])
def test_initial_values_that_leave_the_base_alone(plain, init):
    configure(plain, init_lora_weights=init, megatron_config=None, loftq_config={})
    assert Q0 in peft.read(plain).modules


ONE = np.ones((1, 1), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model.model.model.embed_tokens.lora_embedding_A": ONE}, "an embedding"),
        ({KEY.replace("lora_A.weight", "lora_magnitude_vector"): ONE}, "DoRA"),
        ({KEY.replace("lora_A.weight", "lora_B.bias"): ONE}, "lora_bias"),
        ({"base_model.model.lm_head.weight": ONE}, "a whole weight"),
        ({KEY.replace("lora_A", "lora_C"): ONE}, "not lora_A or lora_B"),
        ({"without": [KEY]}, f"lora_B of '{Q0}' alone"),
        ({KEY.replace(".weight", ".x.weight"): ONE}, r"adapters \['None', 'x'\]"),
        ({KEY: np.ones((7, 64), np.float32)}, rf"{Q0}' have the shapes \(7, 64\)"),
        ({KEY: np.ones((64, 8), np.float32)}, rf"{Q0}' have the shapes \(64, 8\)"),
        ({KEY: np.ones(8, np.float32)}, r"shapes \(8,\) and .*, expected \(8, in\)"),
        ({KEY: np.ones((8, 64), np.int8)}, r"lora_A.weight' is stored as I8"),
        ({KEY: np.full((8, 64), np.inf, np.float32)}, "NaN or infinity"),
    ],
)
def test_bad_tensors(plain, changes, message):
    replace(plain, **changes)
    with pytest.raises(ValueError, match=message):
        peft.read(plain)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r": 4}, r"expected \(4, in\) and \(out, 4\)"),
        ({"r": 0}, "the rank 0"),
        ({"r": "8"}, "the rank '8'"),
        ({"rank_pattern": {"q_proj": 2.0}}, "the rank 2.0"),
        ({"lora_alpha": None}, "the alpha None"),
        ({"lora_alpha": float("nan")}, "the alpha nan"),
        ({"alpha_pattern": [1]}, r"alpha_pattern \[1\], expected an object"),
        ({"alpha_pattern": {"(": 1}}, "no regular expression"),
        ({"target_modules": ["k_proj"]}, "PEFT would ignore it"),
        ({"target_modules": "("}, "no regular expression"),
        ({"target_modules": 3}, "target_modules 3, expected a list"),
        ({"layers_to_transform": "all"}, "layers_to_transform 'all', expected"),
        ({"layers_to_transform": 0, "layers_pattern": 3}, "layers_pattern 3, expected"),
        ({"layers_to_transform": 0, "layers_pattern": "("}, "no regular expression"),
    ],
)
def test_bad_config(plain, fields, message):
    configure(plain, **fields)
    with pytest.raises(ValueError, match=message):
        peft.read(plain)


def test_pickle_is_refused(plain):
    (plain / "adapter_model.safetensors").rename(plain / "adapter_model.bin")
    with pytest.raises(ValueError, match=r"only adapter_model\.bin: pickles can run"):
        peft.read(plain)


def test_missing_and_damaged_files(tmp_path, plain):
    path = plain / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="cut short"):
        peft.read(plain)
    path.unlink()
    with pytest.raises(
        ValueError, match=r"no adapter_model\.safetensors; the download"
    ):
        peft.read(plain)
    (plain / "adapter_config.json").unlink()
    with pytest.raises(ValueError, match=r"no adapter_config\.json, expected"):
        peft.read(plain)


def test_empty_file(plain):
    save_file({}, plain / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="holds no tensors"):
        peft.read(plain)
