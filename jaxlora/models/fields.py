"""Fields of ``config.json``: defaults by model type, and checked reading."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from jaxlora.io.tensors import short

Raw: TypeAlias = dict[str, Any]

_COMMON = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "rope_theta": 10_000.0,
}
_QWEN = _COMMON | {
    "vocab_size": 151_936,
    "hidden_size": 4096,
    "intermediate_size": 22_016,
    "num_key_value_heads": 32,
    "max_position_embeddings": 32_768,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
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
DEFAULTS: Mapping[str, Raw] = {
    "llama": _COMMON
    | {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "max_position_embeddings": 2048,
    },
    "qwen2": _QWEN,
    "qwen3": _QWEN | {"head_dim": 128},
    "gemma2": _GEMMA
    | {
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    "gemma3_text": _GEMMA
    | {
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
        "rope_theta": 1_000_000.0,
        "rope_local_base_freq": 10_000.0,
        "sliding_window_pattern": 6,
    },
}
"""What transformers takes for a field that config.json lacks, by ``model_type``."""

CLASSES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma2": "Gemma2ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
"""The class of transformers, by ``model_type``."""

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
"""Ours, by theirs."""


def language(raw: Raw) -> Raw:
    """Returns the config of the language model alone.

    Gemma 3 with vision keeps it under ``text_config``; the vision tower is left out.
    """
    if raw.get("model_type") != "gemma3":
        return dict(raw)
    inner = raw.get("text_config")
    shared = ("dtype", "torch_dtype", "quantization_config")
    outer = {key: raw[key] for key in shared if raw.get(key) is not None}
    # The head belongs to the outer model, so the outer flag decides.
    tie = {"tie_word_embeddings": raw.get("tie_word_embeddings", True)}
    kind = {"model_type": "gemma3_text", "architectures": [CLASSES["gemma3_text"]]}
    return outer | (inner if isinstance(inner, dict) else {}) | tie | kind


def text_config(raw: Raw) -> Raw:
    """As :func:`language`, with every default filled in.

    Raises:
      ValueError: if the architecture is not supported.
    """
    raw = language(raw)
    kind = raw.get("model_type")
    if not isinstance(kind, str) or kind not in DEFAULTS:
        raise ValueError(
            f"config.json has model_type {short(kind)} (architectures "
            f"{short(raw.get('architectures'))}), which is not supported; supported "
            f"are {', '.join(DEFAULTS)}, and gemma3 (its text model)."
        )
    return DEFAULTS[kind] | raw


MOST = {
    "num_hidden_layers": 2**12,
    "num_attention_heads": 2**12,
    "num_key_value_heads": 2**12,
    "head_dim": 2**16,
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "vocab_size": 2**24,
}
"""The largest sizes, some times those of any model; others are below 2**31."""
_FLOATS = (1e-30, 1e30)


def size(raw: Raw, field: str, default: int | None = None, *, least: int = 1) -> int:
    """Returns a whole number from ``least`` on; null and absent are the default.

    Raises:
      ValueError: if it is none.
    """
    value = raw.get(field)
    value = default if value is None else value
    most = MOST.get(field, 2**31 - 1)
    if type(value) is not int or not least <= value <= most:
        raise ValueError(
            f"config.json has {field} {short(value)}, expected a whole number from "
            f"{least} to {most}."
        )
    return value


def positive(raw: Raw, field: str, default: float | None = None) -> float:
    """Returns a positive finite number; null and absent are the default.

    Raises:
      ValueError: if it is none.
    """
    value = raw.get(field)
    if value is None and default is not None:
        return default
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    least, most = _FLOATS
    if not fine or not least <= value <= most:
        raise ValueError(
            f"config.json has {field} {short(value)}, expected a positive number, at "
            f"least {least} and at most {most}."
        )
    return float(value)


def flag(raw: Raw, field: str) -> bool:
    """Returns true or false; null and absent are false.

    Raises:
      ValueError: if it is something else.
    """
    value = raw.get(field)
    if not isinstance(value, bool | None):
        raise ValueError(
            f"config.json has {field} {short(value)}, expected true or false."
        )
    return bool(value)
