import contextlib
import json
import shutil
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora.io import collection, peft, peft_config

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


def configured(**fields):
    return peft_config.Config({"peft_type": "LORA"} | fields)


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
    config = configured(rank_pattern=patterns)
    assert config.rank_of(path) == rank
    assert config.scale_of(path) == 8 / rank
    assert configured(alpha_pattern=patterns).scale_of(path) == rank / 8


def test_root_of_the_modules_own_rank():
    fields = {"rank_pattern": {"q_proj": 16}, "use_rslora": True, "lora_alpha": 12}
    assert configured(**fields).scale_of(Q0) == 3.0


@pytest.mark.parametrize(
    ("fields", "path", "expected"),
    [
        ({"target_modules": ["q_proj"]}, Q0, True),
        ({"target_modules": ["proj"]}, Q0, False),
        ({"target_modules": [Q0]}, Q0, True),
        ({"target_modules": [Q0]}, Q1, False),
        ({"target_modules": "all-linear"}, Q0, True),
        ({"target_modules": "All-Linear"}, Q0, True),
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
    assert configured(**fields).is_target(path) is expected


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
        {"bias": "new"},
        {"trainable_token_indices": [1, 2]},
        {"target_parameters": ["experts.up"]},
        {"layer_replication": [[0, 1], [0, 1]]},
        {"alora_invocation_tokens": [5]},
        {"kasa_config": {"a": 1}},
        {"use_qalora": True},
        {"use_bdlora": {"nblocks": 2}},
        {"arrow_config": {"top_k": 2}},
        {"monteclora_config": {"a": 1}},
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


@pytest.mark.parametrize(
    ("init", "reason"),
    [
        ("loftq", "begins on quantised base weights of its own"),
        ("LoftQ", "merge_and_unload"),
        ("corda", r"path_initial_model_for_weight_conversion=INITIAL\)"),
        ("PiSSA_niter_16", "are singular vectors approximated at random, and were"),
        ("lora_ga", "path_initial_model_for_weight_conversion"),
        ("new", "expected one of those that are known"),
    ],
)
def test_what_to_do_about_another_beginning(plain, init, reason):
    configure(plain, init_lora_weights=init)
    with pytest.raises(ValueError, match=f"init_lora_weights '{init}', .*{reason}"):
        peft.read(plain)


@pytest.mark.parametrize(
    "fields",
    [
        {"rotated_config": {"kind": "householder", "blocks": 4}},
        {"use_new": True},
        {"enable_lora": [True, False]},
        {"lora_gamma": 0.5},
        {"mora_type": "x"},
    ],
)
def test_a_filled_field_that_nobody_knows_is_refused_by_name(plain, fields):
    configure(plain, **fields)
    (name,) = fields
    with pytest.raises(ValueError, match=f"has '{name}' .*a field that is not known"):
        peft.read(plain)


@pytest.mark.parametrize("value", [None, False, {}, [], ""])
def test_an_empty_field_is_off_and_a_harmless_one_may_hold_anything(plain, value):
    harmless = {"lora_dropout": 0.1, "task_type": "SEQ_CLS", "revision": "main"}
    harmless |= {"unsloth_version": "2025.1", "_commit_hash": "ab", "tags": ["x"]}
    more = {"eva_config": {"rho": 2.0}, "velora_config": {"x": 1}, "lora_dtype": "auto"}
    configure(plain, rotated_config=value, **harmless, **more)
    assert Q0 in peft.read(plain).modules


def test_dora_has_a_magnitude_beside_its_factors():
    read = peft.read(DATA / "llama" / "dora")
    stored = load_file(DATA / "llama" / "dora" / "adapter_model.safetensors")
    key = KEY.replace("lora_A.weight", "lora_magnitude_vector")
    np.testing.assert_array_equal(read.modules[Q0].magnitude, stored[key])
    assert read.modules[Q0].bias is None
    file = peft.open_folder(DATA / "llama" / "dora")
    assert file.kinds == (f"DoRA in {len(file.modules)} modules",)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"modules_to_save": ["lm_head"]}, "'lm_head' in modules_to_save, but the ad"),
        ({"use_dora": True}, "use_dora True, but the adapter lacks a magnitude"),
        ({"lora_bias": True}, "lora_bias True, but the adapter lacks a bias"),
        ({"use_dora": 1}, "use_dora 1, expected true or false"),
        ({"trainable_token_indices": [1, 2]}, "holds no trained tokens"),
        ({"trainable_token_indices": [-1]}, "expected a list of token ids"),
    ],
)
def test_parts_that_the_tensors_lack(plain, fields, message):
    configure(plain, **fields)
    with pytest.raises(ValueError, match=message):
        peft.read(plain)


