"""GGUF files written from the tiny checkpoints in tests/data/hf, by gguf's own writer.

The layout is that of llama.cpp's convert_hf_to_gguf.py, written down once more from its
rules: permuted q and k in Llama, 1 added to norms in Gemma.
"""

import json
from pathlib import Path

import gguf
import numpy as np
from gguf import quants
from safetensors.numpy import load_file

DATA = Path(__file__).parents[0] / "data" / "hf"
ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3",
}
BLOCK = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
SPECIAL = ["<unk>", "<s>", "</s>"]


def config(family):
    return json.loads((DATA / family / "base" / "config.json").read_text())


def name_of(theirs, family):
    if theirs in TOP:
        return TOP[theirs]
    _, _, layer, rest = theirs.split(".", 3)
    module, _, part = rest.rpartition(".")
    gemma = family.startswith("gemma")
    if gemma and module == "post_attention_layernorm":
        return f"blk.{layer}.post_attention_norm.{part}"
    return f"blk.{layer}.{BLOCK[module]}.{part}"


def permuted(values, heads):
    """llama.cpp's: channels (i, i + H/2) of a head become neighbours."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.swapaxes(halves, 1, 2).reshape(values.shape)


def tensors(family):
    """{GGUF's name: values}, as a writer keeps them."""
    raw, out = config(family), {}
    for theirs, values in load_file(
        DATA / family / "base" / "model.safetensors"
    ).items():
        name = name_of(theirs, family)
        if family == "llama" and ".attn_q." in name:
            values = permuted(values, raw["num_attention_heads"])
        if family == "llama" and ".attn_k." in name:
            values = permuted(values, raw["num_key_value_heads"])
        if family.startswith("gemma") and name.endswith("norm.weight"):
            values = values + np.float32(1)
        out[name] = values
    return out


def rope_freqs(raw):
    """Llama 3's divisors, wavelength by wavelength."""
    rule, out = raw["rope_parameters"], []
    for i in range(0, raw["head_dim"], 2):
        wave = 2 * np.pi * rule["rope_theta"] ** (i / raw["head_dim"])
        length = rule["original_max_position_embeddings"]
        if wave < length / rule["high_freq_factor"]:
            out.append(1.0)
        elif wave > length / rule["low_freq_factor"]:
            out.append(rule["factor"])
        else:
            s = (length / wave - 1.0) / (rule["high_freq_factor"] - 1.0)
            out.append(1 / ((1 - s) / rule["factor"] + s))
    return np.asarray(out, np.float32)


def add_vocabulary(writer, size):
    """256 tokens or more of a byte-level vocabulary with two merges."""
    merged = ["ab", "abc"]
    letters = [chr(i) for i in range(0x21, 0x7F)]
    tokens = [*SPECIAL, *letters, *merged, "Ġ", "Ċ"]
    tokens += [f"<extra_{i}>" for i in range(size - len(tokens))]
    kinds = [3 if t.startswith("<") and len(t) > 1 else 1 for t in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(["a b", "ab c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")


def add_fields(writer, raw, family):
    writer.add_context_length(raw["max_position_embeddings"])
    writer.add_embedding_length(raw["hidden_size"])
    writer.add_block_count(raw["num_hidden_layers"])
    writer.add_feed_forward_length(raw["intermediate_size"])
    writer.add_head_count(raw["num_attention_heads"])
    writer.add_head_count_kv(raw["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(raw["rms_norm_eps"])
    writer.add_key_length(raw.get("head_dim", 16))
    rope = raw["rope_parameters"]
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])
    if family.startswith("gemma"):
        writer.add_sliding_window(raw["sliding_window"])
    if family == "gemma2":
        writer.add_attn_logit_softcapping(raw["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(raw["final_logit_softcapping"])


def write(path, family="llama", kind=None, change=None, **options):
    """Writes a tiny model; matrices in ``kind``, and fields changed at will.

    Args:
      kind: a GGMLQuantizationType; None for float32.
      change: ``change(writer)`` after all other fields.
      **options: of the writer.
    """
    raw = config(family)
    writer = gguf.GGUFWriter(path, ARCHITECTURES[family], **options)
    add_fields(writer, raw, family)
    add_vocabulary(writer, raw["vocab_size"])
    if change is not None:
        change(writer)
    out = tensors(family)
    if family == "llama":
        out["rope_freqs.weight"] = rope_freqs(raw)
    for name, values in out.items():
        if kind is not None and values.ndim == 2:
            data = quants.quantize(values, kind)
            writer.add_tensor(name, data, raw_dtype=kind)
        else:
            writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
