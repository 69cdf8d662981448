"""Exact match and last number, case by case."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.evaluate import answers


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
        (r"The answer is $9{,}500$.", "#### 9500", True),
        (r"so \$12\,500 in all", "#### 12500", True),
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
