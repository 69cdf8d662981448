"""Draws under conditions: all hold, and none is likelier than it should be."""

import itertools
from collections import Counter

import numpy as np
import pytest

from jaxlora.tasks.gsm import values

LISTS = ["$x = range(1, 7)", "$y = range(2, 9, 2)", "$z = range(0, 12)"]


def _draws(parsed, count, names):
    rng, order = np.random.default_rng(0), values.plan(parsed)
    draws = [values.draw(parsed, rng, order) for _ in range(count)]
    return [tuple(values.number_of(x[name]) for name in names) for x in draws]


@pytest.mark.parametrize(
    "rules",
    [
        ["x + y == z"],  # z is computed
        ["z == x + y", "divides(z, 3)"],
        ["x + y + z == 12"],  # nothing stands alone
        ["y == x", "x < z"],
        ["x == y", "y == z"],  # one of a chain is computed
        ["x < y", "z == 3"],
        ["is_int(z / y)", "12 / z > 1"],  # z = 0 fulfils nothing
    ],
)
def test_draws_are_those_of_trying_all_values_anew(parse, rules):
    """Against a list of all values that fulfil the conditions, equally likely."""
    parsed = parse([*LISTS, "$n = range(3)"], rules=rules)
    cube = itertools.product(range(1, 7), range(2, 9, 2), range(12))
    holding = [
        cell
        for cell in cube
        if all(
            values.holds(x, dict(zip("xyz", cell, strict=True)))
            for x in parsed.conditions
        )
    ]
    count = 60 * len(holding)
    seen = Counter(_draws(parsed, count, "xyz"))
    assert set(seen) == set(holding)
    expected = count / len(holding)
    chi = sum((seen[x] - expected) ** 2 / expected for x in holding)
    # Mean of a chi-square plus four standard deviations.
    assert chi < (len(holding) - 1) + 4 * np.sqrt(2 * len(holding))


def test_values_that_no_condition_links_are_apart(parse):
    parsed = parse([*LISTS, "$n = range(3)"], rules=["x < z", "n > 0"])
    groups = {tuple(sorted(s.binding.names[0] for s in g)) for g in values.plan(parsed)}
    assert groups == {("x", "z"), ("y",), ("n",)}
    stages = [s for group in values.plan(parsed) for s in group]
    assert sum(len(s.conditions) for s in stages) == 2


def test_an_equation_of_a_list_with_doubles_is_not_solved(parse):
    parsed = parse(["$n = [1, 1, 2]", "$m = range(1, 3)"], rules=["n == m"])
    seen = Counter(_draws(parsed, 3000, "n"))
    assert all(
        s.equation is None or s.binding.names == ("m",) for s in values.plan(parsed)[0]
    )
    assert 0.6 < seen[(1,)] / 3000 < 0.73


def test_several_of_a_list_are_different_and_days_follow_each_other(parse):
    init = ["a, b, c = sample(names_male, 3)", "d, e = sample_sequential(weekdays, 2)"]
    parsed = parse([*init, "$n = range(3)"])
    for a, b, c, d, e in _draws(parsed, 100, "abcde"):
        assert len({a, b, c}) == 3
        assert (d, e) in itertools.pairwise(
            [
                "Monday",
                "Tuesday",
                "Wednesday",
                "Thursday",
                "Friday",
                "Saturday",
                "Sunday",
            ]
        )


def test_the_same_seed_gives_the_same_draws(parse):
    parsed = parse([*LISTS, "$n = range(3)"], rules=["x + y == z"])
    assert _draws(parsed, 20, "xyzn") == _draws(parsed, 20, "xyzn")


def test_conditions_that_contradict_each_other_are_named(parse):
    parsed = parse(["$n = range(2, 9)", "$m = range(9)"], rules=["n > m", "m > n"])
    rng = np.random.default_rng(0)
    with pytest.raises(
        ValueError, match=r"cups\.json: 50 draws of [mn], [mn] fulfil no"
    ):
        values.draw(parsed, rng, tries=50)
