"""Straight-line programs: what they answer, and that hostile ones are refused."""

import contextlib
import io
import pathlib
import re
import resource
import runpy
import tracemalloc
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.tasks import arithmetic, programs
from jaxlora.tasks.arithmetic import Limits, Reason

HOSTILE = runpy.run_path(str(pathlib.Path(__file__).parent / "hostile_programs.py"))[
    "HOSTILE"
]
CPU_SECONDS = 20  # a thousand times what all of them take: a hang, not a slow machine
PEAK_BYTES = 8 * 2**20  # 4,000 characters make a tree of about 1 MB


@pytest.mark.parametrize(
    ("program", "value"),
    [
        ("x = 3", 3),
        ("x = 3\ny = x * 4\nprint(y)", 12),
        ("x = 3\ny = x * 4\nprint(x)", 3),
        ("x = 3\ny = x * 4", 12),
        ("answer = 3\ny = 4", 3),
        ("answer = 3\nprint(4)", 4),
        ("x = 3\nreturn x + 1", 4),
        ("x = 3\nx += 4\nx -= 1\nx *= 5\nx //= 4\nx **= 2\nx %= 10\nprint(x)", 9),
        ("x = 7 / 2  # a half\nprint(x)", Fraction(7, 2)),
        ("x = 6 / 2", 3),
        ("x = 0.1 + 0.2", Fraction(3, 10)),
        ("x = 1_000; y = -x; print(+y)", -1000),
        ("x = (2 +\n  3)\nprint(x)", 5),
        ("été = 1", None),
        ("x = 1  # été", 1),
        ("\r\nx = 1\r\nprint(x)\r\n", 1),
        ("_ = 0x10", 16),
        ("x = 7 // 2 + 7 % 2 - -7 // 2", 8),
    ],
)
def test_the_answer_of_a_program(program, value):
    assert programs.run(program).value == value


def test_a_whole_answer_is_an_int_and_no_float():
    assert type(programs.run("x = 8 / 4 * 1.5").value) is int


def test_operations_come_in_the_order_of_their_results():
    steps = programs.operations("a = 2 * 3 + 4\nb = a / 4\nprint(b - 1)")
    assert steps == (
        ("*", 2, 3, 6),
        ("+", 6, 4, 10),
        ("/", 10, 4, Fraction(5, 2)),
        ("-", Fraction(5, 2), 1, Fraction(3, 2)),
    )
    assert programs.operations("a = 2 * 3\nb = a / 0\nc = 1 + 1") == steps[:1]
    assert programs.operations("while 1: pass") == ()


def test_hostile_programs_are_refused_for_the_reason_they_should_be():
    hostile = [(reason, text) for reason, texts in HOSTILE.items() for text in texts]
    assert len(set(hostile)) == len(hostile) >= 280
    assert set(HOSTILE) == set(Reason)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    refused = [programs.run(text) for _, text in hostile]
    spent = resource.getrusage(resource.RUSAGE_SELF).ru_utime - before
    wrong = [
        (text[:60], expected, outcome)
        for (expected, text), outcome in zip(hostile, refused, strict=True)
        if outcome.reason is not expected or outcome.value is not None
    ]
    assert not wrong
    assert spent < CPU_SECONDS
    for outcome in refused:  # a sentence, short though the program may be long
        assert re.fullmatch(r"[A-Z][^\n]*, expected [^\n]*\.", outcome.message)
        assert len(outcome.message) < 400


def test_no_hostile_program_takes_memory():
    tracemalloc.start()
    try:
        for texts in HOSTILE.values():
            for text in texts:
                tracemalloc.reset_peak()
                start, _ = tracemalloc.get_traced_memory()
                programs.run(text)
                _, peak = tracemalloc.get_traced_memory()
                assert peak - start < PEAK_BYTES, text[:60]
    finally:
        tracemalloc.stop()


def test_hostile_programs_print_and_change_nothing():
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        for texts in HOSTILE.values():
            for text in texts:
                programs.run(text)
    assert printed.getvalue() == ""


@pytest.mark.parametrize("module", ["arithmetic", "programs", "arithmetic_syntax"])
def test_the_source_never_runs_a_text(module):
    source = pathlib.Path(arithmetic.__file__).with_name(f"{module}.py").read_text()
    assert not re.search(r"(?<!re\.)\b(eval|exec|compile|__import__)\(", source)


@pytest.mark.parametrize(
    ("limits", "program", "reason"),
    [
        (Limits(characters=5), "x = 1 ", Reason.CHARACTERS),
        (Limits(nodes=3), "x = 1 + 1\ny = 1", Reason.NODES),
        (Limits(depth=2), "x = 1 + (1 + 1)", Reason.DEPTH),
        (Limits(magnitude=8), "x = 16 * 16", Reason.MAGNITUDE),
        (Limits(magnitude=8), "x = 256", Reason.MAGNITUDE),
        (Limits(magnitude=8), "x = 1 / 256", Reason.MAGNITUDE),
        (Limits(magnitude=8), "x = 2 ** 8", Reason.MAGNITUDE),
    ],
)
def test_each_limit_is_exact(limits, program, reason):
    assert programs.run(program, limits).reason is reason
    wider = Limits(**{reason.value: getattr(limits, reason.value) + 1})
    assert programs.run(program, wider).reason is None


NAMES = st.sampled_from(["a", "b", "c"])
LEAVES = NAMES | st.integers(-99, 99).map(str)
OPERATORS = st.sampled_from(["+", "-", "*", "/", "//", "%"])
LINES = st.tuples(NAMES, LEAVES, OPERATORS, LEAVES)


@settings(max_examples=300, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=6), NAMES)
def test_programs_answer_as_python_does_on_fractions(lines, printed):
    text = "\n".join(f"{name} = {x} {op} {y}" for name, x, op, y in lines)
    outcome = programs.run(f"{text}\nprint({printed})")
    scope: dict = {}
    try:
        exec(re.sub(r"\b\d+\b", r"F(\g<0>)", text), {"F": Fraction}, scope)
        assert outcome.value == scope[printed]
    except ZeroDivisionError:
        assert outcome.reason is Reason.DIVISION
    except (NameError, KeyError):
        assert outcome.reason is Reason.NAME


@settings(max_examples=500, deadline=None)
@given(st.text() | st.text("()[]{}:=+-*/%.,'\"\\ \n\txyz019fljr#@;<>").map(str))
def test_any_text_has_an_outcome(text):
    outcome = programs.run(text)
    assert (outcome.value is None) is (outcome.reason is not None)
