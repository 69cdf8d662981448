"""Writes adapters of bare parameters of mixtures, and PEFT's logits, into this folder.

Needs torch, transformers and PEFT, which the tests do not. Bases and token ids are
those of ``tests/data/families``. Run it as ``python tests/data/parameters/make.py``.
"""

import json
import pathlib
import shutil

import numpy as np
import peft
import torch
import transformers
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
BASES = HERE.parent / "families"
ADAPTERS = {
    "mixtral/all": {
        "target_modules": ["q_proj"],
        "target_parameters": [
            "mlp.experts.gate_up_proj",
            "mlp.experts.down_proj",
            "mlp.gate.weight",
        ],
        "rank_pattern": {"experts.down_proj": 3},
        "alpha_pattern": {"gate.weight": 7, "1.mlp.experts.gate_up_proj": 4},
    },
    "mixtral/other": {
        "target_modules": [],
        "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
        "use_rslora": True,
    },
    "qwen3_moe/wide": {
        "target_modules": [],
        "target_parameters": ["experts.gate_up_proj"],
    },
    "qwen3_moe/narrow": {
        "target_modules": ["v_proj"],
        "target_parameters": ["model.layers.1.mlp.experts.down_proj"],
    },
    "qwen3_moe/router": {"target_modules": ["gate", "q_proj"]},
}
"""Fields of each adapter's config, by the family of its base."""


def draw(model) -> None:
    """Draws every factor, none of them zero."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" in name:
                value.normal_(std=0.2)


def logits(model, ids) -> np.ndarray:
    """Logits [B, T, V] of token ids."""
    with torch.no_grad():
        return model.eval()(torch.tensor(ids), use_cache=False).logits.numpy()


def make(name: str, fields: dict, seed: int) -> np.ndarray:
    """Writes one adapter, and returns the logits that PEFT has for what it reads."""
    torch.manual_seed(seed)
    family = name.partition("/")[0]
    ids = json.loads((BASES / family / "reference.json").read_text())["input_ids"]

    def base():
        return transformers.AutoModelForCausalLM.from_pretrained(
            BASES / family / "base", attn_implementation="eager", dtype=torch.float32
        )

    shutil.rmtree(HERE / name, ignore_errors=True)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=3, **fields)
    model = peft.get_peft_model(base(), config)
    draw(model)
    model.save_pretrained(HERE / name)
    (HERE / name / "README.md").unlink()
    path = HERE / name / "adapter_config.json"
    raw = json.loads(path.read_text()) | {"base_model_name_or_path": "base"}
    path.write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n")
    again = peft.PeftModel.from_pretrained(base(), HERE / name)
    first, second = logits(model, ids), logits(again, ids)
    plain = logits(base(), ids)
    print(name, abs(first - second).max(), abs(second - plain).max())
    return second


def main() -> None:
    """Makes everything."""
    values = {}
    for seed, (name, fields) in enumerate(ADAPTERS.items()):
        values[name] = make(name, fields, seed)
    save_file(values, HERE / "logits.safetensors")


main()
