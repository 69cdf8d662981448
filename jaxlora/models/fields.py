"""Fields of ``config.json``: the text model's, with their defaults."""

from collections.abc import Mapping

from jaxlora.io.tensors import short
from jaxlora.models.checked import MOST as MOST
from jaxlora.models.checked import Raw as Raw
from jaxlora.models.checked import flag as flag
from jaxlora.models.checked import positive as positive
from jaxlora.models.checked import size as size
from jaxlora.models.families import FAMILIES

DEFAULTS: Mapping[str, Raw] = {
    kind: dict(family.defaults) for kind, family in FAMILIES.items()
}
"""What transformers takes for a field that config.json lacks, by ``model_type``."""

CLASSES = {kind: family.model_class for kind, family in FAMILIES.items()}
"""The class of transformers, by ``model_type``."""

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
"""Ours, by theirs."""


WRAPPERS = {
    "gemma3": "gemma3_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
}
"""Types of models that see, and those of their language models."""
_DRAFTING = "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"


def is_wrapper(raw: Raw) -> bool:
    """Is this the config of a model that sees, around a language model?

    Args:
      raw: config.json.
    """
    kind = raw.get("model_type")
    return isinstance(kind, str) and kind in WRAPPERS


def may_hold_more(raw: Raw) -> bool:
    """May its checkpoint have tensors that its language model does not compute with?

    Those of Qwen 3.5 and 3 Next have layers that predict later tokens, and keep them in
    text-only copies.

    Args:
      raw: config.json.
    """
    return is_wrapper(raw) or raw.get("model_type") in _DRAFTING


def language(raw: Raw) -> Raw:
    """Returns the config of the language model alone.

    Models with vision keep it under ``text_config``; the vision tower is left out.
    """
    if not is_wrapper(raw):
        return dict(raw)
    outside, inside = raw["model_type"], WRAPPERS[raw["model_type"]]
    inner = raw.get("text_config")
    shared = ("dtype", "torch_dtype", "quantization_config")
    outer = {key: raw[key] for key in shared if raw.get(key) is not None}
    # The head belongs to the outer model, so the outer flag decides.
    tie = {"tie_word_embeddings": raw.get("tie_word_embeddings", outside == "gemma3")}
    kind = {"model_type": inside, "architectures": [CLASSES[inside]]}
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
            f"are {', '.join(DEFAULTS)}, and {', '.join(WRAPPERS)} (their text "
            f"models)."
        )
    ours = {ours: raw[theirs] for ours, theirs in _spelled(kind) if theirs in raw}
    return DEFAULTS[kind] | raw | ours


def _spelled(kind: str) -> list[tuple[str, str]]:
    return list(FAMILIES[kind].spelling.items())
