"""Names that do not exist: the nearest that do, in the words of every message.

One place for "did you mean": commands, flags, fields of configs, merges, routes and
patterns all ask here.
"""

import difflib
import os
from collections.abc import Iterable, Sequence
from typing import Any

FEW = 12
"""Up to so many names are all listed."""


def near(
    name: str, known: Iterable[str], most: int = 1, cutoff: float = 0.6
) -> list[str]:
    """The known names most like ``name``, the likest first.

    Args:
      name: what was asked for.
      known: what exists.
      most: how many are returned at most.
      cutoff: least likeness, the ratio of ``difflib``, in [0, 1].

    >>> near("quik", ["quick", "full"]), near("TIES", ["ties"])
    (['quick'], ['ties'])
    """
    names = list(known)
    same = [x for x in names if x.lower() == name.lower()]
    alike = difflib.get_close_matches(name, names, n=most, cutoff=cutoff)
    return list(dict.fromkeys([*same, *alike]))[:most]


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
    # Beside a name that is nearly the same, others only distract.
    best = max((_alike(flag, x) for x in nearest), default=0.0)
    nearest = [x for x in nearest if _alike(flag, x) > best - 0.1]
    return f" Did you mean {' or '.join(nearest)}?" if nearest else ""


def _alike(x: str, y: str) -> float:
    return difflib.SequenceMatcher(None, x, y).ratio()


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
    shown = some(name, list(map(repr, names)))
    return f"Unknown {kind} {name!r}{hint(name, names)} There are {shown}."


def some(name: str, known: Iterable[str]) -> str:
    """All names, or of a long list its length and those most like ``name``.

    Args:
      name: what was asked for.
      known: what exists.

    >>> some("x", ["mean", "sum"]), some("n12", [f"n{i}" for i in range(50)])
    ('mean, sum', '50, such as n12, n2, n1')
    """
    names = list(known)
    if len(names) <= FEW:
        return ", ".join(names)
    nearest = near(name, names, most=3, cutoff=0.3) or names[:6]
    return f"{len(names)}, such as {', '.join(nearest)}"


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


def few(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are.

    Args:
      names: any.
      most: how many are named.

    >>> few(["a", "b", "c"], 2)
    'a, b and 1 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
