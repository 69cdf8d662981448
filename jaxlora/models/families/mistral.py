"""Mistral: a Llama whose layers all have one sliding window, or none."""

from jaxlora.models.families.family import COMMON, NO_BIASES, Family, all_slide, windows

MISTRAL = Family(
    model_class="MistralForCausalLM",
    defaults=COMMON
    | {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131_072,
        "sliding_window": 4096,
    },
    write=windows,
    slides=all_slide,
    layer_types=False,
    refused=NO_BIASES,
)
