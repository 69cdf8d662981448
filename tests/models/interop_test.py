"""What we write, loaded by transformers and PEFT; skipped where they are missing."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxlora import lora, models
from jaxlora.models import adapters, architectures, pretrained

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore")

DATA = Path(__file__).parents[1] / "data" / "hf"
FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text")
CLOSE = 2e-5
APPLY = jax.jit(models.apply, static_argnums=0)


def reference(family):
    tokens = json.loads((DATA / family / "reference.json").read_text())["input_ids"]
    return np.asarray(tokens), load_file(DATA / family / "reference.safetensors")


def theirs(folder, **options):
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", **options
    ).eval()


def logits(model, tokens):
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.float().numpy()


@pytest.mark.parametrize("like", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_computes_the_same_from_what_we_write(family, like, tmp_path):
    source = DATA / family / "base"
    model, base = pretrained.load(source)
    options = {"like": source} if like else {}
    pretrained.save(tmp_path / "out", model, base, max_shard_bytes=200_000, **options)
    loaded = theirs(tmp_path / "out")
    assert loaded.dtype == torch.float32
    tokens, stored = reference(family)
    assert np.abs(logits(loaded, tokens) - stored["base"]).max() < CLOSE


def test_transformers_loads_a_fused_model_in_bfloat16(tmp_path):
    model, base = pretrained.load(DATA / "gemma3_text" / "base", param_dtype="bfloat16")
    adapter = adapters.load(DATA / "gemma3_text" / "plain", base)
    fused = lora.fuse(base, adapter)
    pretrained.save(tmp_path / "out", model, fused)
    assert theirs(tmp_path / "out").dtype == torch.bfloat16
    loaded = theirs(tmp_path / "out", dtype=torch.float32)
    wide, read = pretrained.load(tmp_path / "out", param_dtype="float32")
    tokens, stored = reference("gemma3_text")
    ours = np.asarray(APPLY(wide, read, jnp.asarray(tokens)))
    assert np.abs(logits(loaded, tokens) - ours).max() < CLOSE
    assert np.abs(stored["plain"] - ours).max() < 0.2


@pytest.mark.parametrize("name", ["plain", "rslora", "pattern"])
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_peft_computes_the_same_from_what_we_write(family, name, tmp_path):
    _, base = pretrained.load(DATA / family / "base")
    adapter = adapters.load(DATA / family / name, base)
    adapters.save(tmp_path / "out", lora.pad(adapter, 12), base_name="base")
    loaded = peft.PeftModel.from_pretrained(
        theirs(DATA / family / "base"), tmp_path / "out"
    )
    tokens, stored = reference(family)
    assert np.abs(logits(loaded, tokens) - stored[name]).max() < CLOSE
    assert np.abs(stored["base"] - stored[name]).max() > 0.1


def test_peft_adapts_only_the_layers_that_we_adapt(tmp_path):
    model, base = pretrained.load(DATA / "qwen2" / "base")
    adapter = adapters.load(DATA / "qwen2" / "plain", base)
    half = lora.lora_map(
        lambda w: lora.LoraWeight(
            w.a.at[0].set(0.0), w.b.at[0].set(0.0), w.scale * jnp.asarray([1.0, -0.3])
        ),
        adapter,
    )
    adapters.save(tmp_path / "out", half)
    loaded = peft.PeftModel.from_pretrained(
        theirs(DATA / "qwen2" / "base"), tmp_path / "out"
    )
    adapted = [name for name, _ in loaded.named_parameters() if "lora_A" in name]
    assert len(adapted) == 7
    tokens, _ = reference("qwen2")
    ours = np.asarray(APPLY(model, base, jnp.asarray(tokens), adapter=half))
    assert np.abs(logits(loaded, tokens) - ours).max() < CLOSE


def test_adapter_named_by_peft_is_found_in_its_folder(tmp_path):
    model = peft.PeftModel.from_pretrained(
        theirs(DATA / "llama" / "base"), DATA / "llama" / "plain", adapter_name="mine"
    )
    model.load_adapter(DATA / "llama" / "rslora", adapter_name="other")
    model.save_pretrained(tmp_path)
    _, base = pretrained.load(DATA / "llama" / "base")
    for name, source in (("mine", "plain"), ("other", "rslora")):
        jax.tree.map(
            np.testing.assert_array_equal,
            adapters.load(tmp_path, base, name=name),
            adapters.load(DATA / "llama" / source, base),
        )


def test_head_that_differs_counts_as_in_transformers(tmp_path):
    source = DATA / "qwen2" / "base"
    values = load_file(source / "model.safetensors")
    values["lm_head.weight"] = values["model.embed_tokens.weight"][::-1].copy()
    save_file(values, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    model, base = pretrained.load(tmp_path)
    tokens, stored = reference("qwen2")
    got = logits(theirs(tmp_path), tokens)
    assert np.abs(got - stored["base"]).max() > 0.1
    ours = np.asarray(APPLY(model, base, jnp.asarray(tokens)))
    assert np.abs(got - ours).max() < CLOSE


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0}
LLAMA3 |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 512}


@pytest.mark.parametrize(
    "raw",
    [
        {"model_type": "llama"},
        {"model_type": "llama", "rope_theta": 5e5, "rope_scaling": LLAMA3},
        {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"model_type": "qwen2"},
        {"model_type": "qwen2", "rope_theta": 1e6, "tie_word_embeddings": True},
        {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 3},
        {"model_type": "qwen3", "num_key_value_heads": 8},
        {"model_type": "gemma2"},
        {"model_type": "gemma2", "final_logit_softcapping": None, "head_dim": 128},
        {"model_type": "gemma3_text"},
        {"model_type": "gemma3_text", "sliding_window_pattern": 3, "sliding_window": 9},
        {"model_type": "gemma3_text", "rope_local_base_freq": 5e3, "rope_theta": 2e6},
        {
            "model_type": "gemma3_text",
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
    ],
    ids=lambda raw: "-".join(raw)[11:] + raw["model_type"],
)
def test_old_configs_mean_what_transformers_makes_of_them(raw):
    """transformers reads the older form and fills in what is absent; so do we."""
    kind = raw["model_type"]
    fields = {key: value for key, value in raw.items() if key != "model_type"}
    new = json.loads(transformers.AutoConfig.for_model(kind, **fields).to_json_string())
    assert "rope_parameters" in new
    assert architectures.from_json(new) == architectures.from_json(raw)
