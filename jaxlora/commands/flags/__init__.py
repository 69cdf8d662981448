"""Flags that several commands share, and how words become the flags of any command."""

from jaxlora.commands.flags.adapters import Combine as Combine
from jaxlora.commands.flags.adapters import Combining as Combining
from jaxlora.commands.flags.adapters import Dtype as Dtype
from jaxlora.commands.flags.adapters import Folders as Folders
from jaxlora.commands.flags.adapters import Merge as Merge
from jaxlora.commands.flags.adapters import Merging as Merging
from jaxlora.commands.flags.adapters import Model as Model
from jaxlora.commands.flags.adapters import RouteTemperature as RouteTemperature
from jaxlora.commands.flags.adapters import RouteTopK as RouteTopK
from jaxlora.commands.flags.outputs import Force as Force
from jaxlora.commands.flags.parsing import Several as Several
from jaxlora.commands.flags.parsing import at_least as at_least
from jaxlora.commands.flags.parsing import parse as parse
from jaxlora.commands.flags.sampling import Sample as Sample
from jaxlora.commands.flags.sampling import Sampling as Sampling
