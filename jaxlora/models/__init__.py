"""Functional Flax Linen models that take LoRA as a variable collection."""

from jaxlora.models.config import DecoderConfig as DecoderConfig
from jaxlora.models.decoder import Decoder as Decoder
from jaxlora.models.decoder import apply as apply
from jaxlora.models.decoder import init as init
from jaxlora.models.intercept import apply_with_lora as apply_with_lora
