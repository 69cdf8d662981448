"""What a generated text says: is it the answer, and whose name is in it?"""

from collections.abc import Sequence
from typing import NamedTuple

from jaxlora.evaluate.answers import answered, exact_match
from jaxlora.tasks.two_hop.separation import names

THOUGHT = "<think>"


class Reading(NamedTuple):
    """What one generated text says."""

    exact: bool
    """The whole text is the answer, but for case and punctuation."""
    first: int
    """The name that comes first in it, as a number of ``known``; -1 for none."""
    last: int
    """The name that comes last, for texts that reason before they answer."""


def read(text: str, answer: str, known: Sequence[str]) -> Reading:
    """Reads a generated text; a thought that never ends says nothing.

    Args:
      text: what a model wrote.
      answer: the right answer.
      known: candidate answers, as the people of a group have them.

    >>> read("The spouse is Bo Kim, of Oslo.", "Oslo", ["Oslo", "Bo Kim"])
    Reading(exact=False, first=1, last=0)
    """
    after_thought = answered(text)
    numbers = [] if THOUGHT in after_thought else names(after_thought, known)
    first, last = (numbers[0], numbers[-1]) if numbers else (-1, -1)
    return Reading(exact_match(text, answer).correct, first, last)