EMBED = "base_model.model.model.embed_tokens"


@pytest.mark.parametrize(
    ("fields", "key", "shape", "message"),
    [
        ({}, f"{EMBED}.weight", (3, 4), None),
        ({}, f"{EMBED}.modules_to_save.default.weight", (3, 4), None),
        ({"trainable_token_indices": [7]}, "token_adapter", (1, 4), None),
        ({"trainable_token_indices": {"wte": [7]}}, "token_adapter", (1, 4), "1 diff"),
        ({"trainable_token_indices": [7, 7]}, "token_adapter", (2, 4), "2 different"),
        ({"trainable_token_indices": [7]}, "token_adapter", (4,), "expected .0, 0"),
    ],
)
def test_what_replaces_parts_of_the_base(plain, fields, key, shape, message):
    configure(plain, **fields)
    if key == "token_adapter":
        key = f"{EMBED}.token_adapter.trainable_tokens_delta"
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    replace(plain, **{key: values})
    if message:
        with pytest.raises(ValueError, match=message):
            peft.read(plain)
        return
    read = peft.read(plain)
    if fields:
        ids, rows = read.rows["model.embed_tokens"]
        assert ids == (7,)
        np.testing.assert_array_equal(rows, values)
    else:
        got = read.replaced["model.embed_tokens.weight"]
        np.testing.assert_array_equal(got, values)


def test_what_a_saved_module_replaces_may_be_saved_beside_it(plain):
    names = "modules_to_save.default.weight", "original_module.weight"
    saved = {
        f"{EMBED}.{name}": np.full((3, 4), i, "f4") for i, name in enumerate(names)
    }
    replace(plain, **saved)
    (values,) = peft.read(plain).replaced.values()
    assert not values.any()


@pytest.mark.parametrize("init", ["pissa", "PiSSA", "olora"])
def test_factors_that_were_taken_out_of_the_base_are_known_from_it(plain, init):
    configure(plain, init_lora_weights=init)
    start = init[:5].lower()
    assert {x.start for x in peft.read(plain).modules.values()} == {start}
    with pytest.raises(ValueError, match=f"began with {start} factors that its train"):
        collection.open_folders([plain])
    configure(plain, init_lora_weights=init, use_dora=True)
    with pytest.raises(ValueError, match="use_dora and init_lora_weights"):
        peft.read(plain)


@pytest.mark.parametrize("init", [True, False, None, "Gaussian", "eva", "orthogonal"])
def test_initial_values_that_leave_the_base_alone(plain, init):
    configure(plain, init_lora_weights=init, megatron_config=None, loftq_config={})
    assert Q0 in peft.read(plain).modules


