"""Which step is first wrong, and how: case by case, and arrays against steps."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.evaluate import solutions
from jaxlora.evaluate.solutions import KINDS, Kind, Step, first_error, first_errors

A, B, C = Step("*", (3, 4), 12), Step("-", (12, 5), 7), Step("+", (7, 1), 8)
RIGHT = [A, B, C]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ([A, B, C], None),
        ([Step("*", (4, 3), 12), B, C], None),
        ([A, Step("-", (12, 5), 8), C], (1, Kind.ARITHMETIC)),
        ([A, Step("-", (12, 4), 8), C], (1, Kind.OPERAND)),
        ([A, Step("-", (5, 12), 7), C], (1, Kind.OPERAND)),
        ([Step("*", (3, 5), 12), B, C], (0, Kind.OPERAND)),
        ([A, Step("+", (12, 5), 17), C], (1, Kind.OPERATION)),
        ([A, Step(None, (), 7), C], (1, Kind.OPERATION)),
        ([B, A, C], (0, Kind.ORDER)),
        ([A, C, B], (1, Kind.ORDER)),
        ([A, Step("+", (7, 1), 9), B], (1, Kind.OPERATION)),  # moved, but wrong
        ([A, A, C], (1, Kind.OPERATION)),  # B never comes
        ([A._replace(template=1), B, C], (0, Kind.TEMPLATE)),
        ([A, B._replace(template=1), A], (1, Kind.TEMPLATE)),
        ([A, B._replace(template=1, result=8), C], (1, Kind.ARITHMETIC)),
        ([], (0, Kind.MISSING)),
        ([A, B], (2, Kind.MISSING)),
        ([A, C], (1, Kind.MISSING)),
        ([A, B, C, C], (3, Kind.EXTRA)),
        ([A, Step("+", (1, 1), 2), B, C], (1, Kind.EXTRA)),
        ([Step("*", (3, 4), 13)], (0, Kind.ARITHMETIC)),  # before what is missing
    ],
)
def test_first_error(written, expected):
    assert first_error(RIGHT, written) == expected


def test_in_a_chain_the_result_of_a_moved_step_is_not_compared():
    right = [Step("add", (6,), 2), Step("subtract", (5,), 10)]
    moved = [Step("subtract", (5,), 4), Step("add", (6,), 10)]
    assert first_error(right, moved, chained=True) == (0, Kind.ORDER)
    assert first_error(right, moved) == (0, Kind.OPERATION)


def test_a_step_that_is_asked_twice_is_not_out_of_order():
    right = [Step("known0", (13,), 2), Step("known0", (13,), 10)]
    wrong = [Step("known0", (13,), 3), Step("known0", (13,), 10)]
    assert first_error(right, wrong, chained=True) == (0, Kind.ARITHMETIC)
    assert first_error(right, right[:1], chained=True) == (1, Kind.MISSING)


def test_a_step_counts_in_the_first_template_that_reads_it():
    readings = [(0, [A, None, None]), (1, [A, B, None]), (2, [None, B, None, C])]
    written = solutions.either(readings)
    assert [step.template for step in written] == [0, 1, None, 2]
    right = [step._replace(template=0) for step in (A, B, C)]
    assert first_error(right, written) == (1, Kind.TEMPLATE)
    assert first_error(right[:1], written[:1]) is None
    assert written[2] == (None, (), None, None)


def test_a_solution_of_no_steps():
    assert first_error([], []) is None
    assert first_error([], [A]) == (0, Kind.EXTRA)


def steps_of(rows, tags):
    """An array's steps one by one, without padding."""
    steps = [
        Step(int(row[0]), (int(row[1]),), int(row[2]), bool(tag))
        for row, tag in zip(rows, tags, strict=True)
    ]
    while steps and steps[-1][:3] == (-1, (-1,), -1):
        steps.pop()
    return steps


@st.composite
def solved(draw):
    """Right solutions, and the same with steps swapped, dropped, doubled, changed."""
    rows, right, written = draw(st.integers(1, 5)), [], []
    token = st.integers(0, 2)  # few values, so that steps are often alike
    triple = st.tuples(token, token, token)
    anything = st.tuples(*[st.integers(-1, 2)] * 3)
    for _ in range(rows):
        steps = draw(st.lists(triple, min_size=1, max_size=4))
        right.append(steps)
        kept = draw(st.permutations(steps) | st.just(steps))
        kept = kept[: draw(st.integers(0, 4))] + draw(st.lists(anything, max_size=2))
        change = draw(st.integers(0, 5))
        if change < len(kept):
            kept = [*kept[:change], draw(anything), *kept[change + 1 :]]
        written.append(kept)
    other = [[draw(anything | st.just(x)) for x in steps] for steps in written]
    hidden = [[draw(st.booleans()) for _ in steps] for steps in written]
    written = [
        [(-1, -1, -1) if hide else x for x, hide in zip(steps, mask, strict=True)]
        for steps, mask in zip(written, hidden, strict=True)
    ]
    return padded(right), padded(written), padded(other)


