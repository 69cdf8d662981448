"""Which step of a written solution is the first wrong one, and how it is wrong.

A solution is a sequence of steps: an operation, its operands, the result. Only the
first error is named, for later steps go on from it. :func:`first_error` takes steps of
any kind, as :mod:`.solution_text` reads them; :func:`first_errors` says the same of
many solutions in symbols at once.
"""

import enum
import itertools
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

COMMUTATIVE = ("+", "*")
"""Operations whose operands may be written in any order."""
NO_ERROR = -1
"""Index and kind of a solution that is right; also what pads arrays of steps."""


class Kind(enum.StrEnum):
    """How the first wrong step is wrong."""

    OPERAND = "operand"
    """The right operation with another operand."""
    OPERATION = "operation"
    """Another operation, or nothing that can be read."""
    ARITHMETIC = "arithmetic"
    """The right operation and operands, another result."""
    ORDER = "order"
    """A later step's turn; the step that is due comes later."""
    TEMPLATE = "template"
    """The right step, written in another solution template."""
    MISSING = "missing"
    """The solution ends before this step, or leaves it out."""
    EXTRA = "extra"
    """A step too many, behind the last or between two right ones."""


KINDS = tuple(Kind)
"""Kinds by the number that :func:`first_errors` gives."""


class Step(NamedTuple):
    """One step of a solution."""

    operation: Hashable
    """A symbol as ``*``, or an id."""
    operands: tuple[Any, ...]
    """Their values, the left one first; in a chain the right one may stand alone."""
    result: Any
    template: Hashable = None
    """Which template it is written in; the same in both solutions if all are one."""


class FirstError(NamedTuple):
    """Where and how a solution goes wrong first."""

    index: int
    """Of the step, from 0."""
    kind: Kind


def first_error(
    expected: Sequence[Step], written: Sequence[Step], *, chained: bool = False
) -> FirstError | None:
    """Returns the first step that differs, and how; None if there is none.

    Args:
      expected: the right solution.
      written: the solution to score.
      chained: is the left operand the result before, and left out of ``operands``?
        Then the result of a step depends on its place, and a step that comes too early
        is *order* whatever its result.

    >>> right = [Step("*", (3, 4), 12), Step("-", (12, 5), 7)]
    >>> first_error(right, [Step("*", (3, 4), 12), Step("-", (12, 5), 8)])
    FirstError(index=1, kind=<Kind.ARITHMETIC: 'arithmetic'>)
    >>> first_error(right, [Step("*", (4, 3), 12), Step("-", (12, 5), 7)]) is None
    True
    """
    pairs = zip(expected, written, strict=False)
    same = (_content(e) == _content(w) and e.template == w.template for e, w in pairs)
    shared = min(len(expected), len(written))
    index = next((i for i, equal in enumerate(same) if not equal), shared)
    if index == shared:
        if len(expected) == len(written):
            return None
        short = len(written) < len(expected)
        return FirstError(index, Kind.MISSING if short else Kind.EXTRA)
    part = _content if not chained else _asked
    early = part(written[index]) in map(part, expected[index + 1 :])
    late = _asked(expected[index]) in map(_asked, written[index + 1 :])
    longer = len(written) - len(expected)
    kind = _kind(expected[index], written[index], early, late, longer)
    return FirstError(index, kind)


def either(
    readings: Sequence[tuple[Hashable, Sequence[Step | None]]],
) -> tuple[Step, ...]:
    """Returns each step in the first template in which it could be read.

    Args:
      readings: a template, and what one text says read in it: a step, or None for what
        is none in this template. The template that is expected comes first.

    >>> a, b = Step("+", (1, 2), 3), Step("*", (3, 2), 6)
    >>> [step.template for step in either([("S", [a, None]), ("R", [None, b])])]
    ['S', 'R']
    """
    steps = []
    for step in itertools.zip_longest(*(steps for _, steps in readings)):
        pairs = zip((template for template, _ in readings), step, strict=True)
        read = (x._replace(template=template) for template, x in pairs if x is not None)
        steps.append(next(read, Step(None, (), None)))
    return tuple(steps)


def _kind(expected: Step, written: Step, early: bool, late: bool, longer: int) -> Kind:
    """The kind of a step: is a later one early, and does the one that is due follow?"""
    if _content(expected) == _content(written):
        return Kind.TEMPLATE
    # Before the order: a step may be asked twice.
    if _asked(expected) == _asked(written):
        return Kind.ARITHMETIC
    if early and late:
        return Kind.ORDER
    if early and longer < 0:
        return Kind.MISSING
    if late and longer > 0:
        return Kind.EXTRA
    same = expected.operation == written.operation
    return Kind.OPERAND if same else Kind.OPERATION


def _asked(step: Step) -> tuple[Hashable, tuple]:
    operands = step.operands
    if step.operation in COMMUTATIVE:
        operands = tuple(sorted(operands, key=str))
    return step.operation, operands


