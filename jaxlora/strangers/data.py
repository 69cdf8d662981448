"""JSON of strangers: bounded in size, depth and numbers, read in one place.

Python's reader takes what is no JSON (NaN, Infinity), gives infinity for 1e999, ends in
a RecursionError where values are nested deeply, keeps the last of two equal keys, and
reads integers that no float or array can hold. Here each of these is one sentence.
"""

import collections
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BYTES = 2**24
"""Of a file, unless a caller expects larger ones."""
DEPTH = 64
"""Of nested lists and objects; ours have four."""
CONTAINERS = 2**20
"""Lists and objects of one file: each takes a hundred times its text in memory."""
DIGITS = 40
"""Of an integer. Files of tokenizers spell "no limit" as 10**30."""


def loads(text: str, *, finite: bool = True, containers: int = CONTAINERS) -> Any:
    """Returns the value of a JSON text.

    Args:
      text: JSON.
      finite: refuse NaN and infinity, which some of our own files hold.
      containers: lists and objects that it may have.

    Raises:
      ValueError: a clause that says what is wrong with the text.

    >>> loads('{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}
    >>> loads('{"a": 1, "a": 2}')
    Traceback (most recent call last):
      ...
    ValueError: the key 'a' is there twice, expected once
    """
    brackets = text.count("[") + text.count("{")
    if brackets > containers:
        raise ValueError(f"it nests or lists more than {containers} lists and objects")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_int=_whole,
            parse_float=_finite if finite else float,
            parse_constant=_constant if finite else float,
        )
    except RecursionError:
        raise ValueError(_DEEP) from None
    except json.JSONDecodeError as error:
        what = f"{error.msg[:1].lower()}{error.msg[1:]}".removesuffix(" at")
        raise ValueError(
            f"{what} at line {error.lineno}, column {error.colno}"
        ) from None
    if brackets > DEPTH:
        _check_depth(value)
    return value


def read(
    path: Path | str,
    *,
    most: int = BYTES,
    what: str = "JSON",
    finite: bool = True,
    containers: int = CONTAINERS,
) -> Any:
    """Returns the value of a JSON file.

    Args:
      path: of the file.
      most: bytes that it may have.
      what: was expected, for messages.
      finite: as of :func:`loads`.
      containers: as of :func:`loads`.

    Raises:
      ValueError: naming the file, if it is larger, is no UTF-8 or no JSON, or as
        :func:`loads`.
      OSError: if it cannot be read.
    """
    held = b"".join(_parts(Path(path), most, what))
    try:
        return loads(held.decode("utf-8-sig"), finite=finite, containers=containers)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not JSON: byte {error.object[error.start]:#04x} at offset "
            f"{error.start} is no UTF-8; expected {what}."
        ) from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}; expected {what}.") from None


def text(path: Path, *, most: int = BYTES, what: str = "text") -> str:
    """Returns the text of a file, without a byte order mark.

    Args:
      path: of the file.
      most: bytes that it may have.
      what: was expected, for messages.

    Raises:
      ValueError: naming the file, if it is larger or no UTF-8.
      OSError: if it cannot be read.
    """
    try:
        return b"".join(_parts(path, most, what)).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason}).") from None


def _parts(path: Path, most: int, what: str) -> Iterator[bytes]:
    """In parts: a pipe has no size, and a buffer of the largest would be allocated."""
    size = 0
    with path.open("rb") as file:
        while part := file.read(_PART):
            size += len(part)
            if size > most:
                raise ValueError(f"{path} has more than {most} bytes, expected {what}.")
            yield part


_PART = 2**16
_DEEP = f"values are nested more than {DEPTH} deep"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        ((twice, _),) = collections.Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the key {twice[:80]!r} is there twice, expected once")
    return fields


def _whole(digits: str) -> int:
    length = len(digits.removeprefix("-"))
    if length > DIGITS:
        raise ValueError(
            f"the number {digits[:8]}... has {length} digits, expected at most {DIGITS}"
        )
    return int(digits)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:20]} is too large for any type")
    return value


def _constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH):
        level = [x for outer in level for x in _inner(outer)]
        if not level:
            return
    raise ValueError(_DEEP)


def _inner(value: Any) -> Iterator[Any]:
    values = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list):
        yield from (x for x in values if isinstance(x, dict | list))