ONE = np.ones((1, 1), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"base_model.model.model.embed_tokens.lora_embedding_A": ONE},
            "lora_A of 'model.embed_tokens' alone",
        ),
        ({KEY.replace("lora_A.weight", "lora_magnitude_vector"): ONE}, "DoRA"),
        ({KEY.replace("lora_A.weight", "lora_B.bias"): ONE}, "lora_bias"),
        ({KEY.replace("lora_A", "lora_C"): ONE}, "not lora_A or lora_B"),
        ({KEY.replace("lora_A.weight", "alpha"): ONE}, "a scalar alpha"),
        ({KEY.replace("lora_A", "lora_down"): ONE}, "lora_down or lora_up"),
        ({KEY.replace("lora_A.weight", "lora_a"): ONE}, "lora_a or lora_b"),
        ({"without": [KEY]}, f"lora_B of '{Q0}' alone"),
        (
            {KEY.replace(".weight", ".x.weight"): ONE},
            r"several adapters, without a name, x;",
        ),
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
        ({"lora_alpha": float("nan")}, "is not JSON: NaN is no number"),
        ({"alpha_pattern": [1]}, r"alpha_pattern \[1\], expected an object"),
        ({"alpha_pattern": {"(": 1}}, "no regular expression"),
        ({"target_modules": ["k_proj"]}, "PEFT would ignore it"),
        ({"target_modules": "("}, "no regular expression"),
        ({"target_modules": 3}, "target_modules 3, expected a list"),
        ({"layers_to_transform": "all"}, "layers_to_transform 'all', expected"),
        ({"layers_to_transform": 0, "layers_pattern": 3}, "layers_pattern 3, expected"),
        ({"layers_to_transform": 0, "layers_pattern": "("}, "no regular expression"),
        ({"layers_to_transform": True}, "layers_to_transform True, expected"),
        ({"layers_to_transform": [0, True]}, "expected a list of numbers"),
        ({"layers_pattern": [3]}, r"layers_pattern \[3\], expected"),
        ({"exclude_modules": {"a": 1}}, "exclude_modules .* expected a list"),
        ({"target_modules": ["q_proj", 3]}, "target_modules .* expected a list"),
        ({"r": True}, "the rank True"),
        ({"r": 2**40}, "the rank 1099511627776, expected .* to 65536"),
        ({"r": 10**400}, "the number 10000000... has 401 digits"),
        ({"r": 10**30}, r"the rank 10+, expected"),
        ({"r": None}, "the rank None"),
        ({"rank_pattern": {"q_proj": None}}, "the rank None"),
        ({"lora_alpha": True}, "the alpha True"),
        ({"lora_alpha": "16"}, "the alpha '16'"),
        ({"lora_alpha": 1e39}, r"the alpha 1e\+39, expected a number of at most 3.4e"),
        ({"lora_alpha": 10**39}, r"the alpha 10+, expected"),
        ({"lora_alpha": float("-inf")}, "-Infinity is no number"),
        ({"alpha_pattern": {"q_proj": [1]}}, r"the alpha \[1\]"),
        ({"use_rslora": 1}, "use_rslora 1, expected true or false"),
        ({"init_lora_weights": 1}, "init_lora_weights 1, expected one"),
        ({"init_lora_weights": [True]}, "init_lora_weights .True., expected one"),
        ({"bias": ["none"]}, r"bias \['none'\], expected 'none'"),
        ({"peft_type": ["LORA"]}, r"peft_type \['LORA'\], expected"),
        ({"base_model_name_or_path": 3}, "base_model_name_or_path 3, expected a name"),
        ({"base_model_name_or_path": "a\x1b[2J"}, "expected a name"),
        ({"base_model_name_or_path": "a" * 5000}, "expected a name"),
        ({"modules_to_save": [["x"] * 99] * 999}, "modules_to_save .*list of strings"),
        ({"target_modules": r"(?<=x)q"}, "which target_modules .* does not match"),
        ({"layers_to_transform": [5]}, r"which layers_to_transform \[5\] does not m"),
        ({"layers_to_transform": 7}, "which layers_to_transform 7 does not match"),
        ({"exclude_modules": ".*"}, "which exclude_modules '..' does not match"),
        ({"rank_pattern": {"a" * 3000 + "+": 1}}, "bad rank_pattern: .* at most 2000"),
    ],
)
def test_bad_config(plain, fields, message):
    configure(plain, **fields)
    with pytest.raises(ValueError, match=message):
        peft.read(plain)


