"""Exact match and last number, case by case."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.evaluate import answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("72", "72"),
        ("-3", "-3"),
        ("x = -3", "-3"),
        ("+3", "3"),
        ("\u22124", "-4"),  # a typographic minus
        ("7-3", "3"),
        ("7 - 3", "3"),
        ("(2)-3", "3"),
        ("10,20", "20"),
        ("1, 2, 3", "3"),
        ("3,000", "3000"),
        ("1,234,567", "1234567"),
        ("1,2345", "2345"),
        ("$1,072.50.", "1072.5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("\\$18", "18"),
        ("£3 or €4", "4"),
        ("50%", "50"),
        ("12,", "12"),
        ("12.", "12"),
        ("is .5", "0.5"),
        ("A: -.5", "-0.5"),
        ("1e3", "1000"),
        ("2.50", "2.5"),
        ("5km", "5"),
        ("the 2nd", "2"),
        ("3/4", "4"),
        ("**72**", "72"),
        ("\\boxed{18}", "18"),
        ("12:30", "30"),
        ("6 eggs of H2O", "6"),
        ("5 and v1", "5"),
        ("#### 72", "72"),
        ("5\n#### 1,072\nQuestion 3: 9?", "1072"),
        ("#### 3 #### 4", "3"),
        ("5 #### none", "5"),
        ("####", None),
        ("none", None),
        ("", None),
        ("v1", None),
        ("version 1.2.3x", "1.2"),
        ("\u0663", None),  # an Arabic three
    ],
)
def test_the_number_of_a_text(text, expected):
    assert answers.number(text) == (None if expected is None else Decimal(expected))


@settings(max_examples=100, deadline=None)
@given(st.decimals(-(10**9), 10**9, places=3), st.sampled_from(["{}", "{:,}"]))
def test_a_printed_number_is_read_back(value, form):
    for text in ("{}", "It is {}.", "1 2 3 so #### {}", "**${}**", "={}%"):
        assert answers.number(text.format(form.format(value))) == value


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_can_be_judged(text):
    answers.last_number(text, "3")
    judged = answers.exact_match(text, text)
    assert judged.correct or answers.END_OF_THOUGHT in text
    assert answers.normalise(answers.normalise(text)) == answers.normalise(text)


@pytest.mark.parametrize(
    ("text", "answer", "correct"),
    [
        ("Oslo", "oslo", True),
        (" Oslo.\n", "Oslo", True),
        ('"Oslo"', "Oslo", True),
        ("**Oslo**.", "Oslo", True),
        ("New  York\nCity", "new york city", True),
        ("cafe\u0301", "caf\u00e9", True),
        ("Straße", "STRASSE", True),
        ("The Oslo", "Oslo", False),
        ("Oslo, Norway", "Oslo", False),
        ("Osl", "Oslo", False),
        ("", "Oslo", False),
        ("<think>Rome? no</think>\n\nOslo", "Oslo", True),
        ("<think>Oslo</think> Rome", "Oslo", False),
    ],
)
def test_exact_match(text, answer, correct):
    found = answers.METRICS["exact"](text, answer)
    assert found.correct is correct
    assert found.wanted == answers.normalise(answer)


@pytest.mark.parametrize(
    ("text", "answer", "correct"),
    [
        ("so 72.00 eggs", "48/2 ...\n#### 72", True),
        ("$1,072", "#### 1072", True),
        ("1072.5", "#### 1072", False),
        ("-72", "72", False),
        ("no idea", "72", False),
        ("<think>72</think> 73", "72", False),
        ("<think>73</think> 72", "72", True),
        ("<think>so 72, and then", "72", True),
    ],
)
def test_last_number(text, answer, correct):
    assert answers.METRICS["number"](text, answer).correct is correct


def test_what_was_compared_is_told():
    found = answers.last_number("it is 1,500.50", "1.5e3")
    assert found == (False, "1500.5", "1500")
    assert answers.last_number("none", "100") == (False, None, "100")


def test_an_answer_without_number_is_refused():
    with pytest.raises(ValueError, match=r"'Oslo' has no number.*metric exact"):
        answers.last_number("3", "Oslo")
