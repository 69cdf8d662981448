"""What tells families of checkpoints apart: names and flags of one decoder."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxlora.io.tensors import short
from jaxlora.models.checked import Raw, flag, size
from jaxlora.models.config import DecoderConfig

COMMON: Raw = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "rope_theta": 10_000.0,
}
"""Defaults that most families share."""


def _nothing(_: Any) -> dict[str, Any]:
    return {}


def _never(raw: Raw, layer: int) -> bool:
    del raw, layer
    return False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One ``model_type`` of transformers."""

    model_class: str
    """Its class with a head."""
    defaults: Mapping[str, Any]
    """What transformers takes for a field that config.json lacks."""
    read: Callable[[Raw], dict[str, Any]] = _nothing
    """Fields of a :class:`DecoderConfig` that its config.json sets in its own way."""
    write: Callable[[DecoderConfig], Raw] = _nothing
    """Fields of config.json, from which ``read`` reads them back."""
    slides: Callable[[Raw, int], bool] = _never
    """Has layer i a sliding window, where layer_types does not say?"""
    layer_types: bool = True
    """Does config.json have layer_types?"""
    spelling: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Its names of fields, by the usual names."""
    refused: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Fields that must be absent, null, false or empty, and what they stand for."""
    activation: str = "hidden_act"
    """The field with the MLP's non-linearity."""
    partial_rotary: bool = False
    """May rotary positions turn a part of each head?"""


NO_BIASES = {
    "attention_bias": "biases in attention",
    "mlp_bias": "biases in the MLP",
}
"""Refused by families that have none."""


def biases(raw: Raw) -> dict[str, Any]:
    """Flags of a family whose attention_bias is of q, k, v and output.

    Args:
      raw: config.json, with its defaults.
    """
    attention = flag(raw, "attention_bias")
    return {
        "attention_bias": attention,
        "output_bias": attention,
        "mlp_bias": flag(raw, "mlp_bias"),
    }


def biases_out(config: DecoderConfig) -> Raw:
    """The inverse of :func:`biases`.

    Args:
      config: of the decoder.
    """
    names = ("attention_bias", "mlp_bias")
    return {name: True for name in names if getattr(config, name)}


def windows(config: DecoderConfig) -> Raw:
    """The field of a family whose layers all have one sliding window, or none.

    Args:
      config: of the decoder.
    """
    return {"sliding_window": config.window or None}


def all_slide(raw: Raw, layer: int) -> bool:
    """Have all layers a sliding window, as soon as one is given?

    Args:
      raw: config.json, with its defaults.
      layer: any.
    """
    del layer
    return raw.get("sliding_window") is not None


def layer_types(config: DecoderConfig) -> Raw:
    """The fields of a family that says of each layer whether it has a window.

    Args:
      config: of the decoder.
    """
    local = config.local_layers or (False,) * config.num_layers
    names = {True: "sliding_attention", False: "full_attention"}
    raw: Raw = {"layer_types": [names[here] for here in local]}
    if config.window:
        raw["sliding_window"] = config.window
    return raw


def moe(raw: Raw, count: str) -> dict[str, Any]:
    """Fields of a layer with several MLPs.

    Args:
      raw: config.json, with its defaults.
      count: the field with their number.
    """
    return {
        "moe_mlps": size(raw, count),
        "moe_top_k": size(raw, "num_experts_per_tok"),
    }


def sparse(raw: Raw, mixture: dict[str, Any]) -> dict[str, Any]:
    """Fields of a family some of whose layers may have a single MLP.

    They are those of mlp_only_layers, and those of which decoder_sparse_step does not
    divide the number, counted from 1.

    Args:
      raw: config.json, with its defaults.
      mixture: fields of its layers with several MLPs.

    Raises:
      ValueError: if mlp_only_layers are no layers.
    """
    count, step = size(raw, "num_hidden_layers"), size(raw, "decoder_sparse_step")
    alone = raw.get("mlp_only_layers") or []
    if not isinstance(alone, list) or not all(
        type(i) is int and 0 <= i < count for i in alone
    ):
        raise ValueError(
            f"config.json has mlp_only_layers {short(alone)}, expected a list of "
            f"numbers of layers, 0 to {count - 1}."
        )
    dense = tuple(i in alone or (i + 1) % step != 0 for i in range(count))
    width = {"dense_size": size(raw, "intermediate_size")} if any(dense) else {}
    if all(dense):
        return {"mlp_size": width["dense_size"]}
    return mixture | width | {"dense_layers": dense if any(dense) else ()}


def sparse_out(config: DecoderConfig) -> Raw:
    """The inverse of :func:`sparse`.

    Args:
      config: of the decoder.
    """
    alone = [i for i, dense in enumerate(config.dense_layers) if dense]
    wide = {"intermediate_size": config.dense_size} if alone else {}
    return {"mlp_only_layers": alone, "decoder_sparse_step": 1} | wide
