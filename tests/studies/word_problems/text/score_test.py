"""Written solutions: their answer, their format, and how they go wrong."""

import itertools
from fractions import Fraction

import pytest

from jaxlora.evaluate.solutions import KINDS, Kind
from jaxlora.studies.word_problems.text import problems, score
from jaxlora.studies.word_problems.text.config import AskConfig, ProblemsConfig
from jaxlora.studies.word_problems.text.problems import Problem

FORMATS = ("plain", "annotated", "python", "markup")
SOLUTIONS = {
    "annotated": "3*4 = <<3*4=12>>12\n12-5 = <<12-5=7>>7\n#### 7",
    "plain": "3*4 = 12\n12-5 = 7\n#### 7",
    "python": "x1 = 3 * 4\nx2 = x1 - 5\nanswer = x2",
}
FILE = Problem("?", SOLUTIONS, Fraction(7), "easy", english=False)


@pytest.fixture(scope="module")
def ours():
    config = ProblemsConfig(formats=FORMATS, rows=2, ask=AskConfig(problems=20))
    return problems.prepare(config, 1).asked


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("forms", [None, FORMATS])
def test_right_solutions_are_right_in_every_format(ours, form, forms):
    for problem in ours:
        reading = score.read(problem.solutions[form], problem, forms or (form,))
        assert reading == (True, form, 1, -1)


@pytest.mark.parametrize("form", FORMATS)
def test_the_solution_of_another_problem_has_an_error(ours, form):
    pairs = [(x, y) for x, y in itertools.pairwise(ours) if x.answer != y.answer]
    assert len(pairs) > 10
    for problem, other in pairs:
        reading = score.read(other.solutions[form], problem, (form,))
        assert not reading.correct
        assert reading.steps == 0
        assert reading.error >= 0


@pytest.mark.parametrize(
    ("text", "form", "kind"),
    [
        ("3*4 = <<3*4=13>>13\n13-5 = <<13-5=8>>8\n#### 8", "annotated", "arithmetic"),
        ("3*5 = <<3*5=15>>15\n15-5 = <<15-5=10>>10\n#### 10", "annotated", "operand"),
        ("3+4 = <<3+4=7>>7\n7-6 = <<7-6=1>>1\n#### 1", "annotated", "operation"),
        ("3*4 = <<3*4=12>>12\n#### 12", "annotated", "missing"),
        ("3*4 = 12\n12-5 = 8\n#### 8", "plain", "arithmetic"),
        ("x1 = 3 * 4\nanswer = x1", "python", "missing"),
        ("import os", "python", "missing"),
    ],
)
def test_first_wrong_steps_have_a_kind(text, form, kind):
    reading = score.read(text, FILE, (form,))
    assert (reading.correct, reading.steps) == (False, 0)
    assert KINDS[reading.error] == Kind(kind)


def test_a_right_answer_by_another_way_has_no_error():
    text = "4*3-5 = <<4*3-5=7>>7\n#### 7"
    assert score.read(text, FILE, ("annotated",)) == (True, "annotated", 1, -1)
    other = "2+5 = <<2+5=7>>7\n#### 7"
    assert score.read(other, FILE, ("annotated",)) == (True, "annotated", 0, -1)


def test_a_program_counts_by_its_value_alone():
    assert not score.read("answer = 3 * 4  # 7", FILE, ("python",)).correct
    assert not score.read("The answer is 7.", FILE, ("python",)).correct
    fenced = f"Let us see.\n```python\n{SOLUTIONS['python']}\n```\nSo 12."
    assert score.read(fenced, FILE, ("python",)) == (True, "python", 1, -1)
    assert score.read("x = 14 / 2\nanswer = x", FILE, ("python",)).correct


@pytest.mark.parametrize(
    "text",
    ["while True: pass", "answer = 9**9**9", "__import__('os')", "((" * 99, "", "\0"],
)
def test_hostile_and_empty_texts_are_wrong(text):
    for forms in ((), *((x,) for x in SOLUTIONS), FORMATS):
        assert not score.read(text, FILE, forms).correct


def test_the_base_is_worth_its_last_number():
    reading = score.read("First 12, then 12 - 5, so it is 7.", FILE, ())
    assert reading == (True, "none", -1, -1)


def test_thoughts_do_not_count():
    assert score.read("<think>7</think> #### 8", FILE, ()).correct is False
    assert score.read("<think>8</think> #### 7", FILE, ("plain",)).correct


def test_steps_are_unknown_where_the_problem_has_none_in_the_format():
    assert score.read("3*4 = 12", FILE, ("markup",)).steps == -1
    bare = FILE._replace(solutions={"annotated": "It is 7.\n#### 7"})
    assert score.read("3*4 = <<3*4=12>>12", bare, ("annotated",)).steps == -1


def test_the_format_of_a_text_is_that_it_was_written_in():
    both = ("python", "plain")
    assert score.read(SOLUTIONS["python"], FILE, both).form == "python"
    assert score.read(SOLUTIONS["plain"], FILE, both).form == "plain"
    assert score.read("nothing", FILE, ("annotated", "python")).form == "annotated"
