"""Qwen 2, 2.5 (``qwen2``: biases on q, k and v) and 3 (``qwen3``: norms of q and k)."""

from typing import Any

from jaxlora.models.checked import Raw, flag, size
from jaxlora.models.config import DecoderConfig
from jaxlora.models.families.family import (
    COMMON,
    Family,
    biases,
    biases_out,
    layer_types,
)

QWEN = COMMON | {
    "vocab_size": 151_936,
    "hidden_size": 4096,
    "intermediate_size": 22_016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32_768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
"""Defaults of both."""


def slides(raw: Raw, layer: int) -> bool:
    """Has layer i a sliding window? The later ones do, if any.

    Args:
      raw: config.json, with its defaults.
      layer: i.
    """
    if not flag(raw, "use_sliding_window") or raw.get("sliding_window") is None:
        return False
    return layer >= size(raw, "max_window_layers", least=0)


def _windows(config: DecoderConfig) -> Raw:
    return layer_types(config) | {"use_sliding_window": any(config.local_layers)}


def _read_qwen2(raw: Raw) -> dict[str, Any]:
    del raw
    return {"attention_bias": True}


def _read_qwen3(raw: Raw) -> dict[str, Any]:
    return biases(raw) | {"qk_norm": True}


def _write_qwen3(config: DecoderConfig) -> Raw:
    return biases_out(config) | _windows(config)


QWEN2 = Family(
    model_class="Qwen2ForCausalLM",
    defaults=QWEN,
    read=_read_qwen2,
    write=_windows,
    slides=slides,
    refused={"mlp_bias": "biases on other layers than q, k and v"},
)
QWEN3 = Family(
    model_class="Qwen3ForCausalLM",
    defaults=QWEN | {"head_dim": 128},
    read=_read_qwen3,
    write=_write_qwen3,
    slides=slides,
    refused={"mlp_bias": "biases in the MLP"},
)
