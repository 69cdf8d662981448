"""LoRA parameter trees: an adapter mirrors the base and touches only its kernels.

An *adapter* is a nested dictionary with a :class:`LoraWeight` where ``base`` has an
adapted kernel, and nothing elsewhere. A *library* is several adapters stacked on a
leading expert axis E. Kernels are ``[..., D, F]``; the leading axes (L, where layers
are scanned) carry over to the adapter.

"""

from jaxlora.lora.base import check as check
from jaxlora.lora.base import check_shapes as check_shapes
from jaxlora.lora.base import fuse as fuse
from jaxlora.lora.base import fuse_kernel as fuse_kernel
from jaxlora.lora.fresh import ALL_LINEAR as ALL_LINEAR
from jaxlora.lora.fresh import HEAD as HEAD
from jaxlora.lora.fresh import TABLE as TABLE
from jaxlora.lora.fresh import LoraConfig as LoraConfig
from jaxlora.lora.fresh import adapted as adapted
from jaxlora.lora.fresh import init as init
from jaxlora.lora.fresh import left_out as left_out
from jaxlora.lora.fresh import targets as targets
from jaxlora.lora.stacked import confine as confine
from jaxlora.lora.stacked import num_experts as num_experts
from jaxlora.lora.stacked import pad as pad
from jaxlora.lora.stacked import stack as stack
from jaxlora.lora.stacked import unstack as unstack
from jaxlora.lora.weight import Adapter as Adapter
from jaxlora.lora.weight import Library as Library
from jaxlora.lora.weight import LoraWeight as LoraWeight
from jaxlora.lora.weight import combine as combine
from jaxlora.lora.weight import computed as computed
from jaxlora.lora.weight import count as count
from jaxlora.lora.weight import delta as delta
from jaxlora.lora.weight import is_lora as is_lora
from jaxlora.lora.weight import lora_map as lora_map
from jaxlora.lora.weight import sites as sites
from jaxlora.lora.weight import split as split
