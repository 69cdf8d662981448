"""Records of word problems: what is read, and every refusal."""

import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.tasks.gsm import records

CLIPS = "24 / 2 = <<24/2=12>>12 clips\n\nso 24 + 12 = <<24+12=36>>36\n#### 36"


def _read(answer, question="How many clips?"):
    return records.problem({"question": question, "answer": answer}, "a.jsonl:3")


def test_steps_annotations_and_the_answer():
    clips = _read(CLIPS)
    assert clips.question == "How many clips?"
    assert clips.steps == (
        "24 / 2 = <<24/2=12>>12 clips",
        "so 24 + 12 = <<24+12=36>>36",
    )
    assert clips.annotations == (
        records.Annotation(0, "24/2", "12"),
        records.Annotation(1, "24+12", "36"),
    )
    assert (clips.answer, clips.where, clips.canary) == (36, "a.jsonl:3", "")


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("72", 72),
        ("-72", -72),
        ("1,072", 1072),
        ("$1,072", 1072),
        ("$9{,}500", 9500),
        (r"$12\,500$", 12500),
        (r"10,\!000", 10000),
        ("32.5", Decimal("32.5")),
        ("-0.25", Decimal("-0.25")),
        ("50.0", 50),
        ("9" * 40, int("9" * 40)),
    ],
)
def test_final_numbers_are_exact(end, expected):
    answer = _read(f"so it is\n#### {end}").answer
    assert answer == expected
    assert type(answer) is type(expected)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("so it is 36", "has no final number, got 'so it is 36'; expected a last line"),
        ("#### 3\n#### 4", "has 2 final numbers, '3' and '4' first; expected one line"),
        ("#### 3 #### 4 ####", "has 3 final numbers"),
        ("#### 3 or 4", "'3 or 4' after #### is not one number"),
        ("#### 3\nThe end", "is not one number"),
        ("####", "'' after #### is not one number"),
        ("#### 3/4", "'3/4' after #### is not one number"),
        ("#### " + "9" * 41, "has 41 digits, expected at most 40"),
        ("#### 1e300", "has 301 digits, expected at most 40"),
    ],
)
def test_a_bad_answer_is_one_sentence_with_file_and_line(answer, message):
    with pytest.raises(ValueError, match=rf"^a\.jsonl:3: .*{re.escape(message)}"):
        _read(answer)


def test_a_question_with_the_mark_of_an_answer_is_refused():
    with pytest.raises(ValueError, match=r"^a\.jsonl:3: the question holds ####, "):
        _read(CLIPS, question="How many? #### 3")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"question": "2?"}, "no field 'answer', the line has 'question'; expected {"),
        ({"question": 2, "answer": CLIPS}, "'question' is 2, expected a string"),
        ({"question": " ", "answer": CLIPS}, "'question' is empty"),
    ],
)
def test_missing_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=rf"^a\.jsonl:3: {re.escape(message)}"):
        records.problem(fields, "a.jsonl:3")


def test_annotations_are_taken_off_a_step():
    assert records.unmarked("5*2=<<5*2=10>>10, <<1>>1 < 2") == "5*2=10, 1 < 2"


@settings(max_examples=100, deadline=None)
@given(st.decimals(-(10**12), 10**12, places=2), st.sampled_from(["{:f}", "{:,f}"]))
def test_a_written_answer_is_read_back(value, form):
    assert _read(f"so\n#### {form.format(value)}").answer == value


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_is_read_or_refused_in_a_sentence(text):
    outcome = _outcome(text)
    assert isinstance(outcome, int | Decimal) or outcome.startswith("a.jsonl:3: ")


def _outcome(text):
    try:
        return _read(text).answer
    except ValueError as error:
        return str(error)
