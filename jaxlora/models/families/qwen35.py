"""Qwen 3.5 (its text model) and Qwen 3 Next: attention in every fourth layer alone.

The layers between have gated delta nets. Qwen 3 Next, and Qwen 3.5 of that kind, have
many small MLPs in a layer, and one more that all tokens share.

Attention has a gate on its output, and rotates a quarter of each head. Positions of
text are equal in all sections of what rotates pictures (mrope), so that these need not
be told apart.
"""

import dataclasses
from typing import Any

from jaxlora.io.tensors import short
from jaxlora.models.checked import Raw, flag, size
from jaxlora.models.config import DecoderConfig, DeltaConfig
from jaxlora.models.families.family import (
    COMMON,
    NO_BIASES,
    Family,
    moe,
    sparse,
    sparse_out,
)

_SIZES = {
    "key_heads": "linear_num_key_heads",
    "value_heads": "linear_num_value_heads",
    "key_dim": "linear_key_head_dim",
    "value_dim": "linear_value_head_dim",
    "taps": "linear_conv_kernel_dim",
}
"""Fields of a gated delta rule: ours and theirs."""
_REFUSED = {"mlp_bias": NO_BIASES["mlp_bias"]}
_NAMES = {"linear_attention": True, "full_attention": False}


def _read(raw: Raw) -> dict[str, Any]:
    attention = flag(raw, "attention_bias")
    if not flag({"attn_output_gate": True} | raw, "attn_output_gate"):
        raise ValueError(
            f"config.json has attn_output_gate False, expected true: attention without "
            f"a gate is not supported in {raw['model_type']}."
        )
    layers = delta_layers(raw)
    sizes: dict[str, Any] = {x: size(raw, theirs) for x, theirs in _SIZES.items()}
    return {
        "attention_bias": attention,
        "output_bias": attention,
        "qk_norm": True,
        "norm_plus_one": True,
        "output_gate": True,
        "delta_layers": layers if any(layers) else (),
        "delta": DeltaConfig(**sizes) if any(layers) else None,
    }


def delta_layers(raw: Raw) -> tuple[bool, ...]:
    """Which layers have a gated delta net.

    Args:
      raw: config.json, with its defaults.

    Raises:
      ValueError: if layer_types has other names, or others than one a layer.
    """
    count, given = size(raw, "num_hidden_layers"), raw.get("layer_types")
    if given is None:
        interval = size(raw, "full_attention_interval")
        return tuple((layer + 1) % interval != 0 for layer in range(count))
    if not isinstance(given, list) or not set(map(str, given)) <= set(_NAMES):
        raise ValueError(
            f"config.json has layer_types {short(given)}, expected a list of "
            f"{' and '.join(_NAMES)}; others are not supported in {raw['model_type']}."
        )
    if len(given) != count:
        raise ValueError(
            f"config.json has {len(given)} layer_types for {count} layers "
            f"(num_hidden_layers)."
        )
    return tuple(_NAMES[name] for name in given)


def _write(config: DecoderConfig) -> Raw:
    layers = config.delta_layers or (False,) * config.num_layers
    names = {here: name for name, here in _NAMES.items()}
    sizes = {} if config.delta is None else vars(config.delta)
    sizes = {ours: value for ours, value in sizes.items() if ours in _SIZES}
    return {
        "layer_types": [names[here] for here in layers],
        "partial_rotary_factor": config.rotated / config.head_dim,
        "attention_bias": config.attention_bias,
        **{_SIZES[ours]: value for ours, value in sizes.items()},
    }


def _read_moe(raw: Raw) -> dict[str, Any]:
    return _read(raw) | _mixture(raw) | {"moe_normalize": True}


def _read_next(raw: Raw) -> dict[str, Any]:
    mixture = _mixture(raw) | {"moe_normalize": flag(raw, "norm_topk_prob")}
    fields = _read(raw) | sparse(raw, mixture)
    delta = fields["delta"]
    fused = delta and dataclasses.replace(delta, fused=True)
    return fields | {"delta": fused}


def _mixture(raw: Raw) -> dict[str, Any]:
    return moe(raw, "num_experts") | {
        "mlp_size": size(raw, "moe_intermediate_size"),
        "moe_shared": size(raw, "shared_expert_intermediate_size"),
    }


def _write_moe(config: DecoderConfig) -> Raw:
    return _write(config) | {
        "moe_intermediate_size": config.mlp_size,
        "shared_expert_intermediate_size": config.moe_shared,
        "num_experts": config.moe_mlps,
        "num_experts_per_tok": config.moe_top_k,
    }


def _write_next(config: DecoderConfig) -> Raw:
    raw = _write_moe(config) | {"norm_topk_prob": config.moe_normalize}
    return raw | sparse_out(config)


_DEFAULTS = COMMON | {
    "num_attention_heads": 16,
    "head_dim": 256,
    "max_position_embeddings": 32_768,
    "partial_rotary_factor": 0.25,
    "full_attention_interval": 4,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
}
_MOE = _DEFAULTS | {
    "hidden_size": 2048,
    "num_key_value_heads": 2,
    "moe_intermediate_size": 512,
    "shared_expert_intermediate_size": 512,
}
QWEN35 = Family(
    model_class="Qwen3_5ForCausalLM",
    defaults=_DEFAULTS
    | {
        "vocab_size": 248_320,
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_key_value_heads": 4,
    },
    read=_read,
    write=_write,
    layer_types=False,
    refused=_REFUSED,
    partial_rotary=True,
)
QWEN35_MOE = Family(
    model_class="Qwen3_5MoeForCausalLM",
    defaults=_MOE
    | {
        "vocab_size": 248_320,
        "num_hidden_layers": 40,
        "num_experts_per_tok": 8,
        "num_experts": 256,
    },
    read=_read_moe,
    write=_write_moe,
    layer_types=False,
    refused=_REFUSED,
    partial_rotary=True,
)
QWEN3_NEXT = Family(
    model_class="Qwen3NextForCausalLM",
    defaults=_MOE
    | {
        "vocab_size": 151_936,
        "num_hidden_layers": 48,
        "intermediate_size": 5632,
        "num_experts_per_tok": 10,
        "num_experts": 512,
        "decoder_sparse_step": 1,
        "norm_topk_prob": True,
    },
    read=_read_next,
    write=_write_next,
    layer_types=False,
    refused=_REFUSED,
    partial_rotary=True,
)
