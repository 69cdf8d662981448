"""Writes tiny random checkpoints, PEFT adapters and their logits, one folder a family.

Needs torch, transformers and peft, which the tests do not: they read what this has
written. Run it as ``python tests/data/families/make.py [FAMILY ...]``.
"""

import json
import pathlib
import shutil
import sys

import numpy as np
import peft
import torch
import transformers
from safetensors.numpy import load_file, save_file

HERE = pathlib.Path(__file__).parent
SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MOE = {"num_experts_per_tok": 2}
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LINEAR = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
DELTA = ["in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj"]
LONG = {
    "type": "longrope",
    "short_factor": [1.0, 1.1, 1.3],
    "long_factor": [1.5, 2.5, 4.0],
}
NEXT = {
    "num_hidden_layers": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "partial_rotary_factor": 0.5,
}
MIXTURE = {
    "num_experts": 5,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 20,
}
FAMILIES = {
    "mistral": ({"sliding_window": 4, "head_dim": 16}, LINEAR),
    "mistral_plain": ({"model_type": "mistral", "sliding_window": None}, LINEAR),
    "phi3": (
        {
            "partial_rotary_factor": 0.75,
            "rope_scaling": LONG,
            "original_max_position_embeddings": 8,
            "sliding_window": 6,
        },
        ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],
    ),
    "gemma": ({"head_dim": 16}, LINEAR),
    "qwen3_moe": (
        MOE
        | {"num_experts": 5, "moe_intermediate_size": 24, "head_dim": 16}
        | {"norm_topk_prob": False},
        ATTENTION,
    ),
    "mixtral": (MOE | {"num_local_experts": 4}, ATTENTION),
    "gpt2": (
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_inner": None,
            "n_positions": 64,
            "tie_word_embeddings": True,
        },
        ["c_attn", "c_proj", "c_fc"],
    ),
    "olmo2": ({}, LINEAR),
    "granite": (
        {
            "attention_multiplier": 0.4,
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.22,
            "logits_scaling": 1.7,
            "attention_bias": True,
            "mlp_bias": True,
        },
        LINEAR,
    ),
    "smollm3": (
        {"num_hidden_layers": 4, "no_rope_layer_interval": 2, "intermediate_size": 24},
        LINEAR,
    ),
    "yarn": (
        {
            "model_type": "llama",
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
        LINEAR,
    ),
    "dynamic": (
        {
            "model_type": "llama",
            "max_position_embeddings": 8,
            "rope_scaling": {"rope_type": "dynamic", "factor": 2.0},
        },
        LINEAR,
    ),
    "qwen3_5_text": (
        {
            "num_hidden_layers": 4,
            "layer_types": ["linear_attention", "full_attention"] * 2,
            "head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 12,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 100.0,
                "partial_rotary_factor": 0.5,
                "mrope_interleaved": True,
                "mrope_section": [2, 1, 1],
            },
        },
        LINEAR + DELTA,
    ),
    "qwen3_5_moe_text": (NEXT | MIXTURE | MOE, ATTENTION + DELTA),
    "qwen3_next": (
        NEXT | MIXTURE | MOE | {"mlp_only_layers": [1], "norm_topk_prob": False},
        [*ATTENTION, "in_proj_qkvz", "in_proj_ba", "out_proj", "shared_expert_gate"],
    ),
    "qwen3_moe_some": (
        MOE
        | {"model_type": "qwen3_moe", "num_hidden_layers": 4, "head_dim": 16}
        | {"num_experts": 5, "moe_intermediate_size": 24, "decoder_sparse_step": 2},
        ATTENTION,
    ),
}
"""Fields of each config, and the modules that its adapter is of."""


def model_of(name: str, fields: dict):
    """A model of random weights, none of them at its trivial start."""
    kind = fields.pop("model_type", name)
    config = transformers.AutoConfig.for_model(kind, **SIZES | fields)
    model = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        for path, value in model.named_parameters():
            if path.endswith("A_log"):  # decays of a few tokens and of many
                value.uniform_(-4.0, 0.0)
            elif "norm" in path or "ln_" in path or path.endswith("bias"):
                value += 0.3 * torch.randn_like(value)
            else:
                value.normal_(std=0.6 if "conv1d" in path else 0.25)
    return model


