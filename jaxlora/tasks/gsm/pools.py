"""Names, things and numbers that templates draw from and do not list themselves.

The pools of the published instances are not part of the data; these are our choice and
short. A number of words is a pair: how the question says it, and its value.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

_FEMALE = "Amina Beatriz Chiara Dalia Eun-ji Freya Gulnara Hana Ines Jelena Kavya Leila"
_MALE = "Anton Bilal Cheng Dario Emeka Farid Goran Hugo Ivo Jonas Kenji Lamine"
_COLORS = "amber blue crimson green indigo orange purple white"
_FRUITS = "apple banana fig lemon mango orange peach plum"
_WEEKDAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
_TO_TWENTY = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen "
    "fourteen fifteen sixteen seventeen eighteen nineteen"
)
_ONES = _TO_TWENTY.split()
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_ORDINALS = "half third fourth fifth sixth seventh eighth ninth tenth"
_PARTS = _ORDINALS.split()
"""Names of 1/2 to 1/10."""


def spelled(number: int) -> str:
    """Returns a whole number below 100 in words.

    Args:
      number: from 0 to 99.

    >>> spelled(42), spelled(7)
    ('forty-two', 'seven')
    """
    if number < len(_ONES):
        return _ONES[number]
    tens, ones = _TENS[number // 10 - 2], number % 10
    return f"{tens}-{_ONES[ones]}" if ones else tens


def numbers_within(first: int, last: int) -> list[tuple[str, int]]:
    """Returns the numbers from the first to the last, both included, in words.

    Args:
      first: from 0.
      last: to 99.
    """
    return [(spelled(i), i) for i in range(first, last + 1)]


_SIMPLE = [(f"1/{i}", Fraction(1, i)) for i in range(2, 11)]
_NAMED = [
    ("half" if i == 2 else f"one-{part}", Fraction(1, i))
    for i, part in enumerate(_PARTS, start=2)
]
_SEVERAL = [
    (f"{_ONES[top]}-{_PARTS[bottom - 2]}s", Fraction(top, bottom))
    for top, bottom in ((2, 3), (3, 4), (2, 5), (3, 5), (4, 5), (5, 6), (3, 10))
]
_TIMES = [(f"{_ONES[i]} times", i) for i in range(3, 11)]

POOLS: Mapping[str, Any] = {
    "names": [*_FEMALE.split(), *_MALE.split()],
    "names_female": _FEMALE.split(),
    "names_male": _MALE.split(),
    "cities": ["Lisbon", "Nairobi", "Osaka", "Quito", "Tbilisi", "Turin", "Winnipeg"],
    "colors": _COLORS.split(),
    "currencies_sym": ["$", "€", "£", "¥"],
    "fraction_alnum": [*_NAMED, *_SEVERAL, *_SIMPLE],
    "fraction_alph": [*_NAMED, *_SEVERAL],
    "fraction_decimals": [(f"0.{i}", Fraction(i, 10)) for i in range(1, 10)],
    "fraction_nums": _SIMPLE,
    "fractions": [*_NAMED, *_SEVERAL, *_SIMPLE],
    "fruits": _FRUITS.split(),
    "length_lg": ["kilometer", "mile"],
    "multi_times": _TIMES,
    "multiple": [("double", 2), ("triple", 3), ("quadruple", 4)],
    "multiple_ice": [("twice", 2), ("thrice", 3)],
    "sports": ["badminton", "cricket", "hockey", "rugby", "tennis", "volleyball"],
    "weekdays": _WEEKDAYS.split(),
    "weights_med": ["kilogram", "pound"],
    "weights_sm": ["gram", "ounce"],
}
"""Pools by the name that templates use."""
