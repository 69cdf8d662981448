"""Adapters, libraries, gates and checkpoints on disk; see README.md beside this file.

The modules are the public face: :mod:`.collection` and :mod:`.peft` for the format of
PEFT, :mod:`.library` for our own, :mod:`.gate_file` for gates, :mod:`.tensors` for
safetensors of any kind. :mod:`.checkpoint` imports orbax, so it is reached by its name.
"""

from jaxlora.io import collection as collection
from jaxlora.io import gate_file as gate_file
from jaxlora.io import library as library
from jaxlora.io import peft as peft
from jaxlora.io import tensors as tensors
from jaxlora.io.errors import PathError as PathError
from jaxlora.io.errors import naming as naming
