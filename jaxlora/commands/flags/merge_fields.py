"""Flags that only some merges have: ``--density``, ``--space``, or those of your own.

A merge is made of fields, each with a default; the type of the default says how a value
is read. Which fields there are depends on ``--method``, so they are taken out of the
words before the flags of the command are parsed.
"""

import contextlib
import inspect
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jaxlora import merge
from jaxlora.commands.flags import parsing, refusals
from jaxlora.merge import Merge
from jaxlora.registry import check_fields, importable, imported


def split(
    words: Sequence[str], flags: Collection[str], prog: str
) -> tuple[list[str], dict[str, str]]:
    """Separates the fields of merges from the flags of the command.

    Args:
      words: what was given.
      flags: of the command, such as ``--out``.
      prog: the command.

    Returns:
      The words without fields, and ``{field: text}``.

    Raises:
      ValueError: if a flag is of neither kind, naming the nearest; if a field has no
        value, or two.
    """
    method = parsing.value_of("--method", words)
    known = _every() | (fields(method) if method else {})
    rest: list[str] = []
    given: dict[str, str] = {}
    left = list(words)
    while left:
        word = left.pop(0)
        flag, equals, text = word.partition("=")
        flag = flag.replace("_", "-")
        name = flag[2:].replace("-", "_")
        if not flag.startswith("--") or flag in flags:
            rest.append(word)
        elif name in known:
            if not equals:
                text = _values(left, several=isinstance(known[name], tuple))
            if not text or text.startswith("--") or name in given:
                times = "twice" if name in given else "without a value"
                raise ValueError(f"Got {flag} {times}, expected it once, with a value.")
            given[name] = text
        else:
            every_flag = [*flags, *(flag_of(name) for name in sorted(known))]
            raise ValueError(refusals.no_option(flag, every_flag, prog))
    return rest, given


def make(method: str, given: Mapping[str, str]) -> Merge:
    """Makes a merge of fields that are still text.

    Args:
      method: a name of ``merge.names()``, or ``module:attribute``.
      given: ``{field: text}``.

    Raises:
      ValueError: if the merge or a field does not exist, or a value is impossible.
    """
    defaults = fields(method)
    check_fields("merge", method, given, defaults)
    values = {name: read(name, text, defaults[name]) for name, text in given.items()}
    for name, parameter in _parameters(method).items():
        kind = parameter.annotation
        literal = typing.get_origin(kind) is typing.Literal
        if literal and name in values and values[name] not in typing.get_args(kind):
            choices = " or ".join(map(str, typing.get_args(kind)))
            raise ValueError(f"{flag_of(name)} is {given[name]!r}, expected {choices}.")
    with importable():
        return merge.preset(method, **values)


def fields(method: str) -> dict[str, Any]:
    """The fields of a merge and their defaults; None where there is no default.

    Args:
      method: a name of ``merge.names()``, or ``module:attribute``.

    Raises:
      ValueError: if there is no such merge.

    >>> fields("ties")["density"]
    0.2
    """
    parameters = _parameters(method).items()
    return {name: None if p.default is p.empty else p.default for name, p in parameters}


def _parameters(method: str) -> Mapping[str, inspect.Parameter]:
    if ":" not in method:
        return inspect.signature(merge.describe(method).make).parameters
    with importable():
        value = imported("merge", method)
    if isinstance(value, Merge) or not callable(value):
        return {}
    return inspect.signature(value).parameters


def every() -> set[str]:
    """The fields of all presets."""
    return set(_every())


def _every() -> dict[str, Any]:
    """The fields of all presets, each with a default that some preset has."""
    entries = map(merge.describe, merge.names())
    return {field: value for entry in entries for field, value in entry.fields.items()}


def _values(left: list[str], several: bool) -> str:
    """Takes the words before the next flag, one at most unless there may be several."""
    flags = (i for i, word in enumerate(left) if word.startswith("--"))
    count = next(flags, len(left))
    count = count if several else min(count, 1)
    taken, left[:count] = left[:count], []
    return " ".join(taken)


def flag_of(field: str) -> str:
    """The flag of a field.

    >>> flag_of("learning_rate")
    '--learning-rate'
    """
    return f"--{field.replace('_', '-')}"


def read(name: str, text: str, default: Any) -> Any:
    """Reads a value as the type of the field's default.

    Args:
      name: of the field.
      text: the value as it was given.
      default: of the field; None takes a number, or else the text. A tuple takes the
        words of the text.

    Raises:
      ValueError: if it is not of that type.

    >>> read("steps", "30", 300), read("space", "core", "delta")
    (30, 'core')
    >>> read("layers", "0 2-3", ())
    ('0', '2-3')
    """
    if isinstance(default, tuple):
        return tuple(text.split())
    if isinstance(default, bool):
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        expected = "true or false"
    elif isinstance(default, int | float):
        with contextlib.suppress(ValueError):
            return type(default)(text)
        expected = "a whole number" if isinstance(default, int) else "a number"
    else:
        for kind in (int, float) if default is None else ():
            with contextlib.suppress(ValueError):
                return kind(text)
        return text
    raise ValueError(
        f"{flag_of(name)} is {text!r}, expected {expected}, as in {default}."
    )
