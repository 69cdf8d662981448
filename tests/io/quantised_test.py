"""Checkpoints in 4 and 8 bits, beside what bitsandbytes makes of them."""

import json
import pathlib
import shutil

import ml_dtypes
import numpy as np
import pytest
from safetensors import numpy as safetensors

from jaxlora.io import origin, quantised, tensors
from jaxlora.models import adapters, pretrained

DATA = pathlib.Path(__file__).parents[1] / "data" / "quantised"
KINDS = ("nf4_double", "fp4", "int8")
Q = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_of_bitsandbytes(kind):
    checkpoint = quantised.opened(tensors.open_folder(DATA / kind))
    expected = tensors.open_file(DATA / kind / "expected.safetensors")
    assert len(expected.entries) == 14
    assert set(expected.entries) < set(checkpoint.entries)
    for name, entry in expected.entries.items():
        want = expected.read(name).astype(np.float32)
        got = checkpoint.read(name, finite=True)
        assert checkpoint.entries[name].shape == got.shape == entry.shape
        np.testing.assert_allclose(got.astype(np.float32), want, rtol=1e-6)
        if kind != "int8":
            assert checkpoint.entries[name].dtype == entry.dtype == "BF16"
    assert not any("absmax" in name or "SCB" in name for name in checkpoint.entries)


def test_other_tensors_are_read_as_they_are():
    stored = tensors.open_folder(DATA / "int8")
    name = "model.norm.weight"
    np.testing.assert_array_equal(
        quantised.opened(stored).read(name), stored.read(name)
    )
    plain = DATA.parent / "families" / "mistral_plain" / "base"
    checkpoint = tensors.open_folder(plain)
    assert quantised.opened(checkpoint) is checkpoint


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("fp4", (f"{Q}.weight.absmax", np.ones(3, np.float32)), r"\(16, 'F32'\)"),
        ("fp4", (f"{Q}.weight.quant_map", np.ones(15, np.float32)), "quant_map' holds"),
        ("fp4", (f"{Q}.weight.absmax", None), "absmax' holds None"),
        ("fp4", (f"{Q}.weight", None), "but lacks it"),
        (
            "fp4",
            (f"{Q}.weight", np.zeros((9, 1), np.uint8)),
            "holds 9 bytes of U8, expected 512",
        ),
        ("nf4_double", (f"{Q}.weight.nested_quant_map", None), "nested_quant_map"),
        ("int8", (f"{Q}.SCB", np.ones(3, np.float32)), "SCB' holds"),
        ("int8", (f"{Q}.weight", np.ones((4, 4), np.float32)), "is F32"),
        ("int8", (f"{Q}.SCB", np.full(32, np.nan, np.float32)), "NaN"),
        *(
            ("fp4", (f"{Q}.weight.quant_state.bitsandbytes__fp4", state), "expected wh")
            for state in (b"{", b"[]", b'{"blocksize": 0}', b'{"blocksize": true}')
        ),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_it(kind, change, message, tmp_path):
    name, value = change
    values = safetensors.load_file(DATA / kind / "model.safetensors")
    if isinstance(value, bytes):
        value = np.frombuffer(value, np.uint8)
    values.pop(name)
    if value is not None:
        values[name] = value
    safetensors.save_file(values, tmp_path / "model.safetensors")
    stored = tensors.open_folder(tmp_path)
    with pytest.raises(ValueError, match=message):
        quantised.opened(stored).read(f"{Q}.weight", finite=True)


def test_a_note_says_what_the_base_is(tmp_path):
    (note,) = origin.notes(DATA / "nf4_double")
    assert "stored as bitsandbytes nf4" in note
    raw = json.loads((DATA / "nf4_double" / "config.json").read_text())
    kept = origin.dequantised(raw, DATA / "nf4_double")
    assert "quantization_config" not in kept
    (tmp_path / "config.json").write_text(json.dumps(kept))
    (note,) = origin.notes(tmp_path)
    assert "bitsandbytes nf4" in note
    plain = {"model_type": "llama"}
    assert origin.dequantised(plain, tmp_path) == plain


@pytest.mark.parametrize(
    "config", [None, {"quant_method": "gptq", "bits": 4}, {"quant_method": "awq"}, {}]
)
def test_others_are_not_read(config):
    assert quantised.kind(config) is None


def test_a_fused_checkpoint_is_plain(tmp_path):
    model, base = pretrained.load(DATA / "nf4_double", param_dtype="float32")
    kernel = base["layers"]["attn"]["q_proj"]["kernel"]
    expected = tensors.open_file(DATA / "nf4_double" / "expected.safetensors")
    want = expected.read(f"{Q}.weight").astype(np.float32)
    np.testing.assert_array_equal(kernel[0], want.T)
    family = DATA.parent / "families" / "mistral_plain"
    adapter = adapters.load(family / "adapter1", base)
    like = DATA / "nf4_double"
    pretrained.save(tmp_path / "out", model, base, adapter=adapter, like=like)
    stored = tensors.open_folder(tmp_path / "out")
    assert quantised.opened(stored) is stored
    (note,) = origin.notes(tmp_path / "out")
    assert "nf4" in note
    a, b = (
        adapter["layers"]["attn"]["q_proj"]["kernel"].a[0],
        adapter["layers"]["attn"]["q_proj"]["kernel"].b[0],
    )
    got = stored.read(f"{Q}.weight")
    np.testing.assert_allclose(got, want + 5 / 3 * np.asarray(a @ b).T, atol=1e-5)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16, np.float32])
def test_numbers_of_four_bits_may_be_stored_as_floats(dtype, tmp_path):
    """FSDP shards floats alone: bnb_4bit_quant_storage says which."""
    values = safetensors.load_file(DATA / "fp4" / "model.safetensors")
    packed = [name.rpartition(".")[0] for name in values if name.endswith(".absmax")]
    for name in packed:
        values[name] = values[name].reshape(-1).view(dtype)[:, None]
    safetensors.save_file(values, tmp_path / "model.safetensors")
    read, want = (
        quantised.opened(tensors.open_folder(folder))
        for folder in (tmp_path, DATA / "fp4")
    )
    assert len(packed) == 14
    for name in packed:
        np.testing.assert_array_equal(read.read(name), want.read(name))


def rows(kernel):
    """A kernel [in, out] in 8 bits, as bitsandbytes stores it, and what that is."""
    most = np.abs(kernel.T).max(axis=1)
    packed = np.rint(kernel.T / most[:, None] * 127).astype(np.int8, order="C")
    return packed, most, (packed * (most / np.float32(127))[:, None]).T


def test_kernels_of_gpt2_are_stored_as_those_of_others(tmp_path):
    """Only unquantised ones are [in, out] there."""
    source = DATA.parent / "families" / "gpt2" / "base"
    shutil.copytree(source, tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    values, want = safetensors.load_file(path), {}
    for name in [x for x in values if x.endswith((".c_attn.weight", "_proj.weight"))]:
        kernel = values[name].astype(np.float32)
        values[name], most, want[name] = rows(kernel)
        values[f"{name.removesuffix('.weight')}.SCB"] = most
    safetensors.save_file(values, path)
    _, base = pretrained.load(path.parent)
    attention = base["layers"]["attn"]
    for layer in range(2):
        for module, theirs in (("qkv_proj", "c_attn"), ("o_proj", "c_proj")):
            np.testing.assert_array_equal(
                attention[module]["kernel"][layer],
                want[f"transformer.h.{layer}.attn.{theirs}.weight"],
            )
