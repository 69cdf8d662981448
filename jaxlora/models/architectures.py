"""``config.json`` of Hugging Face checkpoints as a :class:`DecoderConfig`.

Two forms are read. transformers 4 wrote ``rope_theta``, ``rope_scaling``,
``rope_local_base_freq``, ``sliding_window_pattern`` and ``torch_dtype``; transformers 5
writes ``rope_parameters``, ``layer_types`` and ``dtype``. A field that is absent has
the default of its model type, for transformers leaves out what equals its defaults.
What a decoder of ours cannot compute is refused by name, never ignored.

DeepSeek-R1-Distill checkpoints are of type ``qwen2`` or ``llama``.
"""

from typing import Any

from jaxlora.io import quantised
from jaxlora.io.tensors import short
from jaxlora.models import rope_json
from jaxlora.models.config import DecoderConfig
from jaxlora.models.families import FAMILIES, Family
from jaxlora.models.fields import (
    ACTIVATIONS,
    DEFAULTS,
    Raw,
    flag,
    positive,
    size,
    text_config,
)


def from_json(raw: Raw) -> DecoderConfig:
    """Returns the decoder that a config.json describes; types of weights are float32.

    Raises:
      ValueError: naming the field that is missing, out of range or not supported.

    >>> from_json({"model_type": "qwen2", "num_hidden_layers": 2}).attention_bias
    True
    """
    raw = text_config(raw)
    family = FAMILIES[raw["model_type"]]
    _refuse(raw, family)
    heads, hidden = size(raw, "num_attention_heads"), size(raw, "hidden_size")
    local = _local(raw, family)
    fields: dict[str, Any] = {
        "vocab_size": size(raw, "vocab_size"),
        "hidden_size": hidden,
        "num_layers": size(raw, "num_hidden_layers"),
        "num_heads": heads,
        "num_kv_heads": size(raw, "num_key_value_heads", heads),
        "head_dim": _head_dim(raw, hidden, heads),
        "mlp": "gated",
        "activation": _activation(raw, family.activation),
        "positions": "rope",
        "max_length": size(raw, "max_position_embeddings"),
        "local_layers": local,
        "window": size(raw, "sliding_window") if local else 0,
        "attn_softcap": positive(raw, "attn_logit_softcapping", 0.0),
        "final_softcap": positive(raw, "final_logit_softcapping", 0.0),
        "tie_head": flag(raw, "tie_word_embeddings"),
        "norm_eps": positive(raw, "rms_norm_eps"),
    } | family.read(raw)
    if "mlp_size" not in fields:
        fields["mlp_size"] = size(raw, "intermediate_size")
    if fields["positions"] == "rope":
        partial = family.partial_rotary
        fields |= rope_json.read(raw, local, fields["head_dim"], partial=partial)
    return DecoderConfig(**fields)


def dtype(raw: Raw) -> str | None:
    """Returns the type that config.json gives its weights, or None if it does not say.

    Raises:
      ValueError: if it is none of float32, bfloat16 and float16.
    """
    raw = text_config(raw)
    given = raw.get("dtype") or raw.get("torch_dtype")
    if given is None:
        return None
    name = str(given).removeprefix("torch.")
    if name not in ("float32", "bfloat16", "float16"):
        raise ValueError(
            f"config.json has dtype {short(given)}, expected float32, bfloat16 or "
            f"float16."
        )
    return name


def _refuse(raw: Raw, family: Family) -> None:
    quantised_by = raw.get("quantization_config")
    if quantised_by and quantised.kind(quantised_by) is None:
        raise ValueError(
            f"config.json has quantization_config {short(quantised_by)}: quantised "
            f"weights are read if bitsandbytes stored them in 4 or 8 bits; take such "
            f"a checkpoint, or the unquantised one."
        )
    for field, what in family.refused.items():
        if raw.get(field):
            raise ValueError(
                f"config.json has {field} {short(raw[field])}: {what} are not "
                f"supported in {raw['model_type']}."
            )


def _head_dim(raw: Raw, hidden: int, heads: int) -> int:
    if raw.get("head_dim") is None and hidden < heads:
        raise ValueError(
            f"config.json has hidden_size {hidden} for {heads} heads "
            f"(num_attention_heads) and no head_dim, expected one channel a head at "
            f"least."
        )
    return size(raw, "head_dim", hidden // heads)


def _local(raw: Raw, family: Family) -> tuple[bool, ...]:
    """Which layers have a sliding window; empty if none has."""
    layers = size(raw, "num_hidden_layers")
    given = raw.get("layer_types") if family.layer_types else None
    if given is None:
        local = tuple(family.slides(raw, layer) for layer in range(layers))
    else:
        names = {"full_attention": False, "sliding_attention": True}
        if not isinstance(given, list) or not set(map(str, given)) <= set(names):
            raise ValueError(
                f"config.json has layer_types {short(given)}, expected a list of "
                f"{' and '.join(names)}; others are not supported."
            )
        if len(given) != layers:
            raise ValueError(
                f"config.json has {len(given)} layer_types for {layers} layers "
                f"(num_hidden_layers)."
            )
        local = tuple(names[name] for name in given)
    if any(local) and "use_sliding_window" in raw and not raw["use_sliding_window"]:
        raise ValueError(
            "config.json has sliding layer_types but use_sliding_window is false."
        )
    return local if any(local) else ()


def _activation(raw: Raw, field: str) -> Any:
    # Gemma's own field may be null, and then its default counts.
    name = raw[field] or DEFAULTS[raw["model_type"]][field]
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(
            f"config.json has {field} {short(name)}, which is not supported; supported "
            f"are {', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[name]
