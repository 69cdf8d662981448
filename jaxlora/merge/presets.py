"""Merges by name, each with its fields, its source and the laws it keeps.

A preset is a function from fields (a density, a space, ...) to a :class:`Merge`. Our
own are in :mod:`jaxlora.merge.methods`, those under the conventions of other software,
with names such as ``ties[peft]``, in :mod:`jaxlora.merge.peers`.
"""

from typing import Any

from jaxlora.merge.compose import Merge
from jaxlora.merge.methods import METHODS
from jaxlora.merge.peers import PEERS
from jaxlora.registry import Registry, check_fields, imported

PRESETS = Registry("merge", {**METHODS, **PEERS})
"""Every preset, ours first."""

names = PRESETS.names
describe = PRESETS.describe


def preset(name: str, **fields: Any) -> Merge:
    """Returns a merge by its name, or your own by ``module:attribute``.

    Args:
      name: one of ``merge.names()``; or where a :class:`Merge`, or a function that
        makes one of fields, can be imported from.
      **fields: of the preset, in place of its defaults; ``merge.describe(name).fields``
        has them.

    Raises:
      ValueError: naming what exists, if there is no such merge or field, or a field has
        an impossible value.

    >>> sorted(preset("mean").laws - preset("factor-mean").laws)
    ['gauge', 'linearity']
    >>> preset("ties", density=0.5).steps[0].density
    0.5
    >>> names()[:3], describe("ties").fields["density"], describe("dare").draws
    (('mean', 'sum', 'factor-mean'), 0.2, True)
    """
    if ":" not in name:
        entry = describe(name)
        check_fields("merge", name, fields, entry.fields)
        return entry.make(**fields)
    merge = imported("merge", name)
    if callable(merge) and not isinstance(merge, Merge):
        merge = merge(**fields)
    if not isinstance(merge, Merge):
        raise ValueError(
            f"{name!r} is a {type(merge).__name__}, expected a Merge, as "
            f"jaxlora.merge.chain makes it, or a function that returns one."
        )
    return merge
