"""Text of strangers where it is shown: nothing in it acts on a terminal or a sheet."""

import re
from typing import Any

# Controls but for tab and line feed, halves of surrogates, and what turns or hides text
# (bidirectional marks, no width): a name could otherwise pass for another.
_ACTS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ud800-\udfff]"
)
_FORMULA = tuple("=+-@\t\r")


def visible(shown: str) -> str:
    r"""Returns a text in which what would act on a terminal is written out.

    Args:
      shown: any text; tabs and line feeds stay.

    >>> print(visible("a\x1b[31mb"))
    a\x1b[31mb
    """
    return _ACTS.sub(lambda match: ascii(match[0])[1:-1], shown)


def line(error: Any, most: int = 300) -> str:
    r"""Returns the message of an error in one visible line.

    Args:
      error: of a library, which repeats what is in a file.
      most: characters of it.

    >>> print(line(ValueError("no \n\x1b[2J token")))
    no \x1b[2J token
    """
    return visible(" ".join(str(error).split()))[:most]


def cell(value: Any) -> Any:
    """Returns a cell of a CSV file that no spreadsheet takes for a formula.

    Args:
      value: of the cell; what is no text, and text that is a number, stays.

    >>> cell("=1+1"), cell("-0.5"), cell("mean"), cell(-1)
    ("'=1+1", '-0.5', 'mean', -1)
    """
    if not isinstance(value, str) or not value.startswith(_FORMULA):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def cells(table: Any) -> Any:
    """Returns a data frame whose text, labels included, is no formula.

    Args:
      table: of pandas, before it is written as CSV.
    """
    return table.map(cell).rename(index=cell, columns=cell)
