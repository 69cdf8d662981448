"""The verdict follows the predictor, and advice is what raises it."""

import dataclasses

import numpy as np
import pytest

from jaxlora.diagnose import NAMES, Features, matrix, outlook
from jaxlora.diagnose.predictor import Coefficients, probability

K = len(NAMES)
FEATURES = Features(**dict.fromkeys(NAMES, 0.0))


def coefficients(**weights):
    """A predictor with some weights, fitted on features from 0 to 1."""
    given = tuple(weights.get(name, 0.0) for name in NAMES)
    return Coefficients(-1.0, given, *((x,) * K for x in (0.0, 1.0, 0.0, 1.0)))


def test_the_best_advice_comes_first():
    fitted = coefficients(second_selectivity=3.0, first_selectivity=1.0)
    seen = outlook.outlook(fitted, FEATURES, "written")
    assert seen.probability == pytest.approx(1 / (1 + np.e))
    assert [x.advice.split(" expert")[0] for x in seen.changes] == [
        "train the second",
        "train the first",
    ]
    better = dataclasses.replace(FEATURES, second_selectivity=1.0)
    wanted = probability(fitted, matrix([better]))[0]
    assert seen.changes[0].probability == pytest.approx(wanted)


def test_what_would_not_help_is_not_advised():
    fitted = coefficients(second_selectivity=-3.0)
    assert outlook.outlook(fitted, FEATURES, "direct").changes == ()


def test_what_was_never_fitted_is_named():
    odd = dataclasses.replace(FEATURES, first_effect=9.0)
    seen = outlook.outlook(coefficients(first_effect=1.0), odd, "direct")
    assert seen.beyond == ("first_effect",)
    inside = dataclasses.replace(FEATURES, first_effect=1.0)
    same = outlook.outlook(coefficients(first_effect=1.0), inside, "direct")
    assert seen.probability == same.probability
    assert same.beyond == ()
