"""GPT-2: learned positions, LayerNorm, biases, and kernels stored as [in, out]."""

from typing import Any

from jaxlora.models.checked import Raw, flag, size
from jaxlora.models.config import DecoderConfig
from jaxlora.models.families.family import Family


def _read(raw: Raw) -> dict[str, Any]:
    heads, width = size(raw, "num_attention_heads"), size(raw, "hidden_size")
    return {
        "num_kv_heads": heads,
        "head_dim": width // heads,
        "positions": "learned",
        "mlp": "plain",
        "mlp_size": size(raw, "n_inner", 4 * width),  # its only name there
        "norm": "layer",
        "fused_projections": True,
        "attention_bias": True,
        "output_bias": True,
        "mlp_bias": True,
    } | ({} if flag(raw, "scale_attn_weights") else {"query_scale": 1.0})


def _write(config: DecoderConfig) -> Raw:
    return {"scale_attn_weights": False} if config.query_scale == 1.0 else {}


GPT2 = Family(
    model_class="GPT2LMHeadModel",
    defaults={
        "vocab_size": 50_257,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": None,
        "max_position_embeddings": 1024,
        "hidden_act": "gelu_new",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "scale_attn_weights": True,
    },
    read=_read,
    write=_write,
    layer_types=False,
    spelling={
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "n_inner",
        "max_position_embeddings": "n_positions",
        "hidden_act": "activation_function",
        "rms_norm_eps": "layer_norm_epsilon",
    },
    refused={
        "scale_attn_by_inverse_layer_idx": "attention scores scaled by layer",
        "add_cross_attention": "attention to another model's states",
    },
)
