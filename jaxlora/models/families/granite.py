"""Granite 3: a Llama with multipliers of embeddings, scores, blocks and logits."""

from typing import Any

from jaxlora.models.checked import Raw, positive
from jaxlora.models.config import DecoderConfig
from jaxlora.models.families.family import COMMON, Family, biases, biases_out

_MULTIPLIERS = {
    "embed_scale": "embedding_multiplier",
    "query_scale": "attention_multiplier",
    "residual_scale": "residual_multiplier",
    "logit_divisor": "logits_scaling",
}


def _read(raw: Raw) -> dict[str, Any]:
    factors = {ours: positive(raw, theirs) for ours, theirs in _MULTIPLIERS.items()}
    return biases(raw) | factors


def _write(config: DecoderConfig) -> Raw:
    factors = {theirs: getattr(config, ours) for ours, theirs in _MULTIPLIERS.items()}
    scale = config.query_scale or config.head_dim**-0.5
    return biases_out(config) | factors | {"attention_multiplier": scale}


GRANITE = Family(
    model_class="GraniteForCausalLM",
    defaults=COMMON
    | {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "max_position_embeddings": 2048,
        **dict.fromkeys(_MULTIPLIERS.values(), 1.0),
    },
    read=_read,
    write=_write,
    layer_types=False,
)
