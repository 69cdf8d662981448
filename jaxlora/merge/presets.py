"""Merges by name, each with its fields, its source and the laws it keeps.

A preset is a function from fields (a density, a space, ...) to a :class:`Merge`. Our
own are in :mod:`jaxlora.merge.methods`, those under the conventions of other software,
with names such as ``ties[peft]``, in :mod:`jaxlora.merge.peers`.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from jaxlora.merge.compose import Merge
from jaxlora.merge.methods import METHODS
from jaxlora.merge.peers import PEERS
from jaxlora.names import unknown


@dataclasses.dataclass(frozen=True)
class Entry:
    """What there is to say of a preset."""

    make: Callable[..., Merge]
    summary: str
    """One line."""
    source: str
    """The paper or the software that the convention is of."""

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of the preset and their defaults."""
        parameters = inspect.signature(self.make).parameters
        return {name: p.default for name, p in parameters.items()}


PRESETS: Mapping[str, Entry] = {
    name: Entry(*entry) for name, entry in ({**METHODS, **PEERS}).items()
}
"""Every preset, ours first."""


def preset(name: str, **fields: Any) -> Merge:
    """Returns a merge by its name, or your own by ``module:attribute``.

    Args:
      name: one of :func:`names`; or where a :class:`Merge`, or a function that makes
        one of fields, can be imported from.
      **fields: of the preset, see :func:`describe`.

    Raises:
      ValueError: naming what exists, if there is no such merge or field, or a field has
        an impossible value.

    >>> sorted(preset("mean").laws - preset("factor-mean").laws)
    ['gauge', 'linearity']
    >>> preset("ties", density=0.5).steps[0].density
    0.5
    """
    if ":" in name:
        return _imported(name, fields)
    entry = describe(name)
    for field in fields:
        if field not in entry.fields:
            have = ", ".join(entry.fields) or "none"
            raise ValueError(
                f"The merge {name!r} has no field {field!r}; its fields: {have}."
            )
    return entry.make(**fields)


def describe(name: str) -> Entry:
    """What there is to say of a preset: its fields, summary and source.

    Raises:
      ValueError: naming what exists, if there is no such merge.

    >>> describe("ties").fields["density"]
    0.2
    """
    if name not in PRESETS:
        raise ValueError(unknown("merge", name, PRESETS))
    return PRESETS[name]


def names() -> tuple[str, ...]:
    """The names :func:`preset` knows.

    >>> names()[:3]
    ('mean', 'sum', 'factor-mean')
    """
    return tuple(PRESETS)


def _imported(name: str, fields: Mapping[str, Any]) -> Merge:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"Cannot import the merge {name!r}: {error}.") from None
    if callable(found) and not isinstance(found, Merge):
        found = found(**fields)
    if not isinstance(found, Merge):
        raise ValueError(
            f"{name!r} is a {type(found).__name__}, expected a Merge, as "
            f"jaxlora.merge.chain makes it, or a function that returns one."
        )
    return found
