"""Templates in common, by words, by order, and by share of rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.tasks.word_problems import templates
from jaxlora.tasks.word_problems.templates import R, S


def test_every_template_has_a_name_and_digits_come_first():
    assert len({t.name for t in templates.ALL}) == len(templates.ALL) == 16
    assert {S, R, templates.R_IN_DIGITS} <= set(templates.ALL)
    assert [t.numbers for t in templates.ALL] == [0] * 8 + [1] * 8
    for template in templates.ALL:
        assert sorted(template.positions) == [0, 1, 2]


@pytest.mark.parametrize("template", templates.ALL)
@pytest.mark.parametrize("same_words", [False, True])
@pytest.mark.parametrize("same_order", [False, True])
def test_words_and_order_are_shared_apart(template, same_words, same_order):
    other = templates.apart(template, same_words, same_order)
    assert (other.words == template.words) == same_words
    assert (other.numbers == template.numbers) == same_words
    assert (other.order == template.order) == same_order
    assert other.place == template.place


@settings(deadline=None)
@given(st.integers(0, 60), st.floats(0, 1), st.floats(0, 1))
def test_shares_are_exact_and_nested(n, x, y):
    low, high = (
        templates.shared(np.random.default_rng(0), n, 3, 5, share) == 3
        for share in sorted((x, y))
    )
    assert high.sum() == round(max(x, y) * n)
    assert (high | ~low).all()


@settings(deadline=None)
@given(st.sampled_from(templates.ALL), st.booleans(), st.booleans())
def test_what_is_apart_twice_is_the_same_again(template, same_words, same_order):
    there = templates.apart(template, same_words, same_order)
    assert templates.apart(there, same_words, same_order) == template


@pytest.mark.parametrize(
    "wrong", [{"words": 2}, {"numbers": 2}, {"order": "infix"}, {"place": "nowhere"}]
)
def test_unknown_templates(wrong):
    with pytest.raises(ValueError, match=r"Unknown template .* words and numbers 0 or"):
        templates.Template(**wrong)


def test_bad_shares():
    with pytest.raises(ValueError, match=r"share of 1.5 common rows"):
        templates.shared(np.random.default_rng(0), 4, 0, 1, 1.5)
