"""The number that a text ends in or marks, exactly as it is written.

Commas, LaTeX and thin spaces between thousands, currency signs and a point that ends a
sentence are no part of a number; digits inside a word are no number. ``#### 72`` is the
mark of GSM8K: Cobbe et al., arXiv 2110.14168.
"""

import decimal
import re

MARK = "####"
"""What stands before the result in GSM8K."""

_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])"  # not the 2 of H2O, nor the 3 of 2.3
    r"((?:(?<![)\]])[-+])?)"  # a sign, but 7-3 holds a 3, not a -3
    r"(?:[$€£¥]([-+]?))?"
    r"(\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))"  # 1,234 or 1234 or nothing before .5
    r"(\.\d+)?"
    r"(?:[eE]([-+]?\d{1,3})(?![\dA-Za-z]))?",
    re.ASCII,
)
_THOUSANDS = re.compile(
    r"(?<=\d)(?:"
    r"\{\s*,\s*\}(?:\\!)?|\{,?\\[,!:; ]\}|,?\\[,!:;]|\\ "  # 9{,}500, 12\,500, 1\ 0
    r"|\\!,(?:\\!)?"  # 10\!,\!000
    r"|\\(?:text|mathrm|mathord|mathpunct)\{,\}"
    r"|\\thinspace(?![A-Za-z])\s?|['\u2019\u00a0\u2009\u202f]"
    r")(?=\d{3}(?!\d))",
    re.ASCII,
)
r"""What LaTeX and print set between thousands: ``9{,}500``, ``12\,500``, ``9'500``."""
_POINT = re.compile(r"(?<=\d)(?:\{\.\}|\{,\}(?=\d\d?(?!\d)))(?=\d)", re.ASCII)
"""A decimal point in braces; so is a comma before one or two last digits."""


def last(text: str) -> decimal.Decimal | None:
    r"""Returns the last number of a text; None if it has none.

    Args:
      text: of which it is the last.

    >>> last("3 * 24 = 72 eggs, so $1,072.50.")
    Decimal('1072.50')
    >>> last(r"\boxed{9{,}500}")
    Decimal('9500')
    """
    every = list(_NUMBER.finditer(plain(text)))
    return _value(every[-1]) if every else None


def answer(text: str) -> decimal.Decimal | None:
    """Returns the number after the first ``####``, or the last number without one.

    Args:
      text: a solution, which may go on after its result.

    >>> answer("so 5 #### 72 Question: 8?")
    Decimal('72')
    """
    _, mark, marked = text.partition(MARK)
    first = _NUMBER.search(plain(marked)) if mark else None
    return _value(first) if first else last(text)


def exact(text: str) -> decimal.Decimal | None:
    """Returns the number that a text is, and nothing besides; None if it is none.

    Args:
      text: perhaps with white space or dollars of LaTeX around it.

    >>> exact(" $1,072 "), exact("72 eggs")
    (Decimal('1072'), None)
    """
    match = _NUMBER.fullmatch(plain(text).strip().removesuffix("$"))
    return _value(match) if match and match[0] else None


def shown(value: decimal.Decimal) -> str:
    """Returns a number without trailing zeros or powers of ten.

    Args:
      value: the number.

    >>> shown(decimal.Decimal("1.50e3"))
    '1500'
    """
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def plain(text: str) -> str:
    r"""Returns a text with one minus, one dollar and one separator of thousands.

    Args:
      text: perhaps with LaTeX.

    >>> plain(r"\$12\,500")
    '$12,500'
    """
    text = text.replace("\u2212", "-").replace("\\$", "$")
    return _POINT.sub(".", _THOUSANDS.sub(",", text))


def _value(match: re.Match[str]) -> decimal.Decimal:
    sign, inner, integer, part, power = (group or "" for group in match.groups())
    minus = "-" if "-" in (sign, inner) else ""
    digits = integer.replace(",", "") or "0"
    return decimal.Decimal(f"{minus}{digits}{part}e{power or 0}")
