"""Adapters of embeddings: written by PEFT, read, fused and written back."""

import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora import models
from jaxlora.io import collection, collection_out, peft, peft_out
from jaxlora.models import adapters, pretrained

LLAMA = Path(__file__).parents[1] / "data" / "hf" / "llama"
THEIRS = LLAMA / "embedding"
TABLE = "model.embed_tokens"
KEY = f"base_model.model.{TABLE}"
CLOSE = 2e-5


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(THEIRS, tmp_path / "embedding")


def fused(base, adapter):
    """The base with every update added, in NumPy."""
    base = jax.tree.map(np.array, base)
    for path, module in adapter.modules.items():
        delta = module.scale * module.a.T @ module.b.T
        if module.embedding:
            base["embed"]["embedding"] += delta
        else:
            layer = int(path.split(".")[2])
            base["layers"]["attn"]["q_proj"]["kernel"][layer] += delta
    return jax.tree.map(jnp.asarray, base)


def logits(adapter):
    model, base = pretrained.load(LLAMA / "base")
    tokens = json.loads((LLAMA / "reference.json").read_text())["input_ids"]
    apply = jax.jit(models.apply, static_argnums=0)
    return np.asarray(apply(model, fused(base, adapter), jnp.asarray(tokens)))


def test_peft_and_we_agree_on_what_an_update_of_an_embedding_is():
    theirs = load_file(THEIRS / "reference.safetensors")["embedding"]
    adapter = peft.read(THEIRS)
    assert np.abs(logits(adapter)[:, -2:] - theirs).max() < CLOSE
    module = adapter.modules[TABLE]
    assert (module.embedding, module.scale) == (True, 3.0)
    assert (module.a.shape, module.b.shape) == ((2, 256), (64, 2))


def test_written_back_it_is_the_same(tmp_path):
    adapter = peft.read(THEIRS)
    peft_out.write(tmp_path / "out", adapter)
    again = peft.read(tmp_path / "out")
    assert again.modules.keys() == adapter.modules.keys()
    for path, module in adapter.modules.items():
        other = again.modules[path]
        assert (other.scale, other.embedding) == (module.scale, module.embedding)
        np.testing.assert_array_equal(other.a, module.a)
        np.testing.assert_array_equal(other.b, module.b)
    names = load_file(tmp_path / "out" / "adapter_model.safetensors").keys()
    assert {f"{KEY}.lora_embedding_A", f"{KEY}.lora_embedding_B"} <= names


def test_written_from_a_collection_it_is_the_same(tmp_path):
    read = collection.read([THEIRS])
    assert read.embeddings == {TABLE}
    assert read.copies == (TABLE,)
    collection_out.write(tmp_path / "out", read.adapter(0), read)
    before, after = (peft.read(folder).modules for folder in (THEIRS, tmp_path / "out"))
    for path, module in before.items():
        assert after[path].scale == 1
        assert after[path].embedding is module.embedding
        np.testing.assert_allclose(
            after[path].b @ after[path].a,
            module.scale * module.b @ module.a,
            rtol=1e-5,
            atol=1e-6,
        )


def test_a_decoder_looks_tokens_up_in_the_sum():
    model, base = pretrained.load(LLAMA / "base")
    tokens = json.loads((LLAMA / "reference.json").read_text())["input_ids"]
    apply = jax.jit(models.apply, static_argnums=0)
    adapter = adapters.load(THEIRS, base)
    got = apply(model, base, jnp.asarray(tokens), adapter=adapter)
    theirs = load_file(THEIRS / "reference.safetensors")["embedding"]
    assert np.abs(got[:, -2:] - theirs).max() < CLOSE
    q = peft.PeftModule(*[np.ones((64, 64), np.float32)] * 2, 1.0, embedding=True)
    odd = peft.PeftAdapter(modules={"model.layers.0.self_attn.q_proj": q})
    with pytest.raises(ValueError, match="q_proj' as an embedding, which it is not"):
        adapters.from_peft(odd, base)


def change(folder, without=(), **tensors):
    path = folder / "adapter_model.safetensors"
    values = load_file(path)
    save_file({k: x for k, x in values.items() if k not in without} | tensors, path)


def test_the_copy_is_not_needed_and_not_trusted(copied):
    change(copied, without=[f"{KEY}.base_layer.weight"])
    assert not peft.open_folder(copied).copies
    assert TABLE in peft.read(copied).modules
    change(copied, **{f"{KEY}.base_layer.weight": np.ones((64, 256), np.float32)})
    with pytest.raises(ValueError, match=r"\(64, 256\), expected \(256, 64\)"):
        peft.read(copied)


@pytest.mark.parametrize(
    ("without", "added", "message"),
    [
        (["lora_embedding_B"], [], "lora_A of 'model.embed_tokens' alone"),
        (["lora_embedding_A"], ["lora_A.weight"], "which make no pair"),
        ([], ["lora_A.weight"], "are both lora_A of 'model.embed_tokens'"),
        (
            ["lora_embedding_A", "lora_embedding_B"],
            [],
            "base_layer.weight' .* no low-rank",
        ),
        ([], ["weight"], "embed_tokens.weight', and the adapter updates"),
    ],
)
def test_pairs_that_are_none(copied, without, added, message):
    table = load_file(copied / "adapter_model.safetensors")[f"{KEY}.lora_embedding_A"]
    tensors = {f"{KEY}.{name}": table for name in added}
    change(copied, without=[f"{KEY}.{name}" for name in without], **tensors)
    with pytest.raises(ValueError, match=message):
        peft.read(copied)


def test_bfloat16_stays(tmp_path):
    half = np.ones((2, 9), ml_dtypes.bfloat16)
    module = peft.PeftModule(half, half.T.copy(), 0.5, embedding=True)
    peft_out.write(tmp_path / "out", peft.PeftAdapter(modules={"wte": module}))
    read = peft.read(tmp_path / "out").modules["wte"]
    assert read.a.dtype == read.b.dtype == half.dtype
    assert read.embedding
