"""Mixtral: a Mistral with eight MLPs a layer, two of them for each token."""

from typing import Any

from jaxlora.models.checked import Raw
from jaxlora.models.config import DecoderConfig
from jaxlora.models.families.family import (
    COMMON,
    NO_BIASES,
    Family,
    all_slide,
    moe,
    windows,
)


def _read(raw: Raw) -> dict[str, Any]:
    return moe(raw, "num_local_experts") | {"moe_normalize": True}


def _write(config: DecoderConfig) -> Raw:
    return windows(config) | {
        "num_local_experts": config.moe_mlps,
        "num_experts_per_tok": config.moe_top_k,
    }


MIXTRAL = Family(
    model_class="MixtralForCausalLM",
    defaults=COMMON
    | {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": None,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1_000_000.0,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
    read=_read,
    write=_write,
    slides=all_slide,
    layer_types=False,
    refused=NO_BIASES,
)
