"""Configurations: their checks, their JSON form and back, and fields of old files.

A config is a frozen dataclass whose fields are flags. Its class may name the fields
that were once called otherwise, ``RENAMED = {"old": "new"}``: files that still hold the
old names are understood.
"""

import dataclasses
import json
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from jaxlora.io import trust
from jaxlora.io.tensors import short
from jaxlora.names import hint, some
from jaxlora.strangers import data

T = TypeVar("T")


MOST, MOST_SEEDS = 10**6, 1000
"""Of anything that is counted, and of seeds: who asks for more waits for ever."""


def at_least(config: Any, least: int, *names: str) -> None:
    """Refuses a field of ``config`` that is below ``least``, or beyond any study."""
    _check(config, names, lambda x: not x < least, f"at least {least}")
    for name in names:
        most = MOST_SEEDS if name.endswith("seeds") else MOST
        _check(config, [name], lambda x, most=most: not x > most, f"at most {most}")


def positive(config: Any, *names: str) -> None:
    """Refuses a field of ``config`` that is not a positive number."""
    _check(config, names, lambda x: 0 < x < math.inf, "a positive number")


def share(config: Any, *names: str) -> None:
    """Refuses a field of ``config`` that is no share in [0, 1]."""
    _check(config, names, lambda x: 0 <= x <= 1, "a share in [0, 1]")


def _check(
    config: Any, names: Sequence[str], fits: Callable[[Any], bool], expected: str
) -> None:
    for name in names:
        value = getattr(config, name)
        if not fits(value):
            raise ValueError(f"{name} is {value}, expected {expected}.")


def distinct(name: str, values: Sequence[Any], known: Sequence[Any] = ()) -> None:
    """Refuses a list that names something twice, or something unknown.

    Args:
      name: of the list, for the message.
      values: of the list.
      known: what it may hold; anything if this is empty.
    """
    for value in values:
        if known and value not in known:
            raise ValueError(
                f"{name} has {value!r}; there are {some(value, known)}"
                f"{hint(value, known)}"
            )
        if list(values).count(value) > 1:
            raise ValueError(f"{name} has {value!r} twice; name each once.")


def plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON-able values."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as ``{"world.people": 7}``."""
    out: dict[str, Any] = {}
    for name, value in tree.items():
        inner = isinstance(value, Mapping)
        out |= flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return out


def current(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON form of a config under the field names of today.

    Args:
      kind: the class of the config.
      values: as :func:`plain` wrote it, now or some versions ago.
    """
    renamed, fields = getattr(kind, "RENAMED", {}), typing.get_type_hints(kind)
    out = {}
    for old, value in values.items():
        name = renamed.get(old, old)
        group = _group(fields.get(name)) if isinstance(value, Mapping) else None
        out[name] = value if group is None else current(group, value)
    return out


def _group(kind: Any) -> type | None:
    """The class of a group of fields, or of a group or none; None for other fields."""
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    groups = (x for x in kinds if isinstance(x, type) and dataclasses.is_dataclass(x))
    return next(groups, None)


def from_plain(kind: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Returns a config from the JSON form of one, as results.json holds it.

    Args:
      kind: the class of the config.
      values: fields by name; those that are left out have their defaults.
      where: what comes before the names in messages, such as ``"world."``.

    Raises:
      ValueError: naming a field that does not exist, or whose value does not fit.
    """
    fields = typing.get_type_hints(kind)
    values = current(kind, values)
    for name in values:
        if name not in fields:
            raise ValueError(
                f"The configuration has a field {where}{name}, which does not exist"
                f"{hint(name, fields, where)}"
            )
    return kind(**{n: _parse(fields[n], x, f"{where}{n}") for n, x in values.items()})


def _parse(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} is {value!r}, expected a group of fields.")
        return from_plain(kind, value, f"{where}.")
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{where} is {value!r}, expected a list.")
        each = typing.get_args(kind)[0]
        return tuple(_parse(each, x, f"{where}[{i}]") for i, x in enumerate(value))
    if typing.get_origin(kind) is typing.Literal:
        if value not in typing.get_args(kind):
            known = ", ".join(map(repr, typing.get_args(kind)))
            raise ValueError(f"{where} is {value!r}, expected one of {known}.")
        return value
    if isinstance(kind, types.UnionType):
        (kind,) = (k for k in typing.get_args(kind) if k is not types.NoneType)
        return None if value is None else _parse(kind, value, where)
    if kind is Path:
        if not isinstance(value, str):
            raise ValueError(f"{where} is {value!r}, expected a path or null.")
        return Path(value)
    if type(value) is int and kind in (int, float) and abs(value) >= 2**31:
        raise ValueError(f"{where} is {short(value)}, expected a number below 2**31.")
    if kind is float and type(value) is int:
        return float(value)
    # Not isinstance: true is an int to Python.
    if type(value) is not kind:
        raise ValueError(f"{where} is {value!r}, expected {kind.__name__}.")
    return value


def read(kind: type[T], path: Path, study: str) -> T:
    """Reads a JSON file of options, or the configuration in a results.json.

    Args:
      kind: the class of the config.
      path: of the file.
      study: whose results.json it may be.

    Raises:
      ValueError: if it is neither, naming a field that does not exist or fit.
    """
    try:
        content: Any = data.read(path, what="a JSON file of options")
    except OSError as error:
        raise ValueError(
            f"Cannot read {path}: {error.strerror}; expected a JSON file of options."
        ) from None
    if isinstance(content, dict) and "sha256" in content:
        trust.check_json(path, content)
    if isinstance(content, dict) and "study" in content:
        if content["study"] != study:
            raise ValueError(
                f"{path} is of the study {content['study']!r}, expected {study!r}."
            )
        content = content.get("config")
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds no options, expected a JSON object of them.")
    return from_plain(kind, content)
