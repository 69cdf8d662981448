"""Exact numbers, and what a text of arithmetic may cost."""

import dataclasses
import decimal
import math
import numbers
import operator
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any, NoReturn

from jaxlora.tasks.refusals import Reason, refuse

Number = int | Fraction
"""An exact number; a whole one is always an ``int``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """What a text may cost."""

    characters: int = 4000
    """Of the text; the parser sees no longer one."""
    nodes: int = 1000
    """That are visited: the steps of the walk."""
    depth: int = 100
    """Of brackets in the text and of nodes in the tree; ``1 + 1 + 1`` is 3 deep."""
    magnitude: int = 1024
    """Bits of an integer, a numerator or a denominator."""


DEFAULT = Limits()


def exact(value: Any, limits: Limits = DEFAULT) -> Any:
    """Returns a number as an int or a Fraction, a float as it is printed.

    Args:
      value: an int, float, Fraction, Decimal or scalar of NumPy; else it is returned.
      limits: of the magnitude.

    Raises:
      RefusedError: if it is too large, infinite or no number (nan).

    >>> exact(0.1), exact(decimal.Decimal("2.50")), exact(4.0)
    (Fraction(1, 10), Fraction(5, 2), 4)
    """
    kind = type(value)
    if kind is int or kind is Fraction:
        return within(value, limits)
    if kind is bool or not isinstance(value, numbers.Number):
        return value
    if isinstance(value, numbers.Rational):
        return within(Fraction(int(value.numerator), int(value.denominator)), limits)
    if not isinstance(value, numbers.Real | decimal.Decimal):
        refuse(Reason.TYPE, f"{value!r} is no real number", "one")
    if not math.isfinite(value):
        refuse(Reason.MAGNITUDE, f"A value is {value}", "a finite number")
    decimals = isinstance(value, decimal.Decimal)
    digits = value if decimals else decimal.Decimal(repr(float(value)))
    # A short text such as 1e999999 must not become a long integer first.
    if abs(digits.adjusted()) * 3 > limits.magnitude:
        too_large("A value", limits)
    return within(Fraction(digits), limits)


def within(value: Number, limits: Limits) -> Number:
    """Returns a number in its plain form, if it is not too large."""
    if type(value) is int:
        if value.bit_length() > limits.magnitude:
            too_large("An integer", limits)
        return value
    if max(bits(value.numerator), bits(value.denominator)) > limits.magnitude:
        too_large("A fraction", limits)
    return value.numerator if value.denominator == 1 else value


def bits(value: Number) -> int:
    """Returns the bits of the larger side of a fraction."""
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def too_large(what: str, limits: Limits) -> NoReturn:
    """Raises RefusedError: ``what`` has more bits than is allowed."""
    refuse(Reason.MAGNITUDE, f"{what} is too large", f"at most {limits.magnitude} bits")


def apply(symbol: str, left: Any, right: Any, limits: Limits = DEFAULT) -> Number:
    """Returns the exact result of one operation.

    Args:
      symbol: of ``+ - * / // % **``.
      left: a number.
      right: a number.
      limits: of the magnitude.

    Raises:
      RefusedError: if the result is too large or does not exist.

    >>> apply("/", 6, 4)
    Fraction(3, 2)
    """
    for side in (left, right):
        if type(side) is not int and type(side) is not Fraction:
            got = f"The operation {symbol} has {side!r:.60} beside it"
            refuse(Reason.TYPE, got, "two numbers")
    if symbol == "**":
        return _power(left, right, limits)
    try:
        return within(BINARY[symbol](left, right), limits)
    except ZeroDivisionError:
        refuse(Reason.DIVISION, "The text divides by zero", "another divisor")


def _power(base: Number, exponent: Number, limits: Limits) -> Number:
    if type(exponent) is not int:
        refuse(Reason.TYPE, f"An exponent is {exponent}", "a whole number")
    if base == 0 and exponent < 0:
        refuse(Reason.DIVISION, "The text divides by zero", "another divisor")
    # Before the power is computed: 9**9**9 has 370 million digits.
    if base not in (0, 1, -1) and (bits(base) - 1) * abs(exponent) > limits.magnitude:
        too_large("A power", limits)
    return within(Fraction(base) ** exponent, limits)


BINARY: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": Fraction,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
}
"""Operations by symbol."""
