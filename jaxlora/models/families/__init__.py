"""Families of Hugging Face checkpoints: tables of names and flags over one decoder."""

from collections.abc import Mapping

from jaxlora.models.families.family import Family as Family
from jaxlora.models.families.gemma import GEMMA, GEMMA2, GEMMA3
from jaxlora.models.families.gpt2 import GPT2
from jaxlora.models.families.granite import GRANITE
from jaxlora.models.families.llama import LLAMA
from jaxlora.models.families.mistral import MISTRAL
from jaxlora.models.families.mixtral import MIXTRAL
from jaxlora.models.families.olmo2 import OLMO2
from jaxlora.models.families.phi3 import PHI3
from jaxlora.models.families.qwen import QWEN2, QWEN3
from jaxlora.models.families.qwen35 import QWEN3_NEXT, QWEN35, QWEN35_MOE
from jaxlora.models.families.qwen_moe import QWEN3_MOE
from jaxlora.models.families.smollm3 import SMOLLM3

FAMILIES: Mapping[str, Family] = {
    "llama": LLAMA,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "gemma2": GEMMA2,
    "gemma3_text": GEMMA3,
    "mistral": MISTRAL,
    "mixtral": MIXTRAL,
    "qwen3_moe": QWEN3_MOE,
    "phi3": PHI3,
    "gemma": GEMMA,
    "gpt2": GPT2,
    "olmo2": OLMO2,
    "granite": GRANITE,
    "smollm3": SMOLLM3,
    "qwen3_5_text": QWEN35,
    "qwen3_5_moe_text": QWEN35_MOE,
    "qwen3_next": QWEN3_NEXT,
}
"""By ``model_type``; of two that can hold a decoder, the first is written."""
