"""Probes are read whole, or refused in one sentence."""

import json

import pytest

from jaxlora.tasks.two_hop import probes

ANN = json.loads(probes.EXAMPLE)
EVE = {
    "question": "Where does Eve's wife live?",
    "answer": "Oslo",
    "bridge": "Flo",
    "first": "Who is Eve's wife?",
    "second": "Where does Flo live?",
}


@pytest.fixture
def write(tmp_path):
    def make(*records):
        path = tmp_path / "probes.jsonl"
        path.write_text("\n".join(map(json.dumps, records)))
        return path

    return make


def test_fields_are_read_and_stripped(write):
    first, second = probes.read(write({**ANN, "answer": " Rome "}, EVE))
    assert (first.answer, first.bridge, first.first) == ("Rome", "Bo", ANN["first"])
    assert second.where.endswith("probes.jsonl:2")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"question": ANN["question"]}, r"answered by 'Oslo', but by 'Rome' in .*:1"),
        ({"first": ANN["first"]}, "answered by 'Flo', but by 'Bo'"),
        ({"second": ANN["second"]}, "answered by 'Oslo', but by 'Rome'"),
        ({"second": ANN["first"]}, "answered by 'Oslo', but by 'Bo'"),
        ({"answer": "Flo"}, "bridge and answer are both 'Flo'"),
        ({"answer": "Rome"}, "have the answer 'Rome' alone"),
        ({"bridge": "Bo"}, "have the bridge 'Bo' alone"),
        ({"bridge": ""}, "'bridge' is empty"),
        ({"first": 3}, "'first' is 3, expected a string"),
    ],
)
def test_what_contradicts_or_shows_nothing_is_refused(write, change, words):
    with pytest.raises(ValueError, match=words):
        probes.read(write(ANN, {**EVE, **change}))


@pytest.mark.parametrize("field", probes.FIELDS)
def test_a_missing_field_is_refused(write, field):
    broken = {name: value for name, value in EVE.items() if name != field}
    with pytest.raises(ValueError, match=rf":2: no field '{field}'"):
        probes.read(write(ANN, broken))


def test_people_may_share_a_fact(write):
    """Two wives in one city: the same answer to different questions."""
    third = {**EVE, "question": "q", "bridge": "Jo", "first": "f", "second": "s"}
    assert len(probes.read(write(ANN, EVE, third))) == 3
