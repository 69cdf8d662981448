"""SmolLM 3: a Llama some of whose layers do not rotate queries and keys (NoPE)."""

from typing import Any

from jaxlora.io.tensors import short
from jaxlora.models.checked import Raw, flag, size
from jaxlora.models.config import DecoderConfig
from jaxlora.models.families.family import (
    COMMON,
    Family,
    biases,
    biases_out,
    layer_types,
)


def _read(raw: Raw) -> dict[str, Any]:
    layers = _rotary(raw)
    return biases(raw) | {"rotary_layers": () if all(layers) else layers}


def _rotary(raw: Raw) -> tuple[bool, ...]:
    count, given = size(raw, "num_hidden_layers"), raw.get("no_rope_layers")
    if given is None:
        interval = size(raw, "no_rope_layer_interval")
        return tuple((layer + 1) % interval != 0 for layer in range(count))
    # Its name says the contrary of what it holds: 1 is a layer that is rotated.
    fine = isinstance(given, list) and all(x in (0, 1) for x in given)
    if not fine or len(given) != count:
        raise ValueError(
            f"config.json has no_rope_layers {short(given)}, expected {count} numbers, "
            f"one for each layer, 1 where it has rotary positions and 0 where not."
        )
    return tuple(bool(x) for x in given)


def _write(config: DecoderConfig) -> Raw:
    layers = config.rotary_layers or (True,) * config.num_layers
    return (
        biases_out(config)
        | layer_types(config)
        | {
            "no_rope_layers": [int(here) for here in layers],
            "use_sliding_window": any(config.local_layers),
        }
    )


def _slides(raw: Raw, layer: int) -> bool:
    if not flag(raw, "use_sliding_window") or raw.get("sliding_window") is None:
        return False
    return not _rotary(raw)[layer]


SMOLLM3 = Family(
    model_class="SmolLM3ForCausalLM",
    defaults=COMMON
    | {
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 11_008,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32_768,
        "rope_theta": 2_000_000.0,
        "use_sliding_window": False,
        "sliding_window": None,
        "no_rope_layer_interval": 4,
        "tie_word_embeddings": True,
    },
    read=_read,
    write=_write,
    slides=_slides,
)