def adapted(model, targets: list[str], seed: int):
    """A PEFT model with an adapter that is not zero."""
    torch.manual_seed(seed)
    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=targets)
    wrapped = peft.get_peft_model(model, config).eval()
    with torch.no_grad():
        for path, value in wrapped.named_parameters():
            if "lora_" in path:
                value.normal_(std=0.3)
    return wrapped


def of_experts(name: str, folder: pathlib.Path, fields: dict, seed: int) -> None:
    """Writes an adapter of every MLP of a layer, as PEFT had them on transformers 4."""
    block, names = "block_sparse_moe", ("w1", "w3", "w2")
    count, wide = fields.get("num_local_experts"), SIZES["intermediate_size"]
    if name == "qwen3_moe":
        block, names = "mlp", ("gate_proj", "up_proj", "down_proj")
        count, wide = fields["num_experts"], fields["moe_intermediate_size"]
    rng, values, narrow = np.random.default_rng(seed), {}, SIZES["hidden_size"]
    for layer in range(SIZES["num_hidden_layers"]):
        for number in range(count):
            for module in names:
                down = module == names[2]
                shapes = {"A": (2, wide if down else narrow)}
                shapes["B"] = (narrow if down else wide, 2)
                path = f"model.layers.{layer}.{block}.experts.{number}.{module}"
                for factor, shape in shapes.items():
                    key = f"base_model.model.{path}.lora_{factor}.weight"
                    values[key] = (0.3 * rng.normal(size=shape)).astype(np.float32)
    folder.mkdir()
    save_file(values, folder / "adapter_model.safetensors", {"format": "pt"})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 3}
    config |= {"target_modules": list(names), "inference_mode": True}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")


def logits(model, ids) -> np.ndarray:
    """Logits [B, T, V] of token ids, float32."""
    with torch.no_grad():
        return model(torch.tensor(ids), use_cache=False).logits.numpy()


def halve(model) -> None:
    """Rounds parameters to float16, and no buffers."""
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(value.half().float())


def rounded(folder: pathlib.Path) -> None:
    """Stores weights in float16: half the size, and each value still exact."""
    path = folder / "model.safetensors"
    values = {x: v.astype(np.float16) for x, v in load_file(path).items()}
    save_file(values, path, metadata={"format": "pt"})


def make(name: str, seed: int) -> None:
    """Writes the folder of one family."""
    fields, targets = FAMILIES[name]
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    torch.manual_seed(seed)
    model = model_of(name, dict(fields))
    halve(model)  # what is stored is what is computed with
    model.save_pretrained(out / "base")
    rounded(out / "base")
    (out / "base" / "generation_config.json").unlink()
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, 64, (2, 14))
    short = ids[:, :7]  # within the trained length of what is stretched
    reference = {"base": logits(model, ids), "short": logits(model, short)}
    for number in (1, 2):
        wrapped = adapted(model, targets, seed + number)
        halve(wrapped)
        adapter = out / f"adapter{number}"
        wrapped.save_pretrained(adapter)
        (adapter / "README.md").unlink()
        reference[adapter.name] = logits(wrapped, ids)
        model = wrapped.unload()
    if name in ("mixtral", "qwen3_moe"):
        of_experts(name, out / "experts", fields, seed)
        wrapped = peft.PeftModel.from_pretrained(model, out / "experts").eval()
        reference["experts"] = logits(wrapped, ids)
        model = wrapped.unload()
    # Last: what "dynamic" rotates with depends on the longest text so far.
    prompt = torch.tensor(ids)
    new = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=6,
        do_sample=False,
    )
    text = {"input_ids": ids.tolist(), "greedy": new[:, 14:].tolist()}
    (out / "reference.json").write_text(json.dumps(text) + "\n")
    save_file(reference, out / "reference.safetensors")
    print(name, sum(f.stat().st_size for f in out.rglob("*") if f.is_file()))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for number, family in enumerate(FAMILIES):
        if len(sys.argv) == 1 or family in sys.argv[1:]:
            make(family, 2000 + 10 * number)
