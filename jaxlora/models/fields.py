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
    ours = {ours: raw[theirs] for ours, theirs in _spelled(kind) if theirs in raw}
    return DEFAULTS[kind] | raw | ours


def _spelled(kind: str) -> list[tuple[str, str]]:
    return list(FAMILIES[kind].spelling.items())
