"""What is read to score candidates: every token is scored, and none is read twice."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxlora.studies.two_hop.text import paths

ANSWERS = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=12
)


def scored(answers, some):
    """{(candidate, i): (prefix, token)} that the arrays of one length say."""
    out = {}
    for n, c in enumerate(some.candidate):
        path, depth, choice = (int(x[n]) for x in some.place)
        prefix = tuple(some.tokens[path, : depth + 1].tolist())
        out[int(c), depth + 1] = prefix, int(some.targets[path, depth, choice])
    return out


@given(ANSWERS)
def test_every_token_but_the_first_is_scored_after_its_prefix(answers):
    out = {}
    for some in paths.plan(answers).values():
        out |= scored(answers, some)
    expected = {
        (c, i): (tuple(answer[:i]), answer[i])
        for c, answer in enumerate(answers)
        for i in range(1, len(answer))
    }
    assert out == expected


@given(ANSWERS)
def test_no_path_is_the_beginning_of_another(answers):
    rows = [
        tuple(row) for x in paths.plan(answers).values() for row in x.tokens.tolist()
    ]
    assert len(set(rows)) == len(rows)
    for row in rows:
        others = [other for other in rows if other != row]
        assert not any(other[: len(row)] == row for other in others)


def test_single_tokens_need_nothing_beyond_the_prompt():
    assert paths.plan([[1], [2], [1]]) == {}


def test_the_number_of_paths_is_rounded_up_by_copies():
    (some,) = paths.plan([[1, 2], [3, 4], [5, 6]], multiple=4).values()
    assert some.tokens.tolist() == [[1], [3], [5], [5]]
    assert np.max(some.place[0]) == 2
