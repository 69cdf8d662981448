"""``config.json`` from the metadata of a GGUF file."""

import math
from typing import Any

import numpy as np

from jaxlora.integrations.gguf import rope
from jaxlora.integrations.gguf.names import ROPE
from jaxlora.integrations.gguf.values import Model
from jaxlora.models import architectures
from jaxlora.models.fields import CLASSES

ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
}
"""``model_type`` by ``general.architecture``."""
_SIZES = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "context_length": "max_position_embeddings",
}
_LOCAL_THETA = 10_000.0  # of Gemma 3's layers with a window; no file says it
_LARGE_LAYERS = {"gemma2": 46, "gemma3_text": 62}  # their 27B scales queries otherwise


def kind(model: Model) -> str:
    """Returns the ``model_type`` of a model.

    Args:
      model: as opened.

    Raises:
      ValueError: if its architecture is not in :data:`ARCHITECTURES`.
    """
    name = model.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ValueError(
            f"The file has the architecture {name!r:.60}, which is not supported; "
            f"supported are {', '.join(ARCHITECTURES)}."
        )
    return ARCHITECTURES[name]


def from_metadata(model: Model) -> dict[str, Any]:
    """Returns the config.json of a model, in the form of transformers 4.

    Args:
      model: as opened.

    Raises:
      ValueError: if a field is missing, out of range or not supported.
    """
    model_type = kind(model)
    architecture = model.metadata["general.architecture"]
    raw: dict[str, Any] = {
        "architectures": [CLASSES[model_type]],
        "model_type": model_type,
        "vocab_size": _vocabulary(model),
        "tie_word_embeddings": "output.weight" not in model.blocks,
        "rms_norm_eps": _required(model, "attention.layer_norm_rms_epsilon", float),
        "rope_theta": _number(model, "rope.freq_base", float) or 10_000.0,
        "torch_dtype": "float32",
    }
    for theirs, ours in _SIZES.items():
        raw[ours] = _required(model, theirs, int)
    heads = raw["num_attention_heads"]
    default = raw["hidden_size"] // heads if heads > 0 else 0
    raw["head_dim"] = _number(model, "attention.key_length", int) or default
    raw["rope_scaling"] = _scaling(model, raw, architecture)
    if model_type.startswith("gemma"):
        raw |= _gemma(model, raw)
    raw |= _special(model)
    architectures.from_json(raw)  # its errors name the field, before a tensor is read
    return raw


def _field(model: Model, name: str) -> Any:
    return model.metadata.get(f"{model.metadata['general.architecture']}.{name}")


def _number(model: Model, name: str, of: type) -> Any:
    value = _field(model, name)
    if value is None or (type(value) in (int, float) and of is float):
        return None if value is None else _short(float(value))
    if type(value) is not of:
        raise ValueError(
            f"The file's {name} is {value!r:.60}, expected a plain {of.__name__}; "
            f"values that differ between layers are not supported."
        )
    return value


def _short(value: float) -> float:
    """A float32 as the shortest decimal that is it: 1e-5, and not 9.99999975e-06."""
    return float(str(np.float32(value))) if math.isfinite(value) else value


def _required(model: Model, name: str, of: type) -> Any:
    value = _number(model, name, of)
    if value is None:
        architecture = model.metadata["general.architecture"]
        raise ValueError(f"The file lacks {architecture}.{name}, which is expected.")
    return value


def _vocabulary(model: Model) -> int:
    block = model.blocks.get("token_embd.weight")
    if block is None or len(block.shape) != 2:
        raise ValueError(
            "The file holds no token_embd.weight with two axes, expected a whole model "
            "and not an adapter, a vocabulary or a vision tower."
        )
    return block.shape[0]


def _scaling(
    model: Model, raw: dict[str, Any], architecture: str
) -> dict[str, Any] | None:
    rotated = _number(model, "rope.dimension_count", int) or raw["head_dim"]
    if rotated != raw["head_dim"]:
        raise ValueError(
            f"The file rotates {rotated} of {raw['head_dim']} channels of a head, "
            f"expected all; partial rotary positions are not supported."
        )
    if ROPE in model.blocks:
        divisors = model.read(ROPE)
        return rope.llama3(divisors, raw["rope_theta"], raw["head_dim"])
    rule = _field(model, "rope.scaling.type")
    if rule in (None, "none"):
        return None
    if rule != "linear":
        raise ValueError(
            f"The file's {architecture}.rope.scaling.type is {rule!r:.40}, expected "
            f"none or linear, or Llama 3's rope_freqs; others are not supported."
        )
    return {
        "rope_type": "linear",
        "factor": _required(model, "rope.scaling.factor", float),
    }


def _gemma(model: Model, raw: dict[str, Any]) -> dict[str, Any]:
    kind_, heads = raw["model_type"], raw["num_attention_heads"]
    large = raw["num_hidden_layers"] == _LARGE_LAYERS[kind_]
    fields = {
        "query_pre_attn_scalar": raw["hidden_size"] // heads
        if large
        else raw["head_dim"],
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": _required(model, "attention.sliding_window", int),
        "attn_logit_softcapping": _number(model, "attn_logit_softcapping", float),
        "final_logit_softcapping": _number(model, "final_logit_softcapping", float),
    }
    if kind_ == "gemma3_text":
        fields["rope_local_base_freq"] = _LOCAL_THETA
    return fields


def _special(model: Model) -> dict[str, int]:
    """Ids of special tokens, as config.json names them."""
    given = {
        f"{ours}_token_id": model.metadata.get(f"tokenizer.ggml.{theirs}_token_id")
        for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
    }
    return {name: value for name, value in given.items() if type(value) is int}
