"""What can be refused in the words of a command before a parser reads them.

tyro takes the last of two values in silence, and an empty list where values were
forgotten; here each is one sentence.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_origin

import tyro

from jaxlora.commands.flags import refusals


class Flag(NamedTuple):
    """A flag as the dataclass of a command declares it."""

    field: str
    """``--chat`` and ``--no-chat`` are of one field."""
    kind: Any
    """Type of its value."""
    marks: tuple[Any, ...] = ()
    """What tyro is told of it."""

    @property
    def positional(self) -> bool:
        """Is it given without its name?"""
        return tyro.conf.Positional in self.marks

    @property
    def shown(self) -> str:
        """How help calls its value."""
        shown = (getattr(mark, "metavar", None) for mark in self.marks)
        return next(filter(None, shown), self.field.upper())

    @property
    def repeats(self) -> bool:
        """May it be given twice?"""
        return tyro.conf.UseAppendAction in self.marks

    @property
    def several(self) -> bool:
        """Does it take a list of values?"""
        return get_origin(self.kind) is tuple

    @property
    def path(self) -> bool:
        """Is its value a file or folder?"""
        return Path in (self.kind, *get_args(self.kind))


def check(
    given: Sequence[str], known: Mapping[str, Flag], prog: str, *, empty: bool
) -> None:
    """Refuses flags given twice or without a value, and paths without a name.

    Args:
      given: the words of a command, each of whose flags is known.
      known: every flag by its name.
      prog: the command.
      empty: may a list have no values?

    Raises:
      ValueError: in one sentence that names the flag.
    """
    groups = grouped(given)
    _once([name for name, _ in groups if name in known], known)
    for name, values in groups:
        flag = known.get(name)
        if flag is None:  # words before any flag
            if "" in values and any(x.positional and x.path for x in known.values()):
                raise ValueError(
                    f"Got an empty word, expected a path; `{prog} --help` shows what "
                    f"the command takes."
                )
        elif flag.kind is not bool and not values and not (flag.several and empty):
            raise ValueError(refusals.no_value(name, prog))
        elif flag.path and "" in values:
            raise ValueError(f"{name} is empty, expected the path of a file or folder.")


def _once(names: Sequence[str], known: Mapping[str, Flag]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        before = seen.get(known[name].field, "")
        if before and not known[name].repeats:
            pair = f"{name} twice" if before == name else f"both {before} and {name}"
            after = ", with all of its values after it" * known[name].several
            raise ValueError(f"Got {pair}, expected it once{after}.")
        seen[known[name].field] = name


def grouped(given: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Each flag with the words that follow it; first, without a name, those before.

    Args:
      given: the words of a command.

    >>> grouped(["m", "--adapter", "a", "b", "--top-k=2"])
    [('', ['m']), ('--adapter', ['a', 'b']), ('--top-k', ['2'])]
    """
    groups: list[tuple[str, list[str]]] = [("", [])]
    for word in given:
        name, equals, text = word.partition("=")
        if name.startswith("--"):
            groups.append((name.replace("_", "-"), [text] * bool(equals)))
        else:
            groups[-1][1].append(word)
    return groups
