"""Qwen 3.5 (its text model): attention in every fourth layer, gated delta nets between.

Attention has a gate on its output, and rotates a quarter of each head. Positions of
text are equal in all sections of what rotates pictures (mrope), so that these need not
be told apart.
"""

from typing import Any

from jaxlora.io.tensors import short
from jaxlora.models.checked import Raw, flag, size
from jaxlora.models.config import DecoderConfig, DeltaConfig
from jaxlora.models.families.family import COMMON, NO_BIASES, Family

_SIZES = {
    "key_heads": "linear_num_key_heads",
    "value_heads": "linear_num_value_heads",
    "key_dim": "linear_key_head_dim",
    "value_dim": "linear_value_head_dim",
    "taps": "linear_conv_kernel_dim",
}
"""Fields of a gated delta rule: ours and theirs."""
_NAMES = {"linear_attention": True, "full_attention": False}


def _read(raw: Raw) -> dict[str, Any]:
    attention = flag(raw, "attention_bias")
    if not flag({"attn_output_gate": True} | raw, "attn_output_gate"):
        raise ValueError(
            "config.json has attn_output_gate False, expected true: attention without "
            "a gate is not supported in qwen3_5_text."
        )
    layers = delta_layers(raw)
    sizes = {ours: size(raw, theirs) for ours, theirs in _SIZES.items()}
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
    return {
        "layer_types": [names[here] for here in layers],
        "partial_rotary_factor": config.rotated / config.head_dim,
        "attention_bias": config.attention_bias,
        **{_SIZES[ours]: value for ours, value in sizes.items()},
    }


QWEN35 = Family(
    model_class="Qwen3_5ForCausalLM",
    defaults=COMMON
    | {
        "vocab_size": 248_320,
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "max_position_embeddings": 32_768,
        "partial_rotary_factor": 0.25,
        "full_attention_interval": 4,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
    },
    read=_read,
    write=_write,
    layer_types=False,
    refused={"mlp_bias": NO_BIASES["mlp_bias"]},
    partial_rotary=True,
)
