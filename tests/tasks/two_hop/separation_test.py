"""The check holds for all generated people, and fails for every way to leak."""

import dataclasses

import pytest

from jaxlora.tasks.two_hop import people, phrases, separation, text_forms
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.experts import Expert


@pytest.fixture(scope="module")
def group():
    return people.generate((Cell.F_OO,), 5, 1, seed=0)[0]


@pytest.mark.parametrize("seed", range(3))
def test_generated_people_are_apart(seed):
    for made in people.generate(people.GENERATED, 6, 2, seed):
        separation.check(made)


def test_texts_of_an_expert_are_its_records_in_all_phrasings(group):
    found = text_forms.texts(group, Expert.JOINT)
    assert len(found) == 2 * 5 * 10
    assert len(text_forms.texts(group, Expert.HOP1, most=2)) == 10
    moved = text_forms.texts(group, Expert.COUNTER1)
    kept = text_forms.texts(group, Expert.HOP1)
    assert [t["prompt"] for t in moved] == [t["prompt"] for t in kept]
    assert not any(x == y for x, y in zip(moved, kept, strict=True))


def test_a_trained_held_out_question_is_found(group, monkeypatch):
    real = phrases.training

    def leaky(record, most=0):
        more = {"prompt": phrases.held_out(record)[0], "answer": "x"}
        return [*real(record, most), *([more] if record.role == "hop2" else [])]

    monkeypatch.setattr(phrases, "training", leaky)
    with pytest.raises(ValueError, match="'hop2' of F-OO is a held-out question"):
        separation.check(group)


def test_an_answer_told_with_its_person_is_found(group):
    told = group.two_hop[0]
    spoiled = dataclasses.replace(group.hop1[0], answer=told.answer)
    bad = dataclasses.replace(group, hop1=(spoiled, *group.hop1[1:]))
    with pytest.raises(ValueError, match=r"'hop1' of F-OO names .* together with"):
        separation.check(bad)


def test_a_two_hop_question_in_a_pair_is_found(group):
    bad = dataclasses.replace(group, hop2=group.two_hop)
    with pytest.raises(ValueError, match="'hop2' of F-OO is a two-hop question"):
        separation.check(bad)


def test_an_expert_that_is_not_trained_is_not_checked(group):
    bad = dataclasses.replace(group, hop2=group.two_hop)
    separation.check(bad, [Expert.HOP1, Expert.TARGET])


def test_names_are_whole_words_and_the_longest_wins():
    known = ["Bo", "Bo Lind", "Oslo"]
    assert separation.names("bo lind's OSLO, Bolind.", known) == [1, 2]
    assert separation.names("nobody", known) == []
    assert separation.names("a+b is here", ["a+b"]) == [0]
