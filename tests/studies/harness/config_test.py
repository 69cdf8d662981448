"""Configurations from files: old names, and values that do not fit."""

import dataclasses

import pytest

from jaxlora.studies.harness.config import from_plain, plain


@dataclasses.dataclass(frozen=True)
class Inner:
    """Its field was once called level."""

    RENAMED = {"level": "confidence"}  # noqa: RUF012

    confidence: float = 0.95


@dataclasses.dataclass(frozen=True)
class Outer:
    methods: tuple[str, ...] = ()
    always: Inner = Inner()
    perhaps: Inner | None = None


@pytest.mark.parametrize("name", ["always", "perhaps"])
def test_a_group_is_read_under_the_names_of_today_and_of_before(name):
    wanted = dataclasses.replace(Outer(), **{name: Inner(0.5)})
    assert from_plain(Outer, plain(wanted)) == wanted
    assert from_plain(Outer, {name: {"level": 0.5}}) == wanted


def test_no_group_is_read_too():
    assert from_plain(Outer, {"perhaps": None}) == Outer()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"methods": {"mean": 1}}, r"methods is \{'mean': 1\}, expected a list"),
        ({"always": 3}, "always is 3, expected a group of fields"),
        (
            {"always": {"confidence": 10**400}},
            r"confidence is 10+\.\.\.0+, expected a number below",
        ),
        ({"always": {"confidence": {}}}, r"always\.confidence is \{\}, expected float"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=message):
        from_plain(Outer, values)
