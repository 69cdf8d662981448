"""JSON-lines files of a user: one object a line, refused with file and line.

Every error is one sentence that says where, what was got and what was expected.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxlora.files import write_text
from jaxlora.strangers import data

SHOWN = 60
"""Characters of a bad line or value that a message repeats."""
LINE = 2**24
"""Bytes of one line."""


def read(path: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, object) for each line that is not blank.

    A byte order mark at the start of the file is skipped.

    Args:
      path: a JSON-lines file.

    Raises:
      ValueError: if the file cannot be read or has no object, or a line is not UTF-8,
        not JSON, or not an object.
    """
    name = os.fspath(path)
    empty = True
    try:
        with open(name, "rb") as file:
            lines = iter(lambda: file.readline(LINE + 1), b"")
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    empty = False
                    yield number, parse(line, f"{name}:{number}")
    except OSError as error:
        raise ValueError(
            f"Cannot read {name}: {error.strerror or error}; expected a JSON-lines "
            f"file, one object a line."
        ) from None
    if empty:
        raise ValueError(
            f"{name} is empty, expected a JSON-lines file, one object a line."
        )


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes an object a line, whole or not at all.

    Args:
      path: of the file.
      rows: the objects.
    """
    lines = (f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    write_text(path, "".join(lines))


def text(
    record: dict[str, Any], field: str, where: str, expected: str, empty: bool = False
) -> str:
    """Returns a field of a record, which must be a string.

    Args:
      record: one object of a file.
      field: the name of the field.
      where: file and line, for messages.
      expected: an example of the record, for messages.
      empty: may the string be empty?

    Raises:
      ValueError: if the field is missing, not a string, blank though ``empty`` is
        false, or not writable as UTF-8.

    >>> text({"head": "ann"}, "head", "facts.jsonl:1", '{"head": "ann"}')
    'ann'
    """
    if field not in record:
        have = ", ".join(map(repr, record)) or "no field at all"
        raise ValueError(
            f"{where}: no field {field!r}, the line has {have}; expected {expected}."
        )
    value = record[field]
    if not isinstance(value, str):
        raise ValueError(
            f"{where}: {field!r} is {shorten(json.dumps(value))}, expected a string, "
            f"as in {expected}."
        )
    if not value.strip() and not empty:
        raise ValueError(
            f"{where}: {field!r} is empty, expected some text, as in {expected}."
        )
    # JSON may spell half a character, which no file of text can hold.
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise ValueError(
            f"{where}: {field!r} is {shorten(json.dumps(value))}, half of a surrogate "
            f"pair, expected text that can be written as UTF-8."
        )
    return value


def shorten(shown: str) -> str:
    """Cuts what a message repeats to a readable length.

    Args:
      shown: a line or a value, as text.

    >>> shorten("x" * 100)[-5:]
    'xx...'
    """
    return shown if len(shown) <= SHOWN else shown[: SHOWN - 3] + "..."


def parse(line: bytes, where: str, *, finite: bool = True) -> dict[str, Any]:
    """Returns the object that a line holds.

    Args:
      line: as read from the file.
      where: file and line, for messages.
      finite: refuse NaN and infinity, which other programs write for no number.

    Raises:
      ValueError: if it is not UTF-8, not JSON, or not an object.
    """
    if len(line) > LINE:
        raise ValueError(
            f"{where}: the line has more than {LINE} bytes; expected one object a line."
        )
    try:
        value = data.loads(line.decode("utf-8-sig"), finite=finite)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: byte 0x{line[error.start]:02x} at column {error.start + 1} is "
            f"not UTF-8; expected a file saved as UTF-8."
        ) from None
    except ValueError as error:
        got = shorten(line.decode("utf-8-sig").strip())
        raise ValueError(
            f"{where}: not JSON ({error}), got {got}; expected one object a line, "
            f"without line breaks inside it."
        ) from None
    if not isinstance(value, dict):
        raise ValueError(
            f"{where}: got {shorten(json.dumps(value))}, expected an object in "
            f'braces, as in {{"name": "value"}}.'
        )
    return value
