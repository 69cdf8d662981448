"""Steps of solutions that are written as text, for :mod:`.solutions`.

Four forms are read: plain lines (``3 * 4 = 12``), annotations (``<<3*4=12>>``),
straight-line Python and markup. An expression of several operations gives a step for
each, of which the last has the result that is written; results between are computed,
exactly. Nothing is executed, and a text of any kind gives steps, perhaps none.
"""

import decimal
import html
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jaxlora.evaluate.solutions import Step
from jaxlora.names import unknown
from jaxlora.tasks import arithmetic, programs
from jaxlora.tasks.arithmetic import Reason, RefusedError

WORDS: Mapping[str, str] = {
    r"\times": "*",
    r"\cdot": "*",
    r"\div": "/",
    "plus": "+",
    "add": "+",
    "minus": "-",
    "subtract": "-",
    "times": "*",
    "multiply": "*",
    "x": "*",
    "×": "*",
    "·": "*",
    "divided by": "/",
    "divide": "/",
    "over": "/",
    "÷": "/",
    "−": "-",
    "equals": "=",
    "is": "=",
}
"""What operations, and the sign before a result, are called in texts."""
NOUNS: Mapping[str, str] = {
    "sum": "+",
    "total": "+",
    "difference": "-",
    "rest": "-",
    "product": "*",
    "multiple": "*",
    "quotient": "/",
    "share": "/",
}
"""What operations are called in tags too; in prose such words are no operations."""
CHARACTERS = 20_000
"""What is read of one text; a solution is a tenth of it."""

