"""Functional Flax Linen models that take LoRA as a variable collection."""

from jaxlora.models.calls import apply as apply
from jaxlora.models.calls import extend as extend
from jaxlora.models.calls import hidden as hidden
from jaxlora.models.calls import init as init
from jaxlora.models.calls import unembed as unembed
from jaxlora.models.config import DecoderConfig as DecoderConfig
from jaxlora.models.config import RopeScaling as RopeScaling
from jaxlora.models.decoder import Decoder as Decoder
from jaxlora.models.decoding import Decoding as Decoding
from jaxlora.models.dense import dense_inputs as dense_inputs
from jaxlora.models.dense import dense_kernels as dense_kernels
from jaxlora.models.generate import Generated as Generated
from jaxlora.models.generate import generate as generate
from jaxlora.models.inputs import Adapted as Adapted
from jaxlora.models.inputs import Inputs as Inputs
from jaxlora.models.intercept import apply_with_lora as apply_with_lora
from jaxlora.models.intercept import apply_with_route as apply_with_route
from jaxlora.models.layer_places import layer_places as layer_places
from jaxlora.models.routed import Routes as Routes
from jaxlora.models.routed import routes as routes
from jaxlora.models.variables import gate_state as gate_state
