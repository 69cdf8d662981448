"""Is a generated text the right answer? Exact match and last number.

The answer is what stands after the last ``</think>`` of a model that reasons first. A
``number`` is the one after the first ``####`` (the form of GSM8K: Cobbe et al., arXiv
2110.14168), or, without that mark, the last number of the text; numbers are compared by
value, exactly.
"""

import decimal
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import NamedTuple

END_OF_THOUGHT = "</think>"
"""What reasoning models write before their answer."""
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
_QUOTES = "\"'“”‘’«»`*"
_ENDS = ".!?,;:。"


class Judged(NamedTuple):
    """One text against its answer."""

    correct: bool
    """Are the two the same?"""
    extracted: str | None
    """The text's answer as it was compared; None if it has none."""
    wanted: str
    """The right answer as it was compared."""


def normalise(text: str) -> str:
    """Returns a text without what exact match ignores.

    Case, the width of white space, Unicode forms of one character, quotes or stars
    around it and punctuation at its end are ignored; articles and inner punctuation
    are not.

    >>> normalise('  "New   York City." ')
    'new york city'
    """
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    before = None
    while before != text:
        before = text
        text = text.rstrip(_ENDS).strip(_QUOTES).strip()
    return text


def answered(text: str) -> str:
    """Returns what follows the last ``</think>``, or the whole text without one.

    >>> answered("<think> 2 or 3? </think> 3")
    ' 3'
    """
    return text.rpartition(END_OF_THOUGHT)[2]


def number(text: str) -> decimal.Decimal | None:
    """Returns the number that a text ends in or marks; None if it has none.

    Commas between thousands, currency and percent signs, and a point that ends the
    sentence are no part of it; digits inside a word are no number.

    >>> number("3 * 24 = 72 eggs, so $1,072.50.")
    Decimal('1072.50')
    >>> number("so 5 #### 72 Question: 8?")
    Decimal('72')
    """
    _, mark, marked = text.partition(MARK)
    if mark:
        first = _NUMBER.search(_plain(marked))
        if first:
            return _value(first)
    every = list(_NUMBER.finditer(_plain(text)))
    return _value(every[-1]) if every else None


def exact_match(text: str, answer: str) -> Judged:
    """Compares the whole answer, normalised.

    >>> exact_match("Oslo.", "oslo").correct
    True
    """
    extracted, wanted = normalise(answered(text)), normalise(answer)
    return Judged(extracted == wanted, extracted, wanted)


def last_number(text: str, answer: str) -> Judged:
    """Compares the numbers of both, by value.

    Raises:
      ValueError: if the right answer has no number.

    >>> last_number("It costs $1,000.00.", "... #### 1000")
    Judged(correct=True, extracted='1000', wanted='1000')
    """
    wanted = number(answer)
    if wanted is None:
        raise ValueError(
            f"The answer {answer[:60]!r} has no number, expected one, as in '#### 72'; "
            f"the metric exact compares words."
        )
    extracted = number(answered(text))
    shown = None if extracted is None else _shown(extracted)
    return Judged(extracted == wanted, shown, _shown(wanted))


METRICS: Mapping[str, Callable[[str, str], Judged]] = {
    "exact": exact_match,
    "number": last_number,
}
"""Ways to compare, by name: ``metric(text, answer)``."""


def _plain(text: str) -> str:
    return text.replace("\u2212", "-").replace("\\$", "$")


def _value(match: re.Match[str]) -> decimal.Decimal:
    sign, inner, integer, part, power = (group or "" for group in match.groups())
    minus = "-" if "-" in (sign, inner) else ""
    digits = integer.replace(",", "") or "0"
    return decimal.Decimal(f"{minus}{digits}{part}e{power or 0}")


def _shown(value: decimal.Decimal) -> str:
    """Without trailing zeros or powers of ten.

    >>> _shown(decimal.Decimal("1.50e3"))
    '1500'
    """
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
