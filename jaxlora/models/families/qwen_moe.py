"""Qwen 3 with many small MLPs in every layer, or in most (``qwen3_moe``)."""

from typing import Any

from jaxlora.models.checked import Raw, flag, size
from jaxlora.models.config import DecoderConfig
from jaxlora.models.families.family import (
    COMMON,
    Family,
    biases,
    biases_out,
    moe,
    sparse,
    sparse_out,
)


def _read(raw: Raw) -> dict[str, Any]:
    count = "num_local_experts" if "num_local_experts" in raw else "num_experts"
    mixture = moe(raw, count) | {
        "mlp_size": size(raw, "moe_intermediate_size"),
        "moe_normalize": flag(raw, "norm_topk_prob"),
    }
    return biases(raw) | sparse(raw, mixture) | {"qk_norm": True}


def _write(config: DecoderConfig) -> Raw:
    return (
        biases_out(config)
        | sparse_out(config)
        | {
            "moe_intermediate_size": config.mlp_size,
            "num_experts": config.moe_mlps,
            "num_experts_per_tok": config.moe_top_k,
            "norm_topk_prob": config.moe_normalize,
            "use_sliding_window": any(config.local_layers),
            "sliding_window": config.window or None,
        }
    )


def _slides(raw: Raw, layer: int) -> bool:
    del layer
    return flag(raw, "use_sliding_window") and raw.get("sliding_window") is not None


QWEN3_MOE = Family(
    model_class="Qwen3MoeForCausalLM",
    defaults=COMMON
    | {
        "vocab_size": 151_936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "num_hidden_layers": 24,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32_768,
        "use_sliding_window": False,
        "sliding_window": 4096,
        "decoder_sparse_step": 1,
        "moe_intermediate_size": 768,
        "num_experts_per_tok": 8,
        "num_experts": 128,
        "norm_topk_prob": False,
    },
    read=_read,
    write=_write,
    slides=_slides,
    layer_types=False,
    refused={
        "mlp_bias": "biases in the MLP",
    },
)
