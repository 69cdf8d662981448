"""Rendered problems: question and solution agree, or the template is refused."""

import decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.tasks import gsm, numbers
from jaxlora.tasks.gsm import formats, templates

INIT = ["name = sample(names_female)", "$n = range(4, 40)", "$frac = sample(fractions)"]
QUESTION = "{name, Ola} has {n, 8} cups. {frac, half} are blue. How many are not?"
SOLUTION = (
    "{n}*{frac} = <<{n}*{frac}={int(n*frac)}>>{int(n*frac)}\n#### {int(n*(1-frac))}"
)


@pytest.fixture
def cups(parse):
    answer, rules = "n - n*frac", ["is_int(n*frac)"]
    return parse(INIT, QUESTION, answer=answer, solution=SOLUTION, rules=rules)


def test_given_values_fill_the_slots(cups):
    entries = {"name": "Ola", "n": 12, "frac": ("a third", Fraction(1, 3))}
    problem = templates.render(cups, entries)
    assert problem.question == "Ola has 12 cups. A third are blue. How many are not?"
    assert problem.steps == ("12*1/3 = <<12*1/3=4>>4",)
    assert (problem.answer, problem.where) == (8, "cups.json")
    assert templates.answer(cups, entries) == 8


def test_drawn_problems_agree_and_the_seed_decides(cups):
    problems = list(templates.instances(cups, np.random.default_rng(3), 20))
    assert len({x.question for x in problems}) > 10
    again = list(templates.instances(cups, np.random.default_rng(3), 20))
    assert problems == again
    for problem in problems:
        assert "{" not in problem.question + formats.annotated(problem)


def test_a_rendered_problem_is_no_training_data(cups):
    problem = next(templates.instances(cups, np.random.default_rng(0), 1))
    with pytest.raises(ValueError, match=r"rendered from a template of GSM-Symbolic"):
        gsm.example(problem, "plain")


def test_draws_at_which_a_template_contradicts_itself_are_drawn_again(parse):
    # Without is_int: the solution cuts what the answer keeps.
    parsed = parse(["$n = range(2, 12)"], answer="n / 2", solution="#### {n // 2}")
    problems = list(templates.instances(parsed, np.random.default_rng(0), 30))
    assert all(2 * x.answer == int(x.question.split()[0]) for x in problems)


def test_a_template_that_never_agrees_is_refused_and_can_be_rendered(parse):
    parsed = parse(["$n = range(2, 12)"], answer="n + 1", solution="#### {n}")
    message = r"cups\.json: the solution ends in (\d+), #answer gives .* contradicts"
    with pytest.raises(ValueError, match=message):
        next(templates.instances(parsed, np.random.default_rng(0), 1))
    assert templates.render(parsed, {"n": 3}).answer == 3


def test_a_solution_without_one_number_is_refused(parse):
    parsed = parse(["$n = range(2, 12)"], solution="#### {n / 3}")
    with pytest.raises(
        ValueError, match=r"cups\.json: '4/3' after #### is not one num"
    ):
        templates.render(parsed, {"n": 4})
    parsed = parse(["$n = range(2, 12)"], solution="#### {n / (n - 4)}")
    with pytest.raises(ValueError, match=r"cups\.json: The text divides by zero"):
        templates.render(parsed, {"n": 4})


def test_defaults_are_the_values_of_the_slots(cups, parse):
    entries = templates.defaults(cups)
    assert entries == {"name": "Ola", "n": ("8", 8), "frac": ("half", Fraction(1, 2))}
    problem = templates.render(cups, entries)
    assert problem.question == "Ola has 8 cups. Half are blue. How many are not?"
    assert problem.answer == 4


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("Forty-two", 42),
        ("a quarter", Fraction(1, 4)),
        ("1/8", Fraction(1, 8)),
        ("two-thirds", Fraction(2, 3)),
        ("third", Fraction(1, 3)),
        ("twice", 2),
        ("four times", 4),
        ("0.25", Fraction(1, 4)),
        ("1,500", 1500),
    ],
)
def test_defaults_in_words(parse, words, number):
    parsed = parse(["$n = range(4)"], question=f"{{n, {words}}} cups")
    assert templates.defaults(parsed) == {"n": (words, number)}


@pytest.mark.parametrize("question", ["{n, many} cups", "{n, 1/0} cups", "cups"])
def test_without_a_default_there_are_none(parse, question):
    assert templates.defaults(parse(["$n = range(4)"], question=question)) is None


@settings(max_examples=200, deadline=None)
@given(st.decimals(-(10**9), 10**9, places=4))
def test_decimals_are_written_without_loss(value):
    text = templates.written(Fraction(value))
    assert numbers.exact(text) == value
    assert text == numbers.shown(decimal.Decimal(text))
