"""A :class:`DecoderConfig` as the ``config.json`` of a Hugging Face checkpoint.

The form is that of transformers 4 (``rope_theta``, ``rope_scaling``, ``torch_dtype``),
with ``layer_types``: versions 4 and 5 both read it. What is written is read again and
compared, so that no field can be lost on the way.
"""

import dataclasses

from jaxlora.models.architectures import from_json
from jaxlora.models.config import DecoderConfig, RopeScaling
from jaxlora.models.fields import CLASSES, Raw

RUNTIME = {"dtype", "param_dtype", "attention", "remat", "unroll", "embed_std"}
"""Fields that say how to compute, not what."""


def family(config: DecoderConfig) -> str:
    """Returns the ``model_type`` whose checkpoints hold a decoder of this kind.

    Raises:
      ValueError: if there is none.
    """
    if config.passes > 1 or config.shared_mlp:
        raise ValueError(
            f"A decoder of {config.passes} passes with shared_mlp={config.shared_mlp} "
            f"has no Hugging Face architecture, expected one pass and an MLP in each "
            f"layer; this is a model of our own, which orbax keeps."
        )
    if config.positions != "rope" or config.mlp != "gated":
        raise ValueError(
            f"A decoder with {config.positions} positions and a {config.mlp} MLP has "
            f"no Hugging Face architecture, expected rope and gated; this is a model "
            f"of our own, which orbax keeps."
        )
    if config.post_norms:
        kind = "gemma3_text" if config.qk_norm else "gemma2"
    elif config.qk_norm:
        kind = "qwen3"
    elif config.attention_bias or any(config.local_layers):
        kind = "qwen2"
    else:
        kind = "llama"
    return kind


def to_json(config: DecoderConfig) -> Raw:
    """Returns a config.json, in the form that transformers 4 and 5 both read.

    Raises:
      ValueError: if no architecture computes what this decoder computes.
    """
    if not any(config.local_layers):
        theta = DecoderConfig().local_rope_theta
        config = dataclasses.replace(
            config, local_layers=(), window=0, local_rope_theta=theta
        )
    kind = family(config)
    raw: Raw = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.mlp_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_length,
        "rms_norm_eps": config.norm_eps,
        "tie_word_embeddings": config.tie_head,
        "rope_theta": config.rope_theta,
        "rope_scaling": _written(config.rope_scaling),
        "torch_dtype": config.param_dtype,
    }
    activation = _their_activation(config.activation)
    if kind.startswith("gemma"):
        raw |= _gemma(config) | {"hidden_activation": activation}
    else:
        raw |= {"hidden_act": activation}
    if kind != "llama":
        raw |= _windows(config, kind)
    _check_equal(config, from_json(raw), kind)
    return raw


def differences(ours: DecoderConfig, theirs: DecoderConfig) -> list[str]:
    """Returns ``field: ours, theirs`` for every field in which two decoders differ."""
    fields = [field.name for field in dataclasses.fields(ours)]
    return [
        f"{name}: {getattr(ours, name)}, {getattr(theirs, name)}"
        for name in fields
        if name not in RUNTIME and getattr(ours, name) != getattr(theirs, name)
    ]


def _check_equal(config: DecoderConfig, read: DecoderConfig, kind: str) -> None:
    odd = differences(config, read)
    if odd:
        raise ValueError(
            f"This decoder is nearest to {kind}, which differs in (ours, {kind}) "
            f"{'; '.join(odd)}; it cannot be written as a Hugging Face checkpoint."
        )


def _their_activation(name: str) -> str:
    return {"gelu_tanh": "gelu_pytorch_tanh"}.get(name, name)


def _gemma(config: DecoderConfig) -> Raw:
    scale = config.query_scale or config.head_dim**-0.5
    return {
        "query_pre_attn_scalar": _scalar(scale),
        "attn_logit_softcapping": config.attn_softcap or None,
        "final_logit_softcapping": config.final_softcap or None,
        "rope_local_base_freq": config.local_rope_theta,
    }


def _scalar(scale: float) -> float | int:
    """The number n with ``n ** -0.5 == scale``; a whole one if there is one."""
    number = round(scale**-2)
    return number if number and number**-0.5 == scale else scale**-2


def _windows(config: DecoderConfig, kind: str) -> Raw:
    local = config.local_layers or (False,) * config.num_layers
    names = {True: "sliding_attention", False: "full_attention"}
    raw: Raw = {
        "layer_types": [names[here] for here in local],
    }
    if config.window:
        raw["sliding_window"] = config.window
    if kind.startswith("qwen"):
        raw["use_sliding_window"] = any(local)
    return raw


def _written(scaling: RopeScaling | None) -> Raw | None:
    if scaling is None:
        return None
    raw = {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "linear":
        return raw
    return raw | {
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_length,
    }
