"""Solution templates: which words, in which order, and where the result stands.

Two templates may share their words and not their order, or the reverse, so that what
two experts have in common can be varied in either alone.
"""

import dataclasses
from typing import Literal, TypeAlias, get_args

import numpy as np

Order: TypeAlias = Literal["operator-first", "operand-first"]
Place: TypeAlias = Literal["after", "before"]
WORDS = (0, 1)
"""Numbers of the vocabularies for operations, and of those for numbers."""


@dataclasses.dataclass(frozen=True)
class Template:
    """How one step of a solution is written."""

    words: int = 0
    """Number of the vocabulary for operations, 0 or 1."""
    order: Order = "operator-first"
    """Which comes first, the operation or its operands."""
    place: Place = "after"
    """Does the result stand after its operation, or before it?"""
    numbers: int = 0
    """Number of the vocabulary for numbers in solutions: digits, or their names, which
    only symbols have."""

    def __post_init__(self):
        if (
            self.words not in WORDS
            or self.numbers not in WORDS
            or self.order not in get_args(Order)
            or self.place not in get_args(Place)
        ):
            raise ValueError(
                f"Unknown template {self.name}, expected words and numbers "
                f"{' or '.join(map(str, WORDS))}, order {' or '.join(get_args(Order))} "
                f"and place {' or '.join(get_args(Place))}."
            )

    @property
    def name(self) -> str:
        """A short name, as ``words0/operator-first/after``."""
        name = f"words{self.words}/{self.order}/{self.place}"
        return f"{name}/named numbers" if self.numbers else name

    @property
    def positions(self) -> tuple[int, int, int]:
        """Where operation, operand and result stand among the three.

        >>> Template(0, "operand-first", "before").positions
        (2, 1, 0)
        """
        first = 0 if self.place == "after" else 1
        result = 2 if self.place == "after" else 0
        pair = (first, first + 1)
        operation, operand = pair if self.order == "operator-first" else pair[::-1]
        return operation, operand, result


S, R = Template(0, "operator-first"), Template(1, "operand-first", numbers=1)
"""Two templates that share neither words, nor numbers, nor order."""
R_IN_DIGITS = dataclasses.replace(R, numbers=0)
"""The second of them as English writes it."""
ALL = tuple(
    Template(words, order, place, numbers)
    for numbers in WORDS
    for words in WORDS
    for order in get_args(Order)
    for place in get_args(Place)
)
"""Every template; English writes the first eight, those with digits."""


def apart(template: Template, same_words: bool, same_order: bool) -> Template:
    """Returns the template that shares words, order, both or neither with another.

    Args:
      template: the common one.
      same_words: keep the vocabularies of operations and numbers?
      same_order: keep the order of operation and operands?

    >>> apart(S, same_words=False, same_order=False) == R
    True
    """
    orders: tuple[Order, ...] = get_args(Order)
    other = orders[1 - orders.index(template.order)]
    return dataclasses.replace(
        template,
        words=template.words if same_words else 1 - template.words,
        numbers=template.numbers if same_words else 1 - template.numbers,
        order=template.order if same_order else other,
    )


def shared(
    rng: np.random.Generator, n: int, common: int, other: int, share: float
) -> np.ndarray:
    """Returns a template's number for each of n rows, some of them in the common one.

    For one state of ``rng``, rows that are common at a share stay so at a higher one.

    Args:
      rng: chooses the rows.
      n: how many.
      common: the number of the template that two experts share.
      other: the number of the expert's other template.
      share: of rows in the common template, in [0, 1].

    Raises:
      ValueError: if the share is outside [0, 1].

    >>> shared(np.random.default_rng(0), 8, common=0, other=1, share=0.25).sum()
    np.int64(6)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"Got a share of {share} common rows, expected one in [0, 1].")
    rank = rng.permutation(n)
    return np.where(rank < round(share * n), common, other)
