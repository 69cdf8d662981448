"""Things by name: the presets of merges and routes, or a user's own by import.

One place for what both share: the names there are, what is said of each, and the
sentences for a name, a field or an import that does not exist.
"""

import contextlib
import dataclasses
import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from jaxlora.names import unknown

EntryT = TypeVar("EntryT")


@dataclasses.dataclass(frozen=True)
class Registry(Generic[EntryT]):
    """Entries of one kind, by name.

    >>> cups = Registry("cup", {"small": 0.2, "large": 0.5})
    >>> cups.names(), cups.describe("large")
    (('small', 'large'), 0.5)
    """

    kind: str
    """What messages call an entry, such as "merge"."""
    entries: Mapping[str, EntryT]

    def names(self) -> tuple[str, ...]:
        """The names of the presets, in their order."""
        return tuple(self.entries)

    def describe(self, name: str) -> EntryT:
        """What there is to say of a preset: its fields, summary, source and needs.

        Args:
          name: one of :meth:`names`.

        Raises:
          ValueError: naming what exists, if there is no such preset.
        """
        if name not in self.entries:
            raise ValueError(unknown(self.kind, name, self.entries))
        return self.entries[name]


def check_fields(
    kind: str, name: str, given: Iterable[str], known: Iterable[str]
) -> None:
    """Refuses fields that an entry does not have.

    Args:
      kind: of the entry, such as "merge".
      name: of the entry.
      given: the names of fields that were given.
      known: the names of fields that the entry has.

    Raises:
      ValueError: naming the first field that does not exist, and those that do.

    >>> check_fields("merge", "ties", ["densty"], ["density", "by"])
    Traceback (most recent call last):
    ValueError: The merge 'ties' has no field 'densty'; its fields: density, by.
    """
    fields = tuple(known)
    for field in given:
        if field not in fields:
            raise ValueError(
                f"The {kind} {name!r} has no field {field!r}; its fields: "
                f"{', '.join(fields) or 'none'}."
            )


def imported(kind: str, path: str) -> Any:
    """Returns what ``module:attribute`` names, in the way of entry points.

    Args:
      kind: of the entry, such as "merge", for the message.
      path: module and attribute, such as ``"my_file:median"``.

    Raises:
      ValueError: if the module cannot be imported or has no such attribute.

    >>> imported("merge", "math:tau") > 6
    True
    """
    module, _, attribute = path.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    # ValueError: an empty or relative module name.
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"Cannot import the {kind} {path!r}: {error}.") from None


@contextlib.contextmanager
def importable() -> Iterator[None]:
    """Lets modules of the current folder be imported, as ``python -m`` does."""
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
