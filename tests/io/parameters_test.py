"""Adapters of bare parameters of a mixture (target_parameters), against PEFT's."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora import cli, models
from jaxlora.io import collection, collection_out, peft, peft_out
from jaxlora.models import adapters, pretrained

DATA = pathlib.Path(__file__).parents[1] / "data"
ADAPTERS, BASES = DATA / "parameters", DATA / "families"
THEIRS = load_file(ADAPTERS / "logits.safetensors")
CLOSE = 1e-4
PARAMETERS = "model.layers.1.mlp.experts"


FAST = ("mixtral/all",)


@pytest.mark.parametrize(
    "kind",
    [x if x in FAST else pytest.param(x, marks=pytest.mark.slow) for x in THEIRS],
)
def test_logits_are_those_of_peft(kind):
    family = BASES / kind.partition("/")[0]
    ids = json.loads((family / "reference.json").read_text())["input_ids"]
    model, base = pretrained.load(family / "base")
    adapter = adapters.load(ADAPTERS / kind, base)
    with jax.default_matmul_precision("highest"):
        call = jax.jit(models.apply, static_argnums=0)
        got = call(model, base, jnp.asarray(ids, jnp.int32), adapter=adapter)
    np.testing.assert_allclose(got, THEIRS[kind], rtol=0, atol=CLOSE)


def test_a_fused_checkpoint_has_the_sum_of_peft(tmp_path):
    """What PEFT's merge_and_unload adds to the slice of one MLP, in NumPy."""
    kind = ADAPTERS / "mixtral/all"
    out = tmp_path / "fused"
    words = [str(BASES / "mixtral/base"), str(kind), "--dtype", "float32"]
    assert cli.main(["fuse", *words, "--out", str(out)]) == 0
    stored = load_file(kind / "adapter_model.safetensors")
    pair = (
        stored[f"base_model.model.{PARAMETERS}.base_layer.lora_{x}.weight"]
        for x in "AB"
    )
    a, b = next(pair).reshape(4, 2, 32), next(pair).reshape(96, 2, 4)
    delta = 4 / 2 * np.einsum("ore,eri->eoi", b, a)  # alpha_pattern says 4 here
    before = load_file(BASES / "mixtral/base/model.safetensors")
    after = load_file(out / "model.safetensors")
    for half, name in enumerate(("w1", "w3")):
        key = f"model.layers.1.block_sparse_moe.experts.2.{name}.weight"
        want = before[key].astype(np.float32) + delta[2, 48 * half :][:48]
        np.testing.assert_allclose(after[key], want, atol=1e-5)


def deltas(folder):
    """Updates by module path."""
    return {
        path: x.scale * x.b.astype(np.float64) @ x.a
        for path, x in peft.read(folder).modules.items()
    }


@pytest.mark.parametrize("method", ["mean", "svd"])
def test_merged_they_are_written_as_parameters_again(method, tmp_path):
    folders = [ADAPTERS / "mixtral/all", ADAPTERS / "mixtral/other"]
    library = collection.open_folders(folders)
    assert f"{PARAMETERS}.3.gate_up_proj" in library.parameters
    out = tmp_path / "out"
    words = [*map(str, folders), "--method", method, "--rank", "5", "--out", str(out)]
    assert cli.main(["merge", *words]) == 0
    raw = json.loads((out / "adapter_config.json").read_text())
    assert f"{PARAMETERS}.down_proj" in raw["target_parameters"]
    assert "model.layers.0.mlp.gate.weight" in raw["target_parameters"]
    assert raw["target_modules"] == [
        f"model.layers.{i}.self_attn.q_proj" for i in range(2)
    ]
    merged, (first, second) = deltas(out), map(deltas, folders)
    for path, got in merged.items():
        other = second.get(path, np.zeros_like(first[path]))
        want = (first[path] + other) / (2 if method == "mean" else 1)
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_slice_that_is_zero_is_written_as_zeros(tmp_path):
    library = collection.read([ADAPTERS / "qwen3_moe/narrow"])
    adapter = library.adapter(0)
    (site,) = (x for x in adapter if "experts" in x)
    cut = adapter[site].replace(b=adapter[site].b.at[1].set(0))
    collection_out.write(tmp_path / "out", adapter | {site: cut}, library)
    stored = load_file(tmp_path / "out" / "adapter_model.safetensors")
    b = stored[f"base_model.model.{PARAMETERS}.lora_B.weight"].reshape(32, 2, 5)
    np.testing.assert_array_equal(abs(b).max((0, 1)) > 0, np.arange(5) != 1)


def changed(folder, kind, fields, change=lambda values: values):
    """A copy of an adapter with other fields and tensors."""
    shutil.copytree(ADAPTERS / kind, folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    return folder


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"target_parameters": ["experts.down_proj"]},
            "2 updates of parameters of .*, and target_parameters names down_proj of",
        ),
        ({"target_parameters": ["experts.w1"]}, "names none of those that can be read"),
        ({"target_parameters": "experts"}, "'experts', expected a list of strings"),
        (
            {"target_parameters": ["experts.gate_up_proj", "experts.down_proj", "x"]},
            "has target_parameters 'x', but the adapter holds no factors",
        ),
        ({"r": 5}, "rank 8 and 8 for all MLPs together, expected equal multiples .* 5"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(fields, message, tmp_path):
    folder = changed(tmp_path / "other", "mixtral/other", fields)
    with pytest.raises(ValueError, match=message):
        peft.open_folder(folder)


def test_parameters_and_modules_of_one_mixture_need_the_base():
    folders = [ADAPTERS / "mixtral/all", BASES / "mixtral/experts"]
    with pytest.raises(
        ValueError, match=r"all adapts the MLPs .* and .*experts as mod"
    ):
        collection.open_folders(folders)


def test_beside_magnitudes_they_are_written_as_plain_lora_only(tmp_path, capsys):
    a, b, magnitude = (np.ones(x, np.float32) for x in ((1, 32), (32, 1), 32))
    module = peft.PeftModule(a, b, 1.0, magnitude=magnitude)
    modules = {"model.layers.0.self_attn.q_proj": module}
    dora = peft.PeftAdapter(modules=modules, base_name=None)
    peft_out.write(tmp_path / "dora", dora)
    folders = [str(ADAPTERS / "mixtral/other"), str(tmp_path / "dora")]
    words = ["merge", *folders, "--method", "sum", "--out", str(tmp_path / "out")]
    words += ["--base", str(BASES / "mixtral/base")]
    assert cli.main(words) == 2
    assert "an update of a bare parameter" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main([*words, "--rank", "4"]) == 0
    merged = peft.read(tmp_path / "out").modules
    before = peft.read(ADAPTERS / "mixtral/other").modules[f"{PARAMETERS}.1.down_proj"]
    after = merged[f"{PARAMETERS}.1.down_proj"]
    want = before.scale * before.b @ before.a
    np.testing.assert_allclose(after.scale * after.b @ after.a, want, atol=1e-5)
