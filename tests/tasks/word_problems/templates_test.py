"""Templates in common, by words, by order, and by share of rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlora.tasks.word_problems import templates
from jaxlora.tasks.word_problems.templates import R, S


def test_there_are_eight_templates_with_names_of_their_own():
    assert len({t.name for t in templates.ALL}) == len(templates.ALL) == 8
    assert {S, R} <= set(templates.ALL)
    for template in templates.ALL:
        assert sorted(template.positions) == [0, 1, 2]


@pytest.mark.parametrize("template", templates.ALL)
@pytest.mark.parametrize("same_words", [False, True])
@pytest.mark.parametrize("same_order", [False, True])
def test_words_and_order_are_shared_apart(template, same_words, same_order):
    other = templates.apart(template, same_words, same_order)
    assert (other.words == template.words) == same_words
    assert (other.order == template.order) == same_order
    assert other.place == template.place


@given(st.integers(0, 60), st.floats(0, 1), st.floats(0, 1))
def test_shares_are_exact_and_nested(n, x, y):
    low, high = (
        templates.shared(np.random.default_rng(0), n, 3, 5, share) == 3
        for share in sorted((x, y))
    )
    assert high.sum() == round(max(x, y) * n)
    assert (high | ~low).all()


def test_bad_shares():
    with pytest.raises(ValueError, match=r"share of 1.5 common rows"):
        templates.shared(np.random.default_rng(0), 4, 0, 1, 1.5)