@pytest.mark.parametrize(
    "fields",
    [
        {"target_modules": r"(\w+\.?)+!"},
        {"target_modules": ".*" * 40 + "!"},
        {"rank_pattern": {f"((a|.)*)*{i}!": 1 for i in range(50)}},
        {"alpha_pattern": {f"layers.{i}.x": 1 for i in range(20_000)}},
        {"alpha_pattern": {f"(.*)*{'.*' * 200}{i}!": 1 for i in range(20)}},
        {"target_modules": ["q_proj"] + [f"x{i}" for i in range(50_000)]},
    ],
)
def test_patterns_that_would_hang(plain, fields):
    configure(plain, **fields)
    start = time.perf_counter()
    with contextlib.suppress(ValueError):  # of what matches nothing, or takes too long
        peft.read(plain)
    assert time.perf_counter() - start < 60


def test_numbers_that_json_alone_allows(plain):
    path = plain / "adapter_config.json"
    text = path.read_text()
    for said, message in [
        ("1e400", "the number 1e400 is too large"),
        ("NaN", "NaN is no number"),
        ("-Infinity", "-Infinity is no number"),
        ("9" * 5000, "is not JSON"),
        ("[" * 10_000, "is not JSON"),
        ('16, "lora_alpha": 8', "'lora_alpha' is there twice"),
    ]:
        path.write_text(text.replace('"lora_alpha": 16', f'"lora_alpha": {said}'))
        with pytest.raises(ValueError, match=message):
            peft.read(plain)


def test_a_config_that_is_too_large(plain):
    configure(plain, revision="x" * 2**22)
    with pytest.raises(ValueError, match="has more than 4194304 bytes"):
        peft.read(plain)


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/tmp"])
def test_a_name_is_no_path(plain, name):
    with pytest.raises(ValueError, match="expected the name of a folder within"):
        peft.read(plain, name=name)


@pytest.mark.parametrize(
    "path", ["a/../b", "/etc", "a..b", ".a", "a b", "a\nb", "x" * 257, "a[0]"]
)
def test_paths_that_no_module_has(plain, path):
    ones = np.ones((8, 8), np.float32)
    keys = {f"base_model.model.{path}.lora_{x}.weight": ones for x in "AB"}
    replace(plain, **keys)
    with pytest.raises(ValueError, match=r"names joined by dots|printable characters"):
        peft.read(plain)


def test_a_module_under_two_names(plain):
    replace(plain, **{KEY.removeprefix("base_model.model."): np.ones((8, 64))})
    with pytest.raises(ValueError, match=f"are both lora_A of '{Q0}', expected one"):
        peft.read(plain)


def test_a_rank_of_zero_or_a_layer_without_features(plain):
    up = KEY.replace("_A", "_B")
    replace(plain, **{KEY: np.ones((0, 64), np.float32), up: np.ones((64, 0), "f4")})
    with pytest.raises(ValueError, match=r"shapes \(0, 64\) and \(64, 0\), expected"):
        peft.read(plain)
    replace(plain, **{KEY: np.ones((8, 0), np.float32), up: np.ones((64, 8), "f4")})
    with pytest.raises(ValueError, match="no layer is empty"):
        peft.read(plain)


def test_errors_name_the_folder(plain):
    configure(plain, r=4)
    with pytest.raises(ValueError, match=f"^{plain}: The adapter's lora_A"):
        peft.read(plain)
    configure(plain, r=8)
    replace(plain, **{KEY: np.full((8, 64), np.nan, np.float32)})
    with pytest.raises(ValueError, match=f"^Tensor '{KEY}' of {plain}/adapter_model"):
        peft.read(plain)


def test_headers_alone_are_read_on_opening(plain):
    replace(plain, **{KEY: np.full((8, 64), np.nan, np.float32)})
    file = peft.open_folder(plain)
    header = file.modules[Q0]
    assert (header.rank, header.d, header.f, header.scale) == (8, 64, 64, 2.0)
    assert file.targets is not None
    assert "q_proj" in file.targets
    with pytest.raises(ValueError, match="NaN or infinity"):
        file.read(Q0)
    assert np.isfinite(file.read(Q1).a).all()


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
