"""Templates filled in: problems of one's own draw, in memory and never written.

The solution that is rendered must end in the number that ``#answer`` gives; where it
never does, that is an error of the template and no problem.
"""

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from jaxlora.tasks import numbers
from jaxlora.tasks.gsm import expressions, values
from jaxlora.tasks.gsm.pools import POOLS, spelled
from jaxlora.tasks.gsm.records import Problem, problem
from jaxlora.tasks.gsm.template import FILLED, SLOT, Template
from jaxlora.tasks.refusals import RefusedError

TEST_ONLY = "rendered from a template of GSM-Symbolic"
"""The canary of a rendered problem: its licence forbids derivatives."""
REDRAWS = 20
"""Draws at which a template may disagree with itself in a row."""

_START = re.compile(r"(?:^|[.!?]\s+)$")
_ARTICLE = re.compile(r"an?\s+")


def instances(
    template: Template, rng: np.random.Generator, count: int
) -> Iterator[Problem]:
    """Yields problems of a template with drawn values, at which it agrees with itself.

    Args:
      template: of a user's file.
      rng: moves on.
      count: how many.

    Raises:
      ValueError: with the file, if no values fulfil the conditions, or question and
        solution do not agree on the answer at any of :data:`REDRAWS` draws.
    """
    order = values.plan(template)
    for _ in range(count):
        for redraw in range(REDRAWS):
            entries = values.draw(template, rng, order)
            rendered = render(template, entries)
            wanted = answer(template, entries)
            if Fraction(rendered.answer) == wanted:
                yield rendered
                break
            if redraw == REDRAWS - 1:
                raise ValueError(_disagreement(template, entries, rendered, wanted))


def render(template: Template, entries: Mapping[str, Any]) -> Problem:
    """Returns the problem with given values; its answer is that of its solution.

    Args:
      template: of a user's file.
      entries: by name, a string, a number, or a pair of words and number.

    Raises:
      ValueError: with the file, if a slot is no arithmetic on these values, or the
        solution does not end in one number.
    """
    drawn = {name: values.number_of(entry) for name, entry in entries.items()}
    try:
        fields = {
            "question": _question(template, entries),
            "answer": _solution(template, entries, drawn),
            "canary": TEST_ONLY,
        }
    except RefusedError as error:
        raise ValueError(f"{template.where}: {error}") from None
    return problem(fields, template.where)


def answer(template: Template, entries: Mapping[str, Any]) -> Any:
    """Returns the exact number that ``#answer`` gives with given values.

    Args:
      template: of a user's file.
      entries: by name, a string, a number, or a pair of words and number.

    Raises:
      ValueError: with the file, if it is no arithmetic on these values.
    """
    drawn = {name: values.number_of(entry) for name, entry in entries.items()}
    try:
        return expressions.value(template.answer, drawn)
    except RefusedError as error:
        raise ValueError(f"{template.where}: {error}") from None


def defaults(template: Template) -> dict[str, Any] | None:
    """Returns the values of GSM8K that stand in the slots; None if one is missing.

    Args:
      template: of a user's file. A value that stands in no slot has no default, nor has
        a number in words that are not known.
    """
    entries: dict[str, Any] = {}
    for binding in template.bindings:
        numeric = not isinstance(values.number_of(binding.choice.items[0]), str)
        for name in binding.names:
            words = template.defaults.get(name)
            number = _number(words) if words and numeric else None
            if words is None or (numeric and number is None):
                return None
            entries[name] = words if number is None else (words, number)
    return entries


def written(value: Any) -> str:
    """Returns a number as a solution shows it: a decimal if it ends, else a fraction.

    Args:
      value: a number, or a string, which stays what it is.

    >>> written(Fraction(5, 2)), written(Fraction(1, 3)), written(7)
    ('2.5', '1/3', '7')
    """
    if not isinstance(value, Fraction) or value.denominator == 1:
        return str(value)
    power = max(_power(value.denominator, 2), _power(value.denominator, 5))
    if 10**power % value.denominator:
        return f"{value.numerator}/{value.denominator}"
    digits = f"{abs(value.numerator) * 10**power // value.denominator:0{power + 1}d}"
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-power]}.{digits[-power:]}"


def _disagreement(
    template: Template, entries: Mapping[str, Any], rendered: Problem, wanted: Any
) -> str:
    drawn = ", ".join(f"{x} = {_figure(y)}" for x, y in entries.items())
    return (
        f"{template.where}: the solution ends in {rendered.answer}, #answer gives "
        f"{wanted}, with {drawn:.300}; expected the same at one of {REDRAWS} draws, so "
        f"the template contradicts itself; render() takes the solution's number."
    )


def _question(template: Template, entries: Mapping[str, Any]) -> str:
    def fill(match: re.Match[str]) -> str:
        words = _words(entries[match[1]])
        begins = _START.search(match.string[: match.start()])
        return words[:1].upper() + words[1:] if begins else words

    return SLOT.sub(fill, template.question)


def _solution(
    template: Template, entries: Mapping[str, Any], drawn: Mapping[str, Any]
) -> str:
    def fill(match: re.Match[str]) -> str:
        name = match[1].strip()
        if name in entries:
            return _figure(entries[name])
        return written(expressions.value(template.slots[match[1]], drawn))

    return FILLED.sub(fill, template.solution)


def _words(entry: Any) -> str:
    return str(entry[0]) if isinstance(entry, tuple) else written(entry)


def _figure(entry: Any) -> str:
    """A part of something is shown as a fraction: 1/4, and not 0.25."""
    value = values.number_of(entry)
    if isinstance(entry, tuple) and isinstance(value, Fraction):
        return f"{value.numerator}/{value.denominator}"
    return written(value)


def _number(words: str) -> Any:
    """The number that words say, or None."""
    plain = _ARTICLE.sub("", words.strip().lower())
    if plain in _SPELLED:
        return _SPELLED[plain]
    top, slash, bottom = plain.partition("/")
    parts = [numbers.exact(x) for x in ((top, bottom) if slash else (top,))]
    if None in parts or (slash and not parts[1]):
        return None
    exact = [Fraction(x) for x in parts if x is not None]
    return values.number_of(exact[0] / exact[1] if slash else exact[0])


def _power(number: int, prime: int) -> int:
    power = 0
    while number % prime == 0:
        number, power = number // prime, power + 1
    return power


_SPELLED = {
    **{spelled(i): i for i in range(100)},
    **{f"{spelled(i)} times": i for i in range(2, 21)},
    **{
        words.removeprefix("one-"): number
        for pool in ("multiple", "multiple_ice", "fraction_alph")
        for words, number in POOLS[pool]
    },
    **dict(POOLS["fraction_alph"]),
    "quarter": Fraction(1, 4),
}
"""Numbers by their words."""
