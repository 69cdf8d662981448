"""Is a generated text the right answer? Exact match and last number.

The answer is what stands after the last ``</think>`` of a model that reasons first. A
``number`` is the one after the first ``####`` (the form of GSM8K: Cobbe et al., arXiv
2110.14168), or, without that mark, the last number of the text; numbers are compared by
value, exactly.
"""

import unicodedata
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jaxlora.tasks import numbers

END_OF_THOUGHT = "</think>"
"""What reasoning models write before their answer."""
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
    wanted = numbers.answer(answer)
    if wanted is None:
        raise ValueError(
            f"The answer {answer[:60]!r} has no number, expected one, as in '#### 72'; "
            f"the metric exact compares words."
        )
    extracted = numbers.answer(answered(text))
    shown = None if extracted is None else numbers.shown(extracted)
    return Judged(extracted == wanted, shown, numbers.shown(wanted))


METRICS: Mapping[str, Callable[[str, str], Judged]] = {
    "exact": exact_match,
    "number": last_number,
}
"""Ways to compare, by name: ``metric(text, answer)``."""
