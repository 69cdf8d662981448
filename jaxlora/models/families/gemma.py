"""Gemma 1, 2 and 3 (its text model): norms of ``1 + scale`` and scaled embeddings.

Gemma 2 and 3 have norms after attention and MLP too, and a window on some layers; 2 has
soft caps, 3 norms of q and k, and another rope theta on layers with a window.
"""

import math
from typing import Any

from jaxlora.models.checked import Raw, positive, size
from jaxlora.models.config import DecoderConfig
from jaxlora.models.families.family import Family, biases, biases_out, layer_types

_GEMMA = {
    "vocab_size": 256_000,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "max_position_embeddings": 8192,
    "hidden_activation": "gelu_pytorch_tanh",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "rope_theta": 10_000.0,
}
_REFUSED = {
    "mlp_bias": "biases in the MLP",
    "use_bidirectional_attention": "masks that show later tokens",
}


def _scaled(raw: Raw) -> dict[str, Any]:
    width = size(raw, "hidden_size")
    return biases(raw) | {"embed_scale": math.sqrt(width), "norm_plus_one": True}


def _read_gemma(raw: Raw) -> dict[str, Any]:
    # The gelu of its checkpoints means the approximation by tanh, which newer ones say
    # in hidden_activation.
    fields: dict[str, Any] = _scaled(raw)
    return fields | ({"activation": "gelu_tanh"} if raw["hidden_act"] == "gelu" else {})


def _read_post_normed(raw: Raw) -> dict[str, Any]:
    scalar = positive(raw, "query_pre_attn_scalar")
    return _scaled(raw) | {"query_scale": scalar**-0.5, "post_norms": True}


def _read_gemma3(raw: Raw) -> dict[str, Any]:
    return _read_post_normed(raw) | {"qk_norm": True}


def _write_gemma(config: DecoderConfig) -> Raw:
    return biases_out(config) | {"hidden_activation": None}


def _write_post_normed(config: DecoderConfig) -> Raw:
    scale = config.query_scale or config.head_dim**-0.5
    return biases_out(config) | {
        "query_pre_attn_scalar": _scalar(scale),
        "attn_logit_softcapping": config.attn_softcap or None,
        "final_logit_softcapping": config.final_softcap or None,
        **layer_types(config),
    }


def _write_gemma3(config: DecoderConfig) -> Raw:
    return _write_post_normed(config) | {
        "rope_local_base_freq": config.local_rope_theta
    }


def _scalar(scale: float) -> float | int:
    """The number n with ``n ** -0.5 == scale``; a whole one if there is one."""
    number = round(scale**-2)
    return number if number and number**-0.5 == scale else scale**-2


def _every_other(raw: Raw, layer: int) -> bool:
    del raw
    return (layer + 1) % 2 != 0


def _all_but_each_nth(raw: Raw, layer: int) -> bool:
    return (layer + 1) % size(raw, "sliding_window_pattern") != 0


GEMMA = Family(
    model_class="GemmaForCausalLM",
    defaults={
        "vocab_size": 256_000,
        "hidden_size": 3072,
        "intermediate_size": 24_576,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 256,
        "max_position_embeddings": 8192,
        "hidden_act": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": True,
        "rope_theta": 10_000.0,
    },
    read=_read_gemma,
    write=_write_gemma,
    layer_types=False,
    refused=_REFUSED,
)
GEMMA2 = Family(
    model_class="Gemma2ForCausalLM",
    defaults=_GEMMA | {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
    read=_read_post_normed,
    write=_write_post_normed,
    slides=_every_other,
    refused=_REFUSED,
    activation="hidden_activation",
)
GEMMA3 = Family(
    model_class="Gemma3ForCausalLM",
    defaults=_GEMMA
    | {
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "sliding_window_pattern": 6,
    },
    read=_read_gemma3,
    write=_write_gemma3,
    slides=_all_but_each_nth,
    refused=_REFUSED,
    activation="hidden_activation",
)
