"""Programs from annotations: what they compute, and what has none."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.tasks import arithmetic, gsm
from jaxlora.tasks.gsm import straight_line


def _problem(answer, *annotations):
    steps = tuple(f"so <<{x}>>{x.partition('=')[2]}" for x in annotations)
    return gsm.Problem("?", steps, answer, "a.jsonl:3")


def _value(program):
    """The value of the last line, without running anything."""
    names = {}
    for line in program.split("\n"):
        name, _, expression = line.partition(" = ")
        names[name] = arithmetic.evaluate(expression, names)
    return names["answer"]


def test_an_operand_is_the_latest_step_that_gave_it():
    problem = _problem(48, "20+4=24", "12*2=24", "24*2=48")
    assert straight_line.program(problem).split("\n") == [
        "x1 = 20 + 4",
        "x2 = 12 * 2",
        "x3 = x2 * 2",
        "answer = x3",
    ]


def test_a_rounded_step_is_kept_exactly():
    program = straight_line.program(_problem(100, "100/3=33.33", "33.33*3=100"))
    assert _value(program) == 100


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (_problem(5), "the annotations give None, the answer is 5"),
        (_problem(5, "2+2=4"), "the annotations give 4, the answer is 5"),
        (_problem(5, "2+2=5"), r"'2\+2' in step 1 gives 4, the annotation says '5'"),
        (_problem(5, "2+x=5"), r"'2\+x' in step 1 is no arithmetic"),
        (_problem(5, "5/0=5"), "'5/0' in step 1 is no arithmetic .*divides by zero"),
        (_problem(5, "f(5)=5"), "is no arithmetic"),
        (_problem(5, "2+3=five"), "gives 5, the annotation says 'five'"),
    ],
)
def test_what_has_no_program_says_why(problem, message):
    with pytest.raises(ValueError, match=rf"^a\.jsonl:3: .*{message}"):
        straight_line.program(problem)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(-99, 99),
    st.lists(
        st.tuples(st.sampled_from("+-*"), st.integers(0, 9)), min_size=1, max_size=6
    ),
)
def test_a_chain_of_steps_gives_its_answer(start, operations):
    value, annotations = start, []
    for symbol, operand in operations:
        result = {"+": value + operand, "-": value - operand, "*": value * operand}
        annotations.append(f"({value}){symbol}{operand}={result[symbol]}")
        value = result[symbol]
    assert _value(straight_line.program(_problem(value, *annotations))) == value
