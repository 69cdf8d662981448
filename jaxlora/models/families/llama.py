"""Llama 2 and 3, and what shares their config: SmolLM 2, TinyLlama, R1-Distill."""

from jaxlora.models.families.family import COMMON, Family, biases, biases_out

LLAMA = Family(
    model_class="LlamaForCausalLM",
    defaults=COMMON
    | {
        "vocab_size": 32_000,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "max_position_embeddings": 2048,
    },
    read=biases,
    write=biases_out,
    layer_types=False,
)
