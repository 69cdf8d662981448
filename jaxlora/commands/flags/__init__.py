"""Flags that several commands share, and how words become the flags of any command.

Each name is imported when it is first used: flags of adapters need JAX, parsing does
not.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxlora.commands.flags.adapters import Combine as Combine
    from jaxlora.commands.flags.adapters import Combining as Combining
    from jaxlora.commands.flags.adapters import Dtype as Dtype
    from jaxlora.commands.flags.adapters import Folders as Folders
    from jaxlora.commands.flags.adapters import Merge as Merge
    from jaxlora.commands.flags.adapters import Merging as Merging
    from jaxlora.commands.flags.adapters import Model as Model
    from jaxlora.commands.flags.adapters import RouteTemperature as RouteTemperature
    from jaxlora.commands.flags.adapters import RouteTopK as RouteTopK
    from jaxlora.commands.flags.adapters import Words as Words
    from jaxlora.commands.flags.outputs import Force as Force
    from jaxlora.commands.flags.parsing import Several as Several
    from jaxlora.commands.flags.parsing import at_least as at_least
    from jaxlora.commands.flags.parsing import parse as parse
    from jaxlora.commands.flags.sampling import Sample as Sample
    from jaxlora.commands.flags.sampling import Sampling as Sampling

_LIGHT = {"parse": "parsing", "Several": "parsing", "at_least": "parsing"}
_LIGHT |= {"Force": "outputs"}
_PARTS = "sampling", "adapters"
"""Modules of all other names; both import JAX."""


def __getattr__(name: str) -> Any:
    parts = _PARTS if name[0].isupper() else ()
    # Python asks here for submodules too, before it imports them: no name of ours.
    for part in (_LIGHT[name],) if name in _LIGHT else parts:
        module = importlib.import_module(f"{__name__}.{part}")
        if name in vars(module):
            return vars(module)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
