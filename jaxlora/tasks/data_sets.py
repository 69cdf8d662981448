"""Several data sets as rows of tokens, one for each adapter that learns from one."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from jaxlora.models.tokenizer import Tokenizer
from jaxlora.tasks import packing, text, text_shown
from jaxlora.tasks.packing import Rows
from jaxlora.tasks.text import Read

Counts: TypeAlias = dict[str, Any]
"""What one data set became: examples, rows, and what was left out of it."""


def pack(
    data: Mapping[str, Read],
    tokenizer: Tokenizer,
    length: int,
    *,
    seed: int = 0,
    truncate: bool = False,
    skip_bad: bool = False,
    progress: Callable[[str, int, int], None] = lambda *_: None,
) -> tuple[dict[str, Rows], dict[str, Counts]]:
    """Packs every data set into rows of ``length`` tokens, and counts what they hold.

    Args:
      data: records by the name of their data set.
      tokenizer: renders and encodes them.
      length: T of a row.
      seed: of the order in which examples are packed.
      truncate: cut examples longer than a row, instead of leaving them out.
      skip_bad: leave out records that cannot be rendered.
      progress: called before each data set, with its name and how many are done.

    Raises:
      ValueError: with the data set's name, if no example is left of it, or one cannot
        be rendered and bad ones are not skipped.
    """
    rows, counts = {}, {}
    for i, (name, read) in enumerate(data.items()):
        progress(name, i, len(data))
        try:
            encoded = text.encode(
                read.records, tokenizer, length, truncate=truncate, skip_bad=skip_bad
            )
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        rows[name] = packing.pack(encoded.examples, length, seed)
        counts[name] = _count(read, encoded, rows[name])
        counts[name]["asked_apart"] = text.asked_apart(read.records, tokenizer)
        counts[name]["not_shown"] = text_shown.left_out(read.records, tokenizer)
    return rows, counts


def _count(read: Read, encoded: text.Encoded, rows: Rows) -> Counts:
    about = packing.report(rows)
    return dataclasses.asdict(about) | {
        "efficiency": round(about.efficiency, 4),
        "bad_lines": read.skipped,
        "refused": encoded.refused,
        "too_long": encoded.too_long,
        "truncated": encoded.truncated,
        "no_answer": encoded.no_answer,
        "first_error": read.first_error or encoded.first_error,
    }
