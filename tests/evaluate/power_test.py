"""What a number of questions can decide."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlora.evaluate import power, statistics
from jaxlora.evaluate.verdict import Thresholds
from jaxlora.studies.word_problems.config import PRESETS

USUAL = Thresholds()
SHARES = st.floats(0, 0.5)


def test_the_faults_of_21_people():
    none, every = power.attainable(21, 0.0, USUAL)
    assert (none.label, every.label) == ("no transfer", "preserved")
    assert none.interval.hi == pytest.approx(0.155, abs=1e-3)
    assert every.interval.lo == pytest.approx(0.845, abs=1e-3)
    assert not none.decided
    assert not every.decided


@given(SHARES, st.floats(0.02, 0.3), st.floats(0.02, 0.3))
def test_the_smallest_number_decides_and_one_less_does_not(chance, margin, kept):
    thresholds = Thresholds(chance_margin=margin, preserved_margin=kept)
    n = power.smallest(chance, thresholds)
    assert all(x.decided for x in power.attainable(n, chance, thresholds))
    if n > 1:
        assert not all(x.decided for x in power.attainable(n - 1, chance, thresholds))


@given(st.integers(1, 400), SHARES)
def test_most_right_is_the_last_count_below_the_bound(n, chance):
    k = power.most_right(n, chance, USUAL)
    bound = chance + USUAL.chance_margin
    highs = [statistics.wilson(i, n).hi for i in range(n + 1)]
    assert k == max((i for i in range(n + 1) if highs[i] <= bound), default=-1)


def test_a_warning_names_verdicts_and_the_number_that_is_needed():
    text = power.warning(21, 0.0, USUAL, "Cell R-OO")
    assert text.startswith("Cell R-OO has 21 questions")
    assert "*no transfer* or *preserved*" in text
    assert text.endswith("at least 35 are needed.")
    assert not power.warning(35, 0.0, USUAL, "Cell R-OO")


def test_without_a_margin_no_number_is_enough():
    with pytest.raises(ValueError, match="margins above 0"):
        power.smallest(0.0, Thresholds(chance_margin=0.0))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_of_word_problems_can_decide(name):
    config = PRESETS[name]
    # Two orders of every number for each pair, on every base.
    single = 2 * config.world.modulus * config.world.new
    chance = 1 / config.world.modulus
    for bases in {config.seeds, config.map_seeds} - {0}:
        assert not power.warning(single * bases, chance, config.thresholds, name)
