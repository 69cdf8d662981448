"""What a number of questions can decide."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.evaluate import power, statistics
from jaxlora.evaluate.verdict import Thresholds
from jaxlora.studies.boundary.config import PRESETS as BOUNDARY
from jaxlora.studies.two_hop.symbols import deciding
from jaxlora.studies.two_hop.symbols.config import PRESETS as TWO_HOP
from jaxlora.studies.two_hop.symbols.config import TwoHopConfig
from jaxlora.studies.word_problems.config import PRESETS

USUAL = Thresholds()
SHARES = st.floats(0, 0.5)


def test_the_faults_of_21_people():
    none, even, every, above = power.attainable(21, 0.0, USUAL)
    assert (none.label, every.label) == ("no transfer", "preserved")
    assert not even.decided
    assert above.decided
    assert none.interval.hi == pytest.approx(0.155, abs=1e-3)
    assert every.interval.lo == pytest.approx(0.845, abs=1e-3)
    assert not none.decided
    assert not every.decided


@settings(deadline=None)
@given(SHARES, st.floats(0.02, 0.3), st.floats(0.02, 0.3))
def test_the_smallest_number_decides_and_one_less_does_not(chance, margin, kept):
    thresholds = Thresholds(chance_margin=margin, preserved_margin=kept)
    n = power.smallest(chance, thresholds)
    assert all(x.decided for x in power.attainable(n, chance, thresholds))
    if n > 1:
        assert not all(x.decided for x in power.attainable(n - 1, chance, thresholds))


@settings(deadline=None)
@given(st.integers(1, 120), st.integers(1, 80), SHARES)
def test_best_outcomes_have_the_intervals_that_verdicts_would_give_them(n, tries, c):
    """Whatever seeds and libraries there are: all items agree."""
    none, even, every, above = power.attainable(n, c, USUAL, tries)
    rng, libraries = np.random.default_rng(1), [np.arange(n) % 3]
    zeros, ones = np.zeros(n), np.ones(n)
    assert none.interval == statistics.bootstrap([zeros], rng, libraries=libraries)
    assert every.interval == statistics.bootstrap([ones], rng, libraries=libraries)
    alike = statistics.paired([ones], [ones], rng, libraries=libraries)
    assert even.interval == alike.difference
    pair = statistics.paired([ones], [zeros], rng, libraries=libraries)
    assert above.interval == pair.difference
    adjusted = statistics.holm([pair.p] * tries)[0]
    assert above.decided == (pair.difference.lo > 0 and bool(adjusted < USUAL.alpha))


def test_more_methods_need_more_questions():
    narrow = Thresholds(chance_margin=0.9, preserved_margin=0.9)
    assert power.smallest(0.0, narrow) < power.smallest(0.0, narrow, 70)


@settings(deadline=None)
@given(st.floats(0.02, 1), st.floats(0.02, 0.3))
def test_numbers_to_beat_a_control_agree_before_and_after(unlike, by):
    """An interval as wide as of independent people leads to about Connor's number."""
    unlike = max(unlike, 2 * by)
    before = power.to_beat_before(unlike, by, 0.95)
    half = 1.959964 * np.sqrt((unlike - by**2) / 100)
    after = power.to_beat(statistics.Interval(by, by - half, by + half, 100), by, 0.95)
    assert after <= before <= 1.2 * after + 1


@settings(deadline=None)
@given(st.integers(30, 300), st.floats(0.05, 0.4))
def test_twice_the_spread_needs_four_times_the_people(n, half):
    seen = [statistics.Interval(0.0, -x, x, n) for x in (half, 2 * half)]
    narrow, wide = (power.to_beat(x, 0.1, 0.95) for x in seen)
    assert abs(wide - 4 * narrow) <= 4


@settings(deadline=None)
@given(st.integers(1, 400), SHARES)
def test_most_right_is_the_last_count_below_the_bound(n, chance):
    k = power.most_right(n, chance, USUAL)
    bound = chance + USUAL.chance_margin
    highs = [statistics.wilson(i, n).hi for i in range(n + 1)]
    assert k == max((i for i in range(n + 1) if highs[i] <= bound), default=-1)


def test_a_warning_names_verdicts_and_the_number_that_is_needed():
    text = power.warning(21, 0.0, USUAL, "Cell R-OO")
    assert text.startswith("Cell R-OO has 21 questions")
    assert "*no transfer* or *no gain* or *preserved*" in text
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


@pytest.mark.parametrize("name", TWO_HOP)
def test_presets_of_two_hop_can_decide_in_every_cell(name):
    assert not deciding.warnings(TWO_HOP[name])


def test_the_quick_preset_has_the_people_that_it_promises():
    assert min(deciding.sizes(TWO_HOP["quick"]).values()) >= 63
    (sentence,) = deciding.warnings(TwoHopConfig())
    assert sentence.endswith("at least 35 are needed.")


@pytest.mark.parametrize("name", BOUNDARY)
def test_presets_of_the_boundary_can_decide(name):
    """Every cell of the headline and of the map; of axes, all new facts together."""
    config = BOUNDARY[name]
    size, of_map = (w.pairs * w.people for w in (config.world, config.map_world))
    asked = [size * config.seeds, of_map * config.map_seeds]
    asked += [3 * of_map * config.axis_seeds] if config.map_seeds else []
    for n in filter(None, asked):
        assert not power.warning(n, 0.0, config.thresholds, name, len(config.methods))
