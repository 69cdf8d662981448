"""What PEFT makes of embeddings and collections; skipped where it is missing."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxlora import lora
from jaxlora.io import collection, collection_out, peft_out
from jaxlora.io import peft as ours

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

pytestmark = pytest.mark.filterwarnings("ignore")

DATA = Path(__file__).parents[1] / "data" / "hf"
CLOSE = 2e-5


def base(family):
    return transformers.AutoModelForCausalLM.from_pretrained(
        DATA / family / "base", attn_implementation="eager"
    ).eval()


def logits(model, family):
    tokens = json.loads((DATA / family / "reference.json").read_text())["input_ids"]
    with torch.no_grad():
        return model(torch.tensor(tokens)).logits.float().numpy()


def loaded(family, folder):
    return logits(peft.PeftModel.from_pretrained(base(family), folder), family)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma2"])
@pytest.mark.parametrize("copy", [True, False])
def test_an_embedding_goes_there_and_back(family, copy, tmp_path):
    """Tied (qwen2, gemma2) and untied (llama) heads; with and without PEFT's copy."""
    torch.manual_seed(0)
    config = peft.LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=["embed_tokens", "v_proj"],
        rank_pattern={"embed_tokens": 3},
        use_rslora=True,
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(base(family), config).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "lora_" in name:
                values.copy_(0.2 * torch.randn(values.shape))
    model.save_pretrained(tmp_path / "theirs", save_embedding_layers=copy)
    expected = logits(model, family)
    assert np.abs(expected - logits(base(family), family)).max() > 0.1
    read = ours.open_folder(tmp_path / "theirs")
    assert bool(read.copies) is copy
    peft_out.write(tmp_path / "ours", ours.read(tmp_path / "theirs"))
    assert np.abs(loaded(family, tmp_path / "ours") - expected).max() < CLOSE
    found = collection.read([tmp_path / "theirs"])
    collection_out.write(tmp_path / "one", found.adapter(0), found)
    assert np.abs(loaded(family, tmp_path / "one") - expected).max() < CLOSE


@pytest.mark.parametrize("name", ["plain", "rslora", "pattern"])
def test_an_adapter_of_a_collection_computes_the_same(name, tmp_path):
    names = ("plain", "rslora", "pattern")
    read = collection.read([DATA / "llama" / folder for folder in names])
    collection_out.write(tmp_path / "out", read.adapter(names.index(name)), read)
    stored = load_file(DATA / "llama" / "reference.safetensors")
    got = loaded("llama", tmp_path / "out")
    assert np.abs(got - stored[name]).max() < CLOSE
    assert np.abs(stored["base"] - stored[name]).max() > 0.1


def test_a_sum_of_mixed_ranks_computes_the_sum(tmp_path):
    """The concatenation of three adapters is the sum of their updates."""
    names = ("plain", "rslora", "pattern")
    read = collection.read([DATA / "llama" / folder for folder in names])
    summed = {}
    for group, weight in read.library.items():
        a = weight.a * weight.scale[..., None, None]
        summed[group] = lora.LoraWeight(
            np.concatenate(list(np.asarray(a)), axis=-1),
            np.concatenate(list(np.asarray(weight.b)), axis=-2),
            np.ones(weight.scale.shape[1:], np.float32),
        )
    collection_out.write(tmp_path / "out", summed, read)
    model = base("llama")
    state = model.state_dict()
    for folder in names:
        for path, module in ours.read(DATA / "llama" / folder).modules.items():
            delta = module.scale * module.b @ module.a
            state[f"{path}.weight"] += torch.tensor(delta)
    expected = logits(model, "llama")
    assert np.abs(loaded("llama", tmp_path / "out") - expected).max() < 5 * CLOSE
