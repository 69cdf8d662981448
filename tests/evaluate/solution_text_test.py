"""Steps read from text: four formats of one solution, and texts of any kind."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.evaluate import solution_text
from jaxlora.evaluate.solution_text import annotated, markup, plain, python, read
from jaxlora.evaluate.solutions import Kind, Step, first_error

STEPS = (
    Step("*", (3, 4), 12),
    Step("-", (12, 5), 7),
    Step("/", (7, 2), Fraction(7, 2)),
)
CENT = Fraction(1, 100)
SUM = (Step("+", (1, 2), 3),)
SAME = {
    "plain": "3 * 4 = 12\n12 - 5 = 7\n7 / 2 = 3.5\n#### 3.5",
    "annotated": "So 3*4=<<3*4=12>>12, 12-5=<<12-5=7>>7, <<7/2=3.5>>3.5\n#### 3.5",
    "python": "a = 3 * 4\nb = a - 5\nanswer = b / 2",
    "markup": '<step op="times" left="3" right="4">12</step>\n'
    '<step left="12" right="5" op="-"> 7 </step><step>so <calc>7/2=3.5</calc></step>'
    "\n<answer>3.5</answer>",
}


@pytest.mark.parametrize("form", SAME)
def test_every_format_gives_the_same_steps(form):
    assert read(SAME[form], form) == STEPS
    assert set(SAME) == set(solution_text.FORMATS)


@pytest.mark.parametrize(
    "text",
    [
        "3 times 4 is 12",
        "3 x 4 = 12",
        "3x4=12",
        "3 × 4 equals 12 eggs.",
        "$3 * 4 = $12",
        r"3 \times 4 = 12",
        "1. 3 * 4 = 12",
        "It began at 5. 3 * 4 = 12",
        "(2) 3 * 4 = 12.",
        "x = 3 * 4 = 12",
        "Step 1: (3) * (4) = 12",
        "total = 5, and 3 * 4 = 12",
        "3 boxes * 4 eggs/box = 12 eggs",
        "In 2 days: a 3-day total * 4 = 12",
        "In 2 days it is 3 * 4 = 12",
        "There are 5 of them (3 * 4 = 12 eggs)",
        "3 * (4) = 12",
    ],
)
def test_a_plain_step_in_many_words(text):
    assert plain(text) == STEPS[:1]


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("3 * 4 = 12 - 5 = 7", STEPS[:2]),
        ("3 * 4 - 5 = 7", STEPS[:2]),
        ("3 * 4 - 5 = 8", (STEPS[0], STEPS[1]._replace(result=8))),
        ("1,200 * 3 = 3,600", (Step("*", (1200, 3), 3600),)),
        ("10 / 3 = 3.33", (Step("/", (10, 3), Fraction(333, 100)),)),
        ("5 - 8 = -3", (Step("-", (5, 8), -3),)),
        ("5 / 0 = 0", (Step(None, (), 0),)),
        ("She has 12 eggs.", ()),
        ("x = 5", ()),
        ("because .25 / .05 = 5", (Step("/", (CENT * 25, CENT * 5), 5),)),
        ("It is so. .5 * 4 = 2", (Step("*", (CENT * 50, 4), 2),)),
        ("2S + 3 = 7", ()),
        ("S + 3 * 4 = 12 - 5 = 7", (STEPS[1],)),
        ("20 * 50% = 10", (Step("*", (20, 50), 1000), Step("*", (1000, CENT), 10))),
        ("", ()),
        ("= = =", ()),
    ],
)
def test_plain(text, steps):
    assert plain(text) == steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("3*4 = <<3*4=13>>12", (STEPS[0]._replace(result=13),)),
        ("<<5=5>>", ()),
        ("<<9**9**9=1>>", (Step(None, (), 1),)),
        ("<<__import__('os')=1>>", ()),
        ("<<3*4=>>", (STEPS[0]._replace(result=""),)),
        ("3 * 4 = 12", ()),
    ],
)
def test_annotated(text, steps):
    assert annotated(text) == steps


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ('<step op="add">7</step>', (Step("+", (), 7),)),
        ('<step op="frob" left="3" right="4">12</step>', (Step("frob", (3, 4), 12),)),
        ('<step op="times" left="3" right="x">?</step>', (Step("*", (3, "x"), "?"),)),
        ("<step>3 * 4 = 12</step>", ()),
        ("<step who='A'><op>sum</op><of>1</of><by>2</by><is>3</is></step>", SUM),
        ("<step><is>3</is><by>2</by><of>1</of><op>total</op></step>", SUM),
        ("<step><op>sum</op></step>", (Step("+", (), ""),)),
        ("<step>so <calc>1+2=3</calc>3, <calc>3*4=12</calc></step>", SUM + STEPS[:1]),
        ("<step>never closed <calc>3*4=12</calc>", STEPS[:1]),
        ("<calc>3*4=12</calc>", STEPS[:1]),
    ],
)
def test_markup(text, steps):
    assert markup(text) == steps


def test_a_program_is_read_up_to_what_is_refused():
    assert python("a = 3 * 4\nb = a - 5\nc = b / 0\nd = 1 + 1") == STEPS[:2]
    assert python("import os") == ()


def test_an_exact_quotient_is_one_however_it_is_written():
    assert python("a = 12 // 4") == (Step("/", (12, 4), 3),)
    assert python("a = 13 // 4") == (Step("//", (13, 4), 3),)


def test_a_wrong_text_is_wrong_where_it_is():
    wrong = plain("3 * 4 = 12\n12 - 5 = 8\n8 / 2 = 4")
    assert first_error(STEPS, wrong) == (1, Kind.ARITHMETIC)
    wrong = python("a = 3 * 4\nb = a + 5")
    assert first_error(STEPS, wrong) == (1, Kind.OPERATION)
    wrong = annotated("<<3*4=12>> <<12/0=7>>")
    assert first_error(STEPS, wrong) == (1, Kind.OPERATION)


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match=r"'marked'.*markup"):
        read("3 * 4 = 12", "marked")


@settings(max_examples=300, deadline=None)
@given(
    st.text() | st.text("0123456789.,+-*/=<>()$x \n\"'calcstep"),
    st.sampled_from(list(SAME)),
)
def test_any_text_gives_steps_or_none(text, form):
    steps = read(text, form)
    assert all(isinstance(step, Step) for step in steps)
    assert steps == () or first_error(steps, steps) is None


NUMBERS = st.integers(0, 9999)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(NUMBERS, st.sampled_from("+-*"), NUMBERS), max_size=5))
def test_written_steps_are_read_back(parts):
    apply = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
    steps = tuple(Step(op, (x, y), apply[op](x, y)) for x, op, y in parts)
    lines = [
        f"{s.operands[0]:,} {s.operation} {s.operands[1]} = {s.result:,}" for s in steps
    ]
    assert plain("\n".join(lines)) == steps
    assert annotated(" ".join(f"<<{line}>>" for line in lines)) == steps


@pytest.mark.parametrize("form", SAME)
@pytest.mark.parametrize(
    "piece",
    [
        "=",
        "<<",
        "<step ",
        "<step>",
        "1",
        "(",
        "1+",
        ". ",
        "1 1 ",
        "is",
        ".",
        "1%",
        "ab ",
    ],
)
def test_long_texts_of_one_piece_end(form, piece):
    read(piece * (10**6 // len(piece)), form)  # quadratic work would take minutes
