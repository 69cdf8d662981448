"""Phi 3, 3.5 and 4: q, k and v are one kernel, and so are gate and up.

Those for long contexts have rope scaling ``longrope``, which older files call ``su`` or
``yarn``; Phi-4-mini rotates a part of each head.
"""

from typing import Any

from jaxlora.models.checked import Raw
from jaxlora.models.config import DecoderConfig
from jaxlora.models.families.family import COMMON, NO_BIASES, Family, all_slide, windows


def _read(raw: Raw) -> dict[str, Any]:
    del raw
    return {"fused_projections": True}


def _write(config: DecoderConfig) -> Raw:
    scaling, raw = config.rope_scaling, windows(config)
    if scaling is not None:
        raw["original_max_position_embeddings"] = scaling.original_length
    if config.rotary_dim is not None:
        raw["partial_rotary_factor"] = config.rotary_dim / config.head_dim
    return raw


PHI3 = Family(
    model_class="Phi3ForCausalLM",
    defaults=COMMON
    | {
        "vocab_size": 32_064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
    },
    read=_read,
    write=_write,
    slides=all_slide,
    layer_types=False,
    refused=NO_BIASES,
    partial_rotary=True,
)
