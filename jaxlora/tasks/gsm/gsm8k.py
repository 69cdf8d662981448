"""GSM8K: a JSON-lines file of a user, or the TFDS dataset ``gsm8k`` if it is prepared.

Source: Cobbe et al., arXiv 2110.14168. No record of it is part of this package.
"""

import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from jaxlora.tasks import jsonl, tfds_source
from jaxlora.tasks.gsm.records import Problem, problem

Path = str | os.PathLike[str]


def read(source: Path, *, data_dir: Path | None = None) -> Iterator[Problem]:
    """Yields the problems of a file or a prepared TFDS dataset, one at a time.

    Args:
      source: a JSON-lines file with ``question`` and ``answer``, or a TFDS dataset, as
        in ``tfds:gsm8k`` or ``tfds:gsm8k:test`` (a file of that name comes first).
      data_dir: root of TFDS datasets; None for TFDS's own.

    Raises:
      ValueError: with file and line, if a record is bad; if the source does not exist.
    """
    for fields, where in rows(source, data_dir):
        yield problem(fields(), where)


def rows(
    source: Path, data_dir: Path | None = None
) -> Iterator[tuple[Callable[[], dict[str, Any]], str]]:
    """Yields a function that gives the fields of a record, and where it is.

    Args:
      source: as for :func:`read`.
      data_dir: root of TFDS datasets; None for TFDS's own.

    Raises:
      ValueError: if the source does not exist, or a line is no object.
    """
    name = os.fspath(source)
    match = tfds_source.NAME.fullmatch(name)
    if match and not name.endswith(".jsonl") and not pathlib.Path(name).exists():
        yield from tfds_source.read(match, name, data_dir)
    else:
        for number, fields in jsonl.read(source):
            yield lambda fields=fields: fields, f"{name}:{number}"
