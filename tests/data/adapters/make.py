"""Makes the checkpoints, adapters and logits in this folder: ``python make.py DIR``.

Needs torch, transformers and PEFT, which the tests do not.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import peft
import torch
import transformers
from peft.tuners.lora.corda import preprocess_corda
from peft.tuners.lora.loraga import preprocess_loraga
from safetensors.numpy import save_file

SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "max_position_embeddings": 64,
}
IDS = torch.tensor([[3, 5, 1, 7, 30, 3], [5, 2, 9, 11, 5, 31]])
CONVERTED = {
    "corda": {"corda_config": peft.tuners.lora.config.CordaConfig(corda_method="kpm")},
    "lora_ga": {"lora_ga_config": peft.LoraGAConfig()},
}
"""Ways to begin that need data, and are converted to plain LoRA when they are saved."""
EMBED, HEAD = "embed_tokens", "lm_head"
ADAPTERS = {
    "untied": {
        "dora": {"target_modules": ["q_proj", "down_proj"], "use_dora": True},
        "lora_bias": {"target_modules": ["q_proj", "up_proj"], "lora_bias": True},
        "head": {"target_modules": [HEAD, "q_proj"]},
        "embed": {"target_modules": [EMBED, "q_proj"]},
        "saved": {
            "target_modules": ["q_proj"],
            "modules_to_save": [HEAD, EMBED, "norm", "input_layernorm"],
        },
        "pissa": {"target_modules": ["q_proj"], "init_lora_weights": "pissa"},
        "dora_outside": {"target_modules": [HEAD, EMBED, "q_proj"], "use_dora": True},
        "pissa_head": {"target_modules": [HEAD], "init_lora_weights": "pissa"},
        "olora": {"target_modules": ["up_proj"], "init_lora_weights": "olora"},
        "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [5, 3]},
        "tokens_of_both": {
            "target_modules": ["q_proj"],
            "trainable_token_indices": {EMBED: [5], HEAD: [7, 30]},
        },
    },
    "tied": {
        "dora": {"target_modules": ["q_proj", "v_proj"], "use_dora": True},
        "dora_head": {"target_modules": [HEAD, "q_proj"], "use_dora": True},
        "lora_bias": {"target_modules": ["q_proj", "k_proj"], "lora_bias": True},
        "biases": {"target_modules": ["q_proj"], "bias": "all"},
        "head": {"target_modules": [HEAD, "q_proj"]},
        "embed": {"target_modules": [EMBED, "q_proj"]},
        "embed_and_head": {
            "target_modules": [EMBED, "q_proj"],
            "ensure_weight_tying": True,
        },
        "saved": {"target_modules": ["q_proj"], "modules_to_save": [EMBED]},
        "saved_and_tied": {
            "target_modules": ["q_proj"],
            "modules_to_save": [EMBED],
            "ensure_weight_tying": True,
        },
        "saved_head": {"target_modules": ["q_proj"], "modules_to_save": [HEAD]},
        "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [5, 3]},
        "resized": {"target_modules": ["q_proj"]},
    },
}


def draw(model, std):
    """Draws every parameter that is trained, and those of a base."""
    for name, values in model.named_parameters():
        if values.requires_grad:
            at_one = "norm" in name or "magnitude" in name
            start = values if at_one else 0.0
            values.data.copy_(start + std * torch.randn_like(values))


def base(folder):
    """Writes a checkpoint: a Llama, or a Qwen 2 with biases and a tied head."""
    kind = {"untied": transformers.LlamaConfig, "tied": transformers.Qwen2Config}
    name = folder.parent.name
    config = kind[name](**SIZES, tie_word_embeddings=name == "tied")
    model = transformers.AutoModelForCausalLM.from_config(config)
    draw(model, 0.3)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink()


def rename(path):
    """Names the base without its folder."""
    config = json.loads(path.read_text()) | {"base_model_name_or_path": "base"}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def adapter(base, folder, fields):
    """Writes an adapter, and returns its logits."""
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    if folder.name == "resized":
        model.resize_token_embeddings(36)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, lora_alpha=6, **fields)
    model = peft.get_peft_model(model, config)
    draw(model, 0.4)
    if folder.name == "resized":
        draw(model.get_input_embeddings().requires_grad_(), 0.3)
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    rename(folder / "adapter_config.json")
    model.eval()
    again = transformers.AutoModelForCausalLM.from_pretrained(base)
    if folder.name == "resized":
        again.resize_token_embeddings(36)
    again = peft.PeftModel.from_pretrained(again, folder).eval()
    with torch.no_grad():
        first, second = model(IDS).logits, again(IDS).logits
    print(folder, float((first - second).abs().max()))
    return second.numpy()


def converted(base, folder, fields):
    """Writes an adapter as PEFT converts it, and returns its logits."""
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        r=2,
        lora_alpha=6,
        target_modules=["q_proj", "up_proj"],
        init_lora_weights=folder.name,
        **fields,
    )
    ids = torch.randint(3, 32, (8, 12))
    if folder.name == "corda":
        preprocess_corda(model, config, run_model=lambda: [model(x[None]) for x in ids])
    else:
        preprocess_loraga(
            model, config, lambda: model(input_ids=ids, labels=ids).loss.backward()
        )
    model = peft.get_peft_model(model, config)
    initial = folder.parent / f"{folder.name}_before"
    model.save_pretrained(initial)
    for name, values in model.named_parameters():
        if "lora_" in name:
            values.data.add_(0.3 * torch.randn_like(values))
    model.save_pretrained(folder, path_initial_model_for_weight_conversion=str(initial))
    shutil.rmtree(initial)
    (folder / "README.md").unlink()
    rename(folder / "adapter_config.json")
    again = transformers.AutoModelForCausalLM.from_pretrained(base)
    again = peft.PeftModel.from_pretrained(again, folder).eval()
    with torch.no_grad():
        first, second = model.eval()(IDS).logits, again(IDS).logits
    print(folder, float((first - second).abs().max()))
    return second.numpy()


def main(out):
    """Makes everything."""
    logits = {"ids": IDS.numpy().astype(np.int32)}
    for seed, (name, adapters) in enumerate(ADAPTERS.items()):
        torch.manual_seed(seed)
        base(out / name / "base")
        for kind, fields in adapters.items():
            values = adapter(out / name / "base", out / name / kind, fields)
            logits[f"{name}/{kind}"] = values
        for kind, fields in CONVERTED.items() if name == "untied" else ():
            values = converted(out / name / "base", out / name / kind, fields)
            logits[f"{name}/{kind}"] = values
    save_file(
        {k: v.astype(np.float32) for k, v in logits.items()},
        out / "logits.safetensors",
    )


main(pathlib.Path(sys.argv[1]))
