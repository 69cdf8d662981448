"""Training text of a user: JSON lines or an array, a folder, a prepared TFDS dataset.

Every form becomes a :class:`Record` (:mod:`jaxlora.tasks.record_forms`). TensorFlow is
not needed, and nothing is downloaded.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from jaxlora.strangers import data
from jaxlora.tasks import file_kinds, jsonl, record_fields, tfds_source
from jaxlora.tasks.record_forms import FORMS as FORMS
from jaxlora.tasks.record_forms import Record as Record
from jaxlora.tasks.record_forms import record as record

Path = str | os.PathLike[str]

_EXPECTED = (
    "expected a JSON-lines file, a folder of them, or a TFDS name as in "
    "tfds:gsm8k/main:train"
)
_LOOK = 4096
_BOM = b"\xef\xbb\xbf"
_ARRAY = 2**29  # bytes; Alpaca's has 2**25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Read:
    """The records of a source, and what was left out."""

    records: tuple[Record, ...]
    """In the order of the source."""
    skipped: int = 0
    """Bad records."""
    first_error: str = ""
    """Why the first of them was skipped."""
    notes: tuple[str, ...] = ()
    """What a user should know of the source, in sentences."""


def read(
    source: Path,
    *,
    skip_bad: bool = False,
    tests: bool = False,
    data_dir: Path | None = None,
) -> Read:
    """Reads records.

    Args:
      source: a JSON-lines file, or one with a JSON array of objects; a folder,
        whose ``*.jsonl`` (or else ``*.json``) are read in the order of their names;
        or a TFDS dataset prepared as array_record, as in ``tfds:gsm8k``,
        ``gsm8k/main:train`` (a file of that name comes first; the split is ``train`` if
        none is named).
      skip_bad: count bad records and go on, instead of raising?
      tests: are they only asked, never trained on? Records with a canary are test data,
        and refused without it.
      data_dir: root of TFDS datasets; None for TFDS's own.

    Raises:
      ValueError: with file and line, if a record is bad; if the source does not exist;
        if there is no good record in it;
        if one has a canary and ``tests`` is false.
    """
    records, errors = [], []
    # Functions, not records: a bad one must not end the iteration.
    for make in _source(source, data_dir):
        try:
            records.append(make())
        except ValueError as error:
            if not skip_bad:
                raise
            errors.append(str(error))
    if not records:
        bad = f"has no good record ({len(errors)} bad)" if errors else "is empty"
        raise ValueError(
            f"{os.fspath(source)} {bad}; expected "
            f"{FORMS}." + (f" The first: {errors[0]}" if errors else "")
        )
    if not tests:
        _refuse_canaries(records)
    odd = (name for item in records for name in item.unread)
    return Read(
        records=tuple(records),
        skipped=len(errors),
        first_error=errors[0] if errors else "",
        notes=tuple(record_fields.notes(odd, os.fspath(source))),
    )


def _refuse_canaries(records: list[Record]) -> None:
    for item in records:
        if item.canary:
            raise ValueError(
                f"{item.where}: the record has the canary {item.canary:.40}, which "
                f"asks to be kept out of training, as GSM-Symbolic does (its licence "
                f"is CC BY-NC-ND); use it as test data, or train on other records."
            )


def _source(source: Path, data_dir: Path | None) -> Iterator[Callable[[], Record]]:
    """Yields functions that give a record each, or raise."""
    name = os.fspath(source)
    path = pathlib.Path(name).expanduser()
    if path.is_dir():  # a data set of TFDS with that name is `tfds:NAME`
        files = sorted(path.glob("*.jsonl")) or sorted(path.glob("*.json"))
        if not files:
            raise ValueError(f"{name} is a folder without *.jsonl, {_EXPECTED}.")
        for file in files:
            yield from _lines(file)
    elif path.is_file():
        yield from _lines(path)
    elif (match := tfds_source.NAME.fullmatch(name)) and not name.endswith(
        (".json", ".jsonl")
    ):
        for fields, where in tfds_source.read(match, name, data_dir):
            yield lambda fields=fields, where=where: record(fields(), where)
    else:
        raise ValueError(f"{name} is not there, {_EXPECTED}.")


def _lines(path: pathlib.Path) -> Iterator[Callable[[], Record]]:
    for fields, where in objects(path):
        yield lambda fields=fields, where=where: record(fields(), where)


def objects(path: pathlib.Path) -> Iterator[tuple[Callable[[], dict[str, Any]], str]]:
    """Yields a function that gives an object or raises, and its place, of each.

    Args:
      path: a file of JSON lines, or of a JSON array.

    Raises:
      ValueError: if it is neither, or cannot be read.
    """
    try:
        with path.open("rb") as file:
            begin = file.read(_LOOK)
            file_kinds.check(path, begin)
            if _is_array(begin):
                yield from _array(path)
                return
            file.seek(0)
            lines = iter(lambda: file.readline(jsonl.LINE + 1), b"")
            for number, line in enumerate(lines, start=1):
                where = f"{path}:{number}"
                if line.removeprefix(_BOM).strip():
                    yield (
                        functools.partial(jsonl.parse, line, where, finite=False),
                        where,
                    )
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror or error}.") from None


def _is_array(begin: bytes) -> bool:
    """Does a file begin as a list of objects? Then it is one value, over all lines."""
    text = begin.removeprefix(_BOM).lstrip()
    return text[:1] == b"[" and text[1:].lstrip()[:1] in (b"{", b"]", b"")


def _array(path: pathlib.Path) -> Iterator[tuple[Callable[[], dict[str, Any]], str]]:
    what = "a JSON array of objects"
    values = data.read(path, most=_ARRAY, what=what, finite=False)
    for number, fields in enumerate(values):
        where = f"{path}, record {number}"
        yield functools.partial(_object, fields, where), where


def _object(fields, where: str):
    if not isinstance(fields, dict):
        raise ValueError(f"{where}: got {fields!r:.60}, expected an object.")
    return fields
