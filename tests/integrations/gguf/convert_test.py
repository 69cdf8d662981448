"""Models in GGUF files against the checkpoints they were written from."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxlora import models
from jaxlora.io import origin
from jaxlora.models import pretrained, tokenizer

gguf = pytest.importorskip("gguf")
import gguf_files  # noqa: E402
from jaxlora.integrations.gguf import convert  # noqa: E402

Kind = gguf.GGMLQuantizationType
APPLY = jax.jit(models.apply, static_argnums=0)
# What GGUF does not say, because llama.cpp knows it by the model's size.
UNSAID = {
    "gemma2": {"query_pre_attn_scalar": 24},
    "gemma3_text": {
        "query_pre_attn_scalar": 24,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}


def logits(folder, family):
    raw = json.loads((folder / "config.json").read_text()) | UNSAID.get(family, {})
    (folder / "config.json").write_text(json.dumps(raw))
    model, base = pretrained.load(folder)
    reference = gguf_files.DATA / family / "reference.json"
    tokens = json.loads(reference.read_text())["input_ids"]
    return np.asarray(APPLY(model, base, jnp.asarray(tokens)))


def stored(family):
    return load_file(gguf_files.DATA / family / "reference.safetensors")["base"]


@pytest.mark.parametrize("family", gguf_files.ARCHITECTURES)
def test_logits_are_those_of_transformers_on_the_source(family, tmp_path):
    path = gguf_files.write(tmp_path / "m.gguf", family)
    assert set(convert.convert(path, tmp_path / "out")) == {"F32"}
    assert np.abs(logits(tmp_path / "out", family) - stored(family)).max() < 2e-4


@pytest.mark.parametrize("family", gguf_files.ARCHITECTURES)
def test_every_tensor_and_field_is_that_of_the_source(family, tmp_path):
    path = gguf_files.write(tmp_path / "m.gguf", family)
    convert.convert(path, tmp_path / "out")
    source = load_file(gguf_files.DATA / family / "base" / "model.safetensors")
    ours = load_file(tmp_path / "out" / "model.safetensors")
    assert ours.keys() == source.keys()
    for name, values in source.items():
        # Gemma's norms went through + 1 - 1 in float32.
        np.testing.assert_allclose(ours[name], values, atol=1e-7, rtol=0)
    model, _ = pretrained.load(tmp_path / "out")
    expected, _ = pretrained.load(gguf_files.DATA / family / "base")
    differing = {
        name
        for name in vars(expected.config)
        if getattr(model.config, name) != getattr(expected.config, name)
    }
    assert differing <= {"query_scale", "local_layers"}
    assert family.startswith("gemma") or not differing


# Steps of a quantised value, as a share of the largest in its block of 32.
@pytest.mark.parametrize(
    ("kind", "step"),
    [
        (Kind.F16, 2**-11),
        (Kind.BF16, 2**-8),
        (Kind.Q8_0, 1 / 127 / 2 + 1e-3),
        (Kind.Q4_0, 1 / 8 + 1e-3),
        (Kind.Q4_1, 2 / 15 / 2 + 1e-3),
    ],
)
def test_types_of_values(kind, step, tmp_path):
    path = gguf_files.write(tmp_path / "m.gguf", "llama", kind)
    assert kind.name in convert.convert(path, tmp_path / "out")
    source = load_file(gguf_files.DATA / "llama" / "base" / "model.safetensors")
    ours = load_file(tmp_path / "out" / "model.safetensors")
    for name, values in source.items():
        blocks = values.reshape(-1, 32)
        most = np.abs(blocks).max(axis=1, keepdims=True) * step
        error = np.abs(ours[name].reshape(-1, 32) - blocks)
        assert (error <= most + 1e-7).all(), name


def test_what_it_was_quantised_from_is_said(tmp_path):
    path = gguf_files.write(tmp_path / "m.gguf", "llama", Kind.Q4_1)
    convert.convert(path, tmp_path / "out")
    (note,) = origin.notes(tmp_path / "out")
    assert "Q4_1" in note
    assert "m.gguf" in note
    plain = gguf_files.write(tmp_path / "p.gguf", "llama", Kind.F16)
    convert.convert(plain, tmp_path / "plain")
    assert not list(origin.notes(tmp_path / "plain"))
    assert not list(origin.notes(gguf_files.DATA / "llama" / "base"))


def test_bfloat16_is_written_on_demand(tmp_path):
    path = gguf_files.write(tmp_path / "m.gguf")
    convert.convert(path, tmp_path / "out", dtype="bfloat16")
    model, _ = pretrained.load(tmp_path / "out")
    assert model.config.param_dtype == "bfloat16"


def test_the_tokenizer_is_the_files(tmp_path):
    path = gguf_files.write(tmp_path / "m.gguf")
    convert.convert(path, tmp_path / "out")
    ours = tokenizer.load(tmp_path / "out")
    pieces = [ours.backend.id_to_token(i) for i in ours.encode("abc ab12</s>")]
    assert pieces == ["abc", "Ġ", "ab", "1", "2", "</s>"]
    assert ours.eos_ids == (2,)
    assert ours.render([{"role": "user", "content": "hello"}]) == "hello"
    assert ours.decode(ours.encode("abc ab")) == "abc ab"


def test_a_bos_is_added_where_the_file_says_so(tmp_path):
    def change(writer):
        writer.kv_data[0]["tokenizer.ggml.add_bos_token"].value = True

    convert.convert(
        gguf_files.write(tmp_path / "m.gguf", change=change), tmp_path / "out"
    )
    assert tokenizer.load(tmp_path / "out").encode("a")[0] == 1


def test_a_split_model_is_read_by_the_name_of_any_part(tmp_path):
    path = gguf_files.write(
        tmp_path / "m.gguf", split_max_tensors=8, small_first_shard=False
    )
    parts = sorted(tmp_path.glob("m-*.gguf"))
    assert len(parts) > 2
    assert not path.exists()
    convert.convert(parts[1], tmp_path / "out")
    assert np.abs(logits(tmp_path / "out", "llama") - stored("llama")).max() < 2e-4
    parts[2].unlink()
    with pytest.raises(ValueError, match=f"lacks 1 of {len(parts)} files.*00003"):
        convert.convert(parts[0], tmp_path / "again")
    assert not (tmp_path / "again").exists()
