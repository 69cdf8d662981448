"""The number that a text ends in or marks, exactly as it is written.

Commas, LaTeX and thin spaces between thousands, currency signs and a point that ends a
sentence are no part of a number; digits inside a word and powers of a unit are no
number; a fraction is one. ``#### 72`` is the mark of GSM8K: Cobbe et al., arXiv
2110.14168. How a number may be written: :mod:`jaxlora.tasks.number_spelling`.
"""

import decimal
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import TypeAlias

from jaxlora.tasks.number_spelling import plain as plain

Number: TypeAlias = decimal.Decimal | Fraction
"""A fraction only where no decimal number is equal to it."""

MARK = "####"
"""What stands before the result in GSM8K."""

_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_])(?<![A-Za-z0-9_]\.)"  # not the 2 of H2O, nor the 3 of 2.3
    r"((?:(?<![)\]])[-+])?)"  # a sign, but 7-3 holds a 3, not a -3
    r"(?:[$€£¥]([-+]?))?"
    r"(\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?<!\.)(?=\.\d))"  # 1,234, 1234, none before .5
    r"(\.\d+)?"
    r"(?:[eE]([-+]?\d{1,3})(?![\dA-Za-z]))?",
    re.ASCII,
)
_FRACTION = re.compile(
    r"(?<![A-Za-z0-9_/])(?<![A-Za-z0-9_]\.)((?:(?<![)\]])[-+])?)(?:[$€£¥]([-+]?))?"
    r"(?:(\d{1,9}) )?(\d{1,9})/(\d{1,9})"
    r"(?![\d/]|[.,]\d)",  # neither a date nor 3/4.5
    re.ASCII,
)


def last(text: str) -> Number | None:
    r"""Returns the last number of a text; None if it has none.

    Args:
      text: of which it is the last.

    >>> last("3 * 24 = 72 eggs, so $1,072.50.")
    Decimal('1072.50')
    >>> last(r"\boxed{9{,}500}"), last(r"\frac{3}{4}")
    (Decimal('9500'), Decimal('0.75'))
    """
    every = list(_numbers(plain(text)))
    return every[-1] if every else None


def answer(text: str) -> Number | None:
    """Returns the number after the first ``####``, or the last number without one.

    Args:
      text: a solution, which may go on after its result.

    >>> answer("so 5 #### 72 Question: 8?")
    Decimal('72')
    """
    _, mark, marked = plain(text).partition(MARK)
    first = next(_numbers(marked), None) if mark else None
    return last(text) if first is None else first


def exact(text: str) -> decimal.Decimal | None:
    """Returns the number that a text is, and nothing besides; None if it is none.

    Args:
      text: perhaps with white space or dollars of LaTeX around it.

    >>> exact(" $1,072 "), exact("72 eggs")
    (Decimal('1072'), None)
    """
    match = _NUMBER.fullmatch(plain(text).strip().removesuffix("$"))
    return _value(match) if match and match[0] else None


def shown(value: Number) -> str:
    """Returns a number without trailing zeros or powers of ten.

    Args:
      value: the number.

    >>> shown(decimal.Decimal("1.50e3"))
    '1500'
    """
    text = str(value) if isinstance(value, Fraction) else f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _numbers(text: str) -> Iterator[Number]:
    """The numbers of a plain text, in their order; what a fraction holds is none."""
    quotients: dict[int, tuple[Number, int]] = {}
    for fraction in _FRACTION.finditer(text):
        for group, value in ((0, _mixed(fraction)), (4, _quotient(fraction))):
            if value is not None:
                quotients[fraction.start(group)] = value, fraction.end()
    start = 0
    while match := _NUMBER.search(text, start):
        # A fraction has its sign and its first digit where a number would have.
        value, end = quotients.get(match.start(), (None, match.end()))
        yield _value(match) if value is None else value
        start = end


def _mixed(match: re.Match[str]) -> Number | None:
    """The value of 1/2 or 2 1/2; None if it is no fraction, as 3/0 and 2 6/4."""
    sign, inner, units, top, bottom = match.groups()
    if not int(bottom) or (units and int(top) >= int(bottom)):
        return None
    value = int(units or 0) + Fraction(int(top), int(bottom))
    return _shortest(-value if "-" in (sign, inner) else value)


def _quotient(match: re.Match[str]) -> Number | None:
    """The value of a fraction without the number before it."""
    *_, top, bottom = match.groups()
    return _shortest(Fraction(int(top), int(bottom))) if int(bottom) else None


def _shortest(value: Fraction) -> Number:
    """As a decimal number, if one is equal to it."""
    with decimal.localcontext(prec=60) as context:
        shortest = decimal.Decimal(value.numerator) / value.denominator
        return value if context.flags[decimal.Inexact] else shortest


def _value(match: re.Match[str]) -> decimal.Decimal:
    sign, inner, integer, part, power = (group or "" for group in match.groups())
    minus = "-" if "-" in (sign, inner) else ""
    digits = integer.replace(",", "") or "0"
    return decimal.Decimal(f"{minus}{digits}{part}e{power or 0}")