def padded(rows):
    out = np.full((len(rows), max(map(len, rows)), 3), -1)
    for row, steps in zip(out, rows, strict=True):
        row[: len(steps)] = np.array(steps).reshape(-1, 3)
    return out


def scores_agree(right, written, other):
    """Compares arrays with their steps row by row, and returns the kinds."""
    index, kind = first_errors(right, written, other)
    other = np.full_like(written, -1) if other is None else other
    for n in range(len(right)):
        elsewhere = (other[n] >= 0).all(-1) & ~(written[n] >= 0).all(-1)
        either = np.where(elsewhere[:, None], other[n], written[n])
        steps = steps_of(right[n], np.zeros(len(right[n]), bool))
        error = first_error(steps, steps_of(either, elsewhere), chained=True)
        assert error == (None if index[n] < 0 else (index[n], KINDS[kind[n]]))
        assert (index[n] == -1) == (kind[n] == -1)
    return kind


@settings(max_examples=150, deadline=None)
@given(solved(), st.booleans())
def test_arrays_say_what_steps_say(arrays, two_readings):
    right, written, other = arrays
    scores_agree(right, written, other if two_readings else None)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_arrays_say_what_steps_say_of_many(seed):
    rng = np.random.default_rng(seed)
    right = rng.integers(0, 3, (400, 4, 3))
    right[np.arange(4) >= rng.integers(1, 5, (400, 1))] = -1
    order = rng.permuted(np.tile(np.arange(4), (400, 1)), axis=1)
    written = np.take_along_axis(right, order[..., None], axis=1)
    written = np.where(rng.random((400, 1, 1)) < 0.6, right, written)
    noise = rng.random(written.shape) < 0.1
    written = np.where(noise, rng.integers(-1, 3, written.shape), written)
    written[np.arange(4) >= rng.integers(1, 9, (400, 1))] = -1  # ends early
    hidden = rng.random((400, 4, 1)) < 0.1
    kinds = scores_agree(right, np.where(hidden, -1, written), written)
    assert set(kinds) == set(range(-1, len(KINDS)))


def test_every_kind_occurs_in_arrays():
    right = np.array([[[0, 6, 2], [1, 5, 10], [2, 1, 10]]] * 8)
    written, other = right.copy(), np.full_like(right, -1)
    written[1, 1] = [1, 4, 11]
    written[2, 1] = [2, 5, 10]
    written[3, 1] = [1, 5, 9]
    written[4, :2] = [[1, 5, 4], [0, 6, 10]]
    written[5, 2], other[5, 2] = -1, right[5, 2]
    written[6, 2] = -1
    right[7, 2] = -1
    index, kind = first_errors(right, written, other)
    assert index.tolist() == [-1, 1, 1, 1, 0, 2, 2, 2]
    assert [KINDS[k] for k in kind[1:]] == list(Kind)
    assert kind[0] == -1


def test_widths_may_differ():
    right = np.array([[[0, 1, 2]]])
    none = np.full((1, 4, 3), -1)
    assert first_errors(right, none)[1] == KINDS.index(Kind.MISSING)
    assert first_errors(right, np.zeros((1, 0, 3), int))[1] == KINDS.index(Kind.MISSING)
    assert first_errors(none, right)[1] == KINDS.index(Kind.EXTRA)
    assert first_errors(none, none[:, :0])[0].tolist() == [-1]
    assert first_errors(none[:0], none[:0])[0].shape == (0,)


@pytest.mark.parametrize(
    "shapes",
    [
        [(2, 3, 3), (1, 3, 3)],
        [(2, 3, 2), (2, 3, 2)],
        [(2, 3), (2, 3)],
        [(2, 3, 3), (2, 3, 3), (2, 4, 3)],
        [(2, 3, 3), (2, 4, 3), (2, 3, 3)],
    ],
)
def test_other_shapes_are_refused(shapes):
    arrays = [np.zeros(shape, int) for shape in shapes]
    with pytest.raises(
        ValueError, match=r"Got steps of shapes .* expected \[N, S, 3\]"
    ):
        solutions.first_errors(*arrays)