_CALLED = re.compile(
    "|".join(rf"(?<![A-Za-z]){re.escape(word)}(?![A-Za-z])" for word in WORDS)
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_NUMBER = re.compile(r"\s*[$€£]?\s*([-+]?[\d.]{1,60})")
_ANNOTATION = re.compile(r"<<([^<>=]*)=([^<>=]*)>>")
_CALCULATION = r"<calc>([^<>=]*)=([^<>=]*)</calc>"
# A bounded body: many steps that never end must not cost the square of their number.
_MARKUP = re.compile(rf"<step\b([^<>]*)>(.{{0,2000}}?)</step>|{_CALCULATION}", re.S)
_TAG = re.compile(r"<(op|of|by|is)>([^<>]*)</\1>")
_ATTRIBUTE = re.compile(r'([a-z]+)="([^"]*)"')
_PERCENT = re.compile(r"(?<=\d)%")
_UNIT = re.compile(r"[/-]?(?<![A-Za-z0-9])[A-Za-z'’]{2,}")  # "/box" and "-hour" too
_BETWEEN = re.compile(r"(?<=[\d.)])\s+(?=[\d(.])")
_END = re.compile(r"^[\s.]*\.(?!\d)")  # the full stop of the sentence before
_SIGNS = tuple("+-*/")
_PARTS = "0123456789.()+-*/ "
_COSTLY = (Reason.DIVISION, Reason.MAGNITUDE, Reason.DEPTH, Reason.NODES)


def plain(text: str) -> tuple[Step, ...]:
    """Reads every ``expression = number`` of a text, also in words and with units.

    Words of two letters or more are left out as units; a single letter stands for a
    number that is not known, and what it stands in is not read.

    Args:
      text: lines of a solution.

    >>> plain("She has 3 boxes * 4 eggs = 12 eggs. 12 minus 5 is $7.")[1]
    Step(operation='-', operands=(12, 5), result=7, template=None)
    """
    text = _THOUSANDS.sub("", _symbols(text[:CHARACTERS])).replace("$", "")
    text = _UNIT.sub(" ", _PERCENT.sub("*.01", text))
    steps: list[Step] = []
    for line in text.splitlines():
        before, *after = line.split("=")
        for side in after:
            if number := _NUMBER.match(side):
                steps += _of_expression(_expression(before), number[1])
            before = side
    return tuple(steps)


def _expression(text: str) -> str:
    """The arithmetic that a text ends in."""
    before = text.rstrip(_PARTS)
    expression = text[len(before) :].lstrip(" )")
    if before[-1:].isalnum() and expression[:1] in _SIGNS:
        return ""  # S + 3 * 4: a number that is not known
    # In "1. 3 * 4" and "in 5 days 3 * 4" the first number is no operand.
    expression = _BETWEEN.split(_END.sub("", expression))[-1].lstrip("+*/ ")
    open_brackets = expression.count("(") - expression.count(")")
    return expression.split("(", open_brackets)[-1] if open_brackets > 0 else expression


def annotated(text: str) -> tuple[Step, ...]:
    """Reads the annotations of a text and nothing else of it, as GSM8K has them.

    Args:
      text: lines of a solution.

    >>> annotated("3 * 4 is <<3*4=12>>13 eggs")
    (Step(operation='*', operands=(3, 4), result=12, template=None),)
    """
    text = text[:CHARACTERS]
    return tuple(
        step
        for expression, result in _ANNOTATION.findall(text)
        for step in _of_expression(expression, result)
    )


def python(text: str) -> tuple[Step, ...]:
    """Reads the operations of a straight-line program, up to what is refused in it.

    A program states no results: they are computed, so none can be wrong.

    Args:
      text: a program.

    >>> python("eggs = 3 * 4; print(eggs - 5)")[1]
    Step(operation='-', operands=(12, 5), result=7, template=None)
    """
    steps = []
    for symbol, left, right, result in programs.operations(text):
        # Where it is exact, // divides as / does.
        exact = symbol == "//" and result * right == left
        steps.append(Step("/" if exact else symbol, (left, right), result))
    return tuple(steps)


def markup(text: str) -> tuple[Step, ...]:
    """Reads tags: parts of a step, as attributes or inside it, or calculations.

    Args:
      text: lines of a solution.

    >>> markup('<step op="times" left="3" right="4">12</step>')
    (Step(operation='*', operands=(3, 4), result=12, template=None),)
    >>> markup("<step><is>7</is><op>sum</op><of>3</of><by>4</by></step>")[0].result
    7
    >>> markup("<step>He has <calc>3*4=12</calc>12</step>")[0].operands
    (3, 4)
    """
    steps: list[Step] = []
    for attributes, body, expression, result in _MARKUP.findall(text[:CHARACTERS]):
        parts = dict(_ATTRIBUTE.findall(attributes))
        if tags := _TAG.findall(body):
            steps.append(_of_parts(dict(tags), ("of", "by"), dict(tags).get("is", "")))
        elif "op" in parts:
            steps.append(_of_parts(parts, ("left", "right"), body))
        else:
            inside = re.findall(_CALCULATION, body) or [(expression, result)]
            for calculation in inside:
                steps += _of_expression(*map(html.unescape, calculation))
    return tuple(steps)


FORMATS: Mapping[str, Callable[[str], tuple[Step, ...]]] = {
    "plain": plain,
    "annotated": annotated,
    "python": python,
    "markup": markup,
}
"""Readers by the name of what they read."""


def read(text: str, form: str) -> tuple[Step, ...]:
    """Reads the steps of a text that is written in a format.

    Args:
      text: a solution.
      form: of :data:`FORMATS`.

    Raises:
      ValueError: naming the formats there are, if there is none of that name.
    """
    if form not in FORMATS:
        raise ValueError(unknown("format", form, FORMATS))
    return FORMATS[form](text)


def _symbols(text: str) -> str:
    return _CALLED.sub(lambda match: WORDS[match[0]], text)


def _of_parts(parts: Mapping[str, str], sides: tuple[str, str], result: str) -> Step:
    operation = html.unescape(parts.get("op", "")).strip()
    symbol = NOUNS.get(operation) or WORDS.get(operation, operation)
    operands = tuple(_value(parts[side]) for side in sides if side in parts)
    return Step(symbol, operands, _value(result))


def _of_expression(expression: str, result: str) -> Iterator[Step]:
    """A step for each operation; the last gives what is written."""
    text = _THOUSANDS.sub("", _symbols(expression)).replace("$", "")
    try:
        _, operations = arithmetic.trace(text)
    except RefusedError as error:
        # What costs too much was written as a step; what is no arithmetic was not.
        if error.reason in _COSTLY:
            yield Step(None, (), _value(result))
        return
    for i, (symbol, left, right, value) in enumerate(operations, start=1):
        last = i == len(operations)
        yield Step(symbol, (left, right), _value(result) if last else value)


def _value(text: str) -> Any:
    """The number of a short text, exactly; the text where it is none."""
    plain = _THOUSANDS.sub("", text).replace("$", "").strip().rstrip(".")
    try:
        return arithmetic.exact(decimal.Decimal(plain))
    except (decimal.InvalidOperation, RefusedError):
        return text
