"""Functional Flax Linen models that take LoRA as a variable collection."""

from jaxlora.models.calls import apply as apply
from jaxlora.models.calls import init as init
from jaxlora.models.calls import routes as routes
from jaxlora.models.config import DecoderConfig as DecoderConfig
from jaxlora.models.decoder import Decoder as Decoder
from jaxlora.models.intercept import apply_with_lora as apply_with_lora
