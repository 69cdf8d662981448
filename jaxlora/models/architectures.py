"""``config.json`` of Hugging Face checkpoints as a :class:`DecoderConfig`.

Two forms are read. transformers 4 wrote ``rope_theta``, ``rope_scaling``,
``rope_local_base_freq``, ``sliding_window_pattern`` and ``torch_dtype``; transformers 5
writes ``rope_parameters``, ``layer_types`` and ``dtype``. A field that is absent has
the default of its model type, for transformers leaves out what equals its defaults.
What a decoder of ours cannot compute is refused by name, never ignored.

DeepSeek-R1-Distill checkpoints are of type ``qwen2`` or ``llama``.
"""

import math
from typing import Any

from jaxlora.io.tensors import short
from jaxlora.models.config import DecoderConfig, RopeScaling
from jaxlora.models.fields import (
    ACTIVATIONS,
    DEFAULTS,
    Raw,
    flag,
    positive,
    size,
    text_config,
)

UNBIASED = "biases on other layers than q, k and v"
FALSY = {
    "quantization_config": "quantised weights",
    "mlp_bias": UNBIASED,
    "use_bidirectional_attention": "masks that show later tokens",
}
"""Fields that must be absent, null or false: no decoder of ours has these."""


def from_json(raw: Raw) -> DecoderConfig:
    """Returns the decoder that a config.json describes; types of weights are float32.

    Raises:
      ValueError: naming the field that is missing, out of range or not supported.

    >>> from_json({"model_type": "qwen2", "num_hidden_layers": 2}).attention_bias
    True
    """
    raw = text_config(raw)
    kind = raw["model_type"]
    _refuse(raw)
    gemma = kind.startswith("gemma")
    heads, hidden = size(raw, "num_attention_heads"), size(raw, "hidden_size")
    head_dim = size(raw, "head_dim", hidden // heads)
    local = _local(raw)
    scalar = positive(raw, "query_pre_attn_scalar") if gemma else head_dim
    return DecoderConfig(
        vocab_size=size(raw, "vocab_size"),
        hidden_size=hidden,
        num_layers=size(raw, "num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=size(raw, "num_key_value_heads", heads),
        head_dim=head_dim,
        mlp_size=size(raw, "intermediate_size"),
        mlp="gated",
        activation=_activation(raw, "hidden_activation" if gemma else "hidden_act"),
        positions="rope",
        max_length=size(raw, "max_position_embeddings"),
        **_rotary(raw, local),
        local_layers=local,
        window=size(raw, "sliding_window") if local else 0,
        query_scale=scalar**-0.5 if gemma else None,
        attn_softcap=positive(raw, "attn_logit_softcapping", 0.0),
        final_softcap=positive(raw, "final_logit_softcapping", 0.0),
        embed_scale=math.sqrt(hidden) if gemma else 1.0,
        norm_plus_one=gemma,
        post_norms=gemma,
        tie_head=flag(raw, "tie_word_embeddings"),
        attention_bias=kind == "qwen2",
        qk_norm=kind in ("qwen3", "gemma3_text"),
        norm_eps=positive(raw, "rms_norm_eps"),
    )


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


def _refuse(raw: Raw) -> None:
    kind = raw["model_type"]
    for field, what in FALSY.items():
        if raw.get(field):
            raise ValueError(
                f"config.json has {field} {short(raw[field])}: {what} are not "
                f"supported."
            )
    if kind != "qwen2" and raw.get("attention_bias"):
        raise ValueError(
            f"config.json has attention_bias {short(raw['attention_bias'])}, which for "
            f"{kind} means {UNBIASED}: not supported."
        )


def _local(raw: Raw) -> tuple[bool, ...]:
    """Which layers have a sliding window; empty if none has."""
    kind, layers = raw["model_type"], size(raw, "num_hidden_layers")
    if kind == "llama":
        return ()
    given = raw.get("layer_types")
    if given is None:
        local = tuple(_slides(raw, layer) for layer in range(layers))
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
    if any(local) and kind.startswith("qwen") and not flag(raw, "use_sliding_window"):
        raise ValueError(
            "config.json has sliding layer_types but use_sliding_window is false."
        )
    return local if any(local) else ()


def _slides(raw: Raw, layer: int) -> bool:
    if raw["model_type"].startswith("qwen"):
        if not flag(raw, "use_sliding_window") or raw.get("sliding_window") is None:
            return False
        return layer >= size(raw, "max_window_layers", least=0)
    gemma2 = raw["model_type"] == "gemma2"
    return (layer + 1) % (2 if gemma2 else size(raw, "sliding_window_pattern")) != 0


def _rotary(raw: Raw, local: tuple[bool, ...]) -> dict[str, Any]:
    """Bases and stretch of the rotary frequencies."""
    old, new = _object(raw, "rope_scaling"), _object(raw, "rope_parameters")
    given, near = old or new, {}
    if raw["model_type"] == "gemma3_text":
        near = _object(new, "sliding_attention")
        given = _object(new, "full_attention") | old
        if new and not {"full_attention", "sliding_attention"} & set(new):
            raise ValueError(
                f"config.json has rope_parameters {short(new)}, expected one set for "
                f"each of full_attention and sliding_attention."
            )
    elif {"full_attention", "sliding_attention"} & set(given):
        raise ValueError(
            f"config.json has rope_parameters by layer type, which {raw['model_type']} "
            f"has not."
        )
    theta = positive({**raw, **given}, "rope_theta")
    apart = raw["model_type"] == "gemma3_text" and local
    fallback = {"rope_theta": raw.get("rope_local_base_freq")} if apart else {}
    near_theta = positive(fallback | near, "rope_theta") if apart else theta
    scaling = _scaling(given, raw)
    if _scaling(near, raw) or (scaling and local and not apart):
        raise ValueError(
            f"config.json stretches the rotary positions of sliding layers "
            f"({short(near or given)}); only layers with full attention can have that."
        )
    rope = {"rope_theta": theta, "rope_scaling": scaling}
    return rope | ({"local_rope_theta": near_theta} if local else {})


def _object(raw: Raw, field: str) -> Raw:
    value = raw.get(field) or {}
    if not isinstance(value, dict):
        raise ValueError(
            f"config.json has rope parameters {short(value)} ({field}), not an object."
        )
    return value


def _scaling(given: Raw, raw: Raw) -> RopeScaling | None:
    kind = given.get("rope_type", given.get("type", "default"))
    partial = given.get("partial_rotary_factor", raw.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise ValueError(
            f"config.json has partial_rotary_factor {short(partial)}: rotary positions "
            f"on a part of each head are not supported."
        )
    if kind == "default":
        return None
    if kind == "linear":
        return RopeScaling(kind="linear", factor=positive(given, "factor"))
    if kind == "llama3":
        length = size(raw, "max_position_embeddings")
        return RopeScaling(
            kind="llama3",
            factor=positive(given, "factor"),
            low_freq_factor=positive(given, "low_freq_factor"),
            high_freq_factor=positive(given, "high_freq_factor"),
            original_length=size(given, "original_max_position_embeddings", length),
        )
    raise ValueError(
        f"config.json has rope type {short(kind)}, which is not supported; supported "
        f"are default, linear and llama3. If it was added for longer contexts, remove "
        f"it."
    )


def _activation(raw: Raw, field: str) -> Any:
    # Gemma's own field may be null, and then its default counts.
    name = raw[field] or DEFAULTS[raw["model_type"]][field]
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(
            f"config.json has {field} {short(name)}, which is not supported; supported "
            f"are {', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[name]
