"""Names that do not exist: the nearest that do, in the words of every message.

One place for "did you mean": commands, flags, fields of configs, merges, routes and
patterns all ask here.
"""

import difflib
import os
from collections.abc import Iterable
from typing import Any


def near(
    name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6
) -> list[str]:
    """The known names most like ``name``, the likest first.

    Args:
      name: what was asked for.
      known: what exists.
      most: how many are returned at most.
      cutoff: least likeness, the ratio of ``difflib``, in [0, 1].

    >>> near("quik", ["quick", "full"])
    ['quick']
    """
    return difflib.get_close_matches(name, list(known), n=most, cutoff=cutoff)


def hint(name: str, known: Iterable[str], prefix: str | None = None) -> str:
    """Ends a sentence with the nearest name, or with a full stop.

    Args:
      name: what was asked for.
      known: what exists.
      prefix: stands before the nearest name, as the path of a field; None for quotes.

    >>> hint("maen", ["mean", "sum"]), hint("x", ["mean", "sum"])
    ("; did you mean 'mean'?", '.')
    >>> hint("sede", ["seed"], "world.")
    '; did you mean world.seed?'
    """
    nearest = near(name, known)
    if not nearest:
        return "."
    shown = repr(nearest[0]) if prefix is None else f"{prefix}{nearest[0]}"
    return f"; did you mean {shown}?"


def flag_hint(flag: str, known: Iterable[str], most: int = 1) -> str:
    """A sentence of its own with the nearest flags, or nothing.

    Args:
      flag: what was asked for.
      known: what exists.
      most: how many are named at most.

    >>> flag_hint("--sede", ["--seed", "--out"])
    ' Did you mean --seed?'
    """
    nearest = near(flag, known, most, cutoff=0.5)
    return f" Did you mean {' or '.join(nearest)}?" if nearest else ""


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that does not exist: the nearest, and what does.

    Args:
      kind: what the name is of, such as "merge".
      name: what was asked for.
      known: what exists.

    >>> unknown("merge", "maen", ["mean", "sum"])
    "Unknown merge 'maen'; did you mean 'mean'? There are 'mean', 'sum'."
    """
    names = sorted(known)
    nearest = near(name, names, most=3, cutoff=0.3)
    ending = f"; did you mean {nearest[0]!r}?" if nearest else "."
    if len(names) > 12:
        shown = ", ".join(map(repr, nearest or names[:6]))
        return (
            f"Unknown {kind} {name!r}{ending} There are {len(names)}, such as {shown}."
        )
    return f"Unknown {kind} {name!r}{ending} There are {', '.join(map(repr, names))}."


def check_several(name: str, given: Any) -> None:
    """Refuses a string or a path where a list of them is meant.

    Args:
      name: of the argument.
      given: its value.

    Raises:
      ValueError: showing the list with that one entry.

    >>> check_several("folders", "ann")
    Traceback (most recent call last):
        ...
    ValueError: folders is 'ann', expected a list; with one entry it is ['ann'].
    """
    # A string is a sequence too, of letters; a path is none.
    if isinstance(given, str | bytes | os.PathLike):
        raise ValueError(
            f"{name} is {given!r}, expected a list; with one entry it is [{given!r}]."
        )
