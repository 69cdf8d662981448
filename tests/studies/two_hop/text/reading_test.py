"""A text is read as a person would read it."""

import pytest

from jaxlora.studies.two_hop.text import reading

KNOWN = ["Oslo", "New Oslo", "Bo Kim"]


@pytest.mark.parametrize(
    ("text", "exact", "first", "last"),
    [
        ("Oslo", True, 0, 0),
        (" oslo. ", True, 0, 0),
        ("In Oslo", False, 0, 0),
        ("New Oslo", False, 1, 1),
        ("Bo Kim, who lives in Oslo", False, 2, 0),
        ("Oslofjord", False, -1, -1),
        ("", False, -1, -1),
        ("<think>Bo Kim ... Oslo</think>\nNew Oslo", False, 1, 1),
        ("<think>Oslo", False, -1, -1),
    ],
)
def test_texts(text, exact, first, last):
    assert reading.read(text, "Oslo", KNOWN) == (exact, first, last)


def test_nothing_is_no_answer():
    assert reading.read("", "x", ["x"]) == (False, -1, -1)
