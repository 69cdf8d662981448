"""Sentences of word problems: one for each number, each step, and the question.

Placeholders: {who} does it, {x} and {y} are people mentioned before, {n} is a number,
{does}, {do} and {units} are those of a scene. Sentences are short, so that a problem of
three steps with a clause that does not matter has at most 48 words.
"""

import functools
from typing import NamedTuple

from jaxlora.tasks.word_problems.names import SCENES

START = "{who} {does} {n} {units}."
"""A given number on the left of a step."""
QUESTION = "How many {units} does {who} {do}?"
BY_NUMBER = (
    ("{who} {does} {n} more {units} than {x}.", "{who} {does} {x}'s amount plus {n}."),
    ("{who} {does} {n} fewer {units} than {x}.", "{who} {does} {x}'s amount less {n}."),
    ("{who} {does} {n} times {x}'s amount.", "{who} {does} {x}'s amount {n} times."),
    (
        "{who} {does} {x}'s amount divided by {n}.",
        "{who} {does} 1/{n} of {x}'s amount.",
    ),
)
"""By operation: the right operand is a given number."""
BY_PERSON = (
    (
        "{who} {does} {x}'s and {y}'s amounts together.",
        "{who} {does} {x}'s amount plus {y}'s.",
    ),
    (
        "{who} {does} {x}'s amount less {y}'s.",
        "{who} {does} {x}'s amount minus {y}'s.",
    ),
    (
        "{who} {does} {x}'s amount times {y}'s.",
        "{who} {does} {x}'s amount multiplied by {y}'s.",
    ),
    (
        "{who} {does} {x}'s amount divided by {y}'s.",
        "{who} {does} {x}'s amount split by {y}'s.",
    ),
)
"""By operation: the right operand is the result of an earlier step."""


class Forms(NamedTuple):
    """The sentences of a scene."""

    start: str
    question: str
    by_number: tuple[tuple[str, ...], ...]
    by_person: tuple[tuple[str, ...], ...]


@functools.cache
def forms(scene: int) -> Forms:
    """Returns every sentence with the words of a scene in it.

    Args:
      scene: its number in :data:`.names.SCENES`.

    >>> forms(0).by_number[0][0]
    '{who} has {n} more apples than {x}.'
    """
    rest = {name: f"{{{name}}}" for name in ("who", "x", "y", "n")}
    say = lambda sentence: sentence.format(**SCENES[scene]._asdict(), **rest)  # noqa: E731
    tables = ([tuple(map(say, row)) for row in x] for x in (BY_NUMBER, BY_PERSON))
    return Forms(say(START), say(QUESTION), *map(tuple, tables))
