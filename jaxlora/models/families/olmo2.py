"""OLMo 2: norms after attention and MLP and not before, q and k normed as a whole."""

from typing import Any

from jaxlora.models.checked import Raw
from jaxlora.models.families.family import COMMON, Family, biases, biases_out


def _read(raw: Raw) -> dict[str, Any]:
    flags = {"pre_norms": False, "post_norms": True, "qk_norm_joint": True}
    return biases(raw) | flags


OLMO2 = Family(
    model_class="Olmo2ForCausalLM",
    defaults=COMMON
    | {
        "vocab_size": 50_304,
        "hidden_size": 4096,
        "intermediate_size": 11_008,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
    },
    read=_read,
    write=biases_out,
    layer_types=False,
    refused={"mlp_bias": "biases in the MLP"},
)