def _content(step: Step) -> tuple[Hashable, tuple, Any]:
    return *_asked(step), step.result


def first_errors(
    expected: np.ndarray, written: np.ndarray, other: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first error of many chains of steps in symbols.

    It is what :func:`first_error` gives with ``chained``. A triple is operation,
    operand and result, -1 where a token could not be read; steps of -1 alone behind a
    solution are padding. The two widths may differ.

    Args:
      expected: int [N, S, 3], right solutions.
      written: int [N, S, 3], solutions read in the template they should be in.
      other: int [N, S, 3], the same solutions read in another template; a step that
        can be read in this one only counts as written in it.

    Returns:
      int [N], indices of the steps, and int [N], numbers of :data:`KINDS`; both are
      -1 where a solution is right.

    Raises:
      ValueError: if the shapes do not fit.

    >>> right = np.array([[[0, 6, 2], [1, 5, 10]]])
    >>> index, kind = first_errors(right, np.array([[[0, 6, 2], [1, 4, 11]]]))
    >>> int(index[0]), KINDS[kind[0]].value
    (1, 'operand')
    """
    _check(expected, written, other)
    written, elsewhere = _either(written, other)
    width = max(expected.shape[1], written.shape[1])
    expected, written = _padded(expected, width), _padded(written, width)
    elsewhere = np.pad(elsewhere, ((0, 0), (0, width - elsewhere.shape[1])))
    step, lengths = np.arange(width), (_length(expected), _length(written))
    ended = [step >= length[:, None] for length in lengths]
    # A gap in what is written is no padding, though it is -1 as well.
    wrong = (expected != written).any(2) | elsewhere | (ended[0] != ended[1])
    if not wrong.any():
        none = np.full(len(wrong), NO_ERROR)
        return none, none.copy()
    index = np.where(wrong.any(1), wrong.argmax(1), NO_ERROR)
    return index, _kinds(expected, written, index, lengths)


def _either(
    written: np.ndarray, other: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Steps in either reading, and bool [N, S]: is it the other's?"""
    if other is None:
        return written, np.zeros(written.shape[:2], bool)
    elsewhere = np.logical_and((other >= 0).all(2), (written < 0).any(2))
    return np.where(np.expand_dims(elsewhere, 2), other, written), elsewhere


def _kinds(
    expected: np.ndarray,
    written: np.ndarray,
    index: np.ndarray,
    lengths: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Numbers of kinds, int [N]; the rules of ``_kind``, the first that holds."""
    rows, step = np.arange(len(index)), np.arange(expected.shape[1])
    behind = step > index[:, None]
    due, turn = expected[rows, index], written[rows, index]
    # What cannot be read is -1 and must not match padding.
    to_come = behind & (step < lengths[0][:, None])
    early = ((expected[..., :2] == turn[:, None, :2]).all(2) & to_come).any(1)
    late = ((written[..., :2] == due[:, None, :2]).all(2) & behind).any(1)
    same, longer = due == turn, lengths[1] - lengths[0]
    rules = [
        (index == NO_ERROR, NO_ERROR),
        (index >= lengths[1], KINDS.index(Kind.MISSING)),
        (index >= lengths[0], KINDS.index(Kind.EXTRA)),
        (same.all(1), KINDS.index(Kind.TEMPLATE)),
        (same[:, :2].all(1), KINDS.index(Kind.ARITHMETIC)),
        (early & late, KINDS.index(Kind.ORDER)),
        (early & (longer < 0), KINDS.index(Kind.MISSING)),
        (late & (longer > 0), KINDS.index(Kind.EXTRA)),
        (~same[:, 0], KINDS.index(Kind.OPERATION)),
    ]
    conditions, numbers = zip(*rules, strict=True)
    return np.select(conditions, numbers, KINDS.index(Kind.OPERAND))


def _length(steps: np.ndarray) -> np.ndarray:
    """Steps up to the last of which something can be read, int [N]."""
    readable = (steps != NO_ERROR).any(2)
    last = steps.shape[1] - readable[:, ::-1].argmax(1)
    return np.where(readable.any(1), last, 0)


def _padded(steps: np.ndarray, width: int) -> np.ndarray:
    more = ((0, 0), (0, width - steps.shape[1]), (0, 0))
    return np.pad(steps, more, constant_values=NO_ERROR)


def _check(expected: np.ndarray, written: np.ndarray, other: np.ndarray | None) -> None:
    shapes = [x.shape for x in (expected, written, other) if x is not None]
    if (
        any(len(shape) != 3 or shape[2] != 3 for shape in shapes)
        or shapes[0][0] != shapes[1][0]
        or shapes[1] != shapes[-1]
    ):
        raise ValueError(
            f"Got steps of shapes {', '.join(map(str, shapes))}, expected [N, S, 3] of "
            f"one N, and the second reading of written steps as wide as the first."
        )
