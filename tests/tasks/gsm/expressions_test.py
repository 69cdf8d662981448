"""Expressions of templates: values and lists, exactly, and nothing else."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.tasks.gsm import expressions
from jaxlora.tasks.refusals import RefusedError

HALF = Fraction(1, 2)


def _value(text, **names):
    return expressions.value(expressions.tree(text), names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n // 4 * 2", 4),
        ("n / 4", Fraction(5, 2)),
        ("0.1 + 0.2 == 0.3", True),
        ("int(n / 4)", 2),
        ("int(-n / 4)", -2),
        ("round(n / 3, 2)", Fraction(333, 100)),
        ("round(half + 1)", 2),
        ("Fraction(n, 4)", Fraction(5, 2)),
        ("{n + (n / Fraction(2 * n, 4))}", 12),
        ("is_int(n * half)", True),
        ("is_int(n / 4) == False", True),
        ("divides(n, 5) and not divides(n, 4)", True),
        ("1 < n <= 10 != 3", True),
        ("n * half[1]", 5),
        ("day[0]", "F"),
        ("7 if day == 'Friday' else 30", 7),
    ],
)
def test_values(text, expected):
    assert _value(text, n=10, half=HALF, day="Friday") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("range(2, 5)", [2, 3, 4]),
        ("range(9, 2, -3)", [9, 6, 3]),
        ("range(5, 5)", []),
        ("np.arange(0.5, 1.5, 0.25)", [HALF, Fraction(3, 4), 1, Fraction(5, 4)]),
        ("frange(1, 2, 0.5)", [1, Fraction(3, 2)]),
        ("fix_floats(shuffle_list(list(np.arange(0, 1, 0.5))))", [0, HALF]),
        ("[0.25, 0.5]", [Fraction(1, 4), HALF]),
        ("list(range(2, 4)) * 2", [2, 3, 2, 3]),
        ("multiple[:2]", [("double", 2), ("triple", 3)]),
        ("['tea'] + ['€']", ["tea", "€"]),
        ("sample([('pair', 2)] * 2)", [("pair", 2), ("pair", 2)]),
        (
            "numbers_within(19, 21)",
            [("nineteen", 19), ("twenty", 20), ("twenty-one", 21)],
        ),
        ("np.random.randint(5, 8, 50)", [5, 6, 7]),
    ],
)
def test_lists_to_draw_from(text, expected):
    assert list(expressions.choice(text).items) == expected


def test_how_many_are_drawn_and_whether_in_order():
    assert expressions.choice("sample(names, 2)").count == 2
    days = expressions.choice("sample_sequential(weekdays, 3)")
    assert (days.count, days.consecutive, len(days.items)) == (3, True, 7)


HOSTILE = (
    "__import__('os')",
    "n.__class__",
    "np.load('x')",
    "open('x')",
    "[x for x in n]",
    "lambda: n",
    "f'{n}'",
    "n if (n := 2) else 3",
    "day[0][0].upper()",
    "day[n]",
    "half[0]",
    "{1, 2}",
    "9**9**9",
    "range(10**9)",
    "[0] * 10**9",
    "list(range(10**6)) * 9",
    "round(half, 10**9)",
    "numbers_within(0, 10**9)",
    "'a' * 9",
    "int('x')",
    "int(day)",
    "range('a')",
    "range(1, 2, 0)",
    "is_int()",
    "unknown",
    "n +",
    "",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_anything_else_is_refused(text):
    with pytest.raises(RefusedError):
        _value(text, n=10, half=HALF, day="Friday")
    with pytest.raises(RefusedError):
        expressions.choice(text)


@pytest.mark.parametrize("text", ["3", "'abc'", "sample(3)", "names[0]", "1 < 2"])
def test_what_is_no_list_cannot_be_drawn_from(text):
    with pytest.raises(RefusedError):
        expressions.choice(text)


@settings(max_examples=100, deadline=None)
@given(*[st.integers(-50, 50)] * 2, st.integers(-9, 9).filter(bool))
def test_a_range_is_that_of_python(start, stop, step):
    text = f"range({start}, {stop}, {step})"
    assert list(expressions.choice(text).items) == list(range(start, stop, step))
