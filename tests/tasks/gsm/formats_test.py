"""Formats of a solution: the same answer in each, and back."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.evaluate import answers
from jaxlora.tasks import gsm
from jaxlora.tasks.gsm import formats

ROLLS = gsm.Problem(
    "How many?", ("4*6 = <<4*6=24>>24 rolls", "24-2 = <<24-2=22>>22 left"), 22
)


def test_each_format_of_a_solution():
    plain, annotated, markup, python = (
        gsm.written(ROLLS, name) for name in ("plain", "annotated", "markup", "python")
    )
    assert plain == "4*6 = 24 rolls\n24-2 = 22 left\n#### 22"
    assert annotated == "\n".join((*ROLLS.steps, "#### 22"))
    assert markup.split("\n") == [
        "<step>4*6 = <calc>4*6=24</calc>24 rolls</step>",
        "<step>24-2 = <calc>24-2=22</calc>22 left</step>",
        "<answer>22</answer>",
    ]
    assert python == "x1 = 4 * 6\nx2 = x1 - 2\nanswer = x2"


def test_an_unknown_format_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"Unknown format 'pyton'; did you mean 'pyth"):
        gsm.written(ROLLS, "pyton")


def test_a_record_to_train_on():
    assert gsm.example(ROLLS, "plain") == {
        "question": "How many?",
        "answer": "4*6 = 24 rolls\n24-2 = 22 left\n#### 22",
    }


STEPS = st.text(
    st.characters(
        codec="utf-8", exclude_characters="\n\r\0\1#<>=", exclude_categories=["C", "Z"]
    ),
    min_size=1,
)
TAGGED = st.tuples(STEPS, STEPS, STEPS).map(lambda x: f"{x[0]}<<{x[1]}={x[2]}>>&lt;<b>")
NUMBERS = st.one_of(st.integers(-(10**30), 10**30), st.just(Decimal("-0.25")))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(STEPS, TAGGED), max_size=4), NUMBERS)
def test_a_record_survives_writing_and_markup(steps, number):
    problem = gsm.Problem("?", tuple(steps), number)
    annotated = formats.annotated(problem)
    again = gsm.problem({"question": "?", "answer": annotated}, "")
    assert (again.steps, again.answer) == (problem.steps, number)
    assert again.annotations == problem.annotations
    assert formats.unmarkup(formats.markup(problem)) == annotated
    assert "<<" not in formats.plain(problem)
    for text in (annotated, formats.plain(problem)):
        assert answers.last_number(text, f"#### {number}").correct
