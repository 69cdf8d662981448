"""Our lists of real facts: single answers, no duplicates, phrasings of their own."""

from collections import Counter

import pytest

from jaxlora.tasks.facts import forms, world
from jaxlora.tasks.two_hop import facts, phrases
from jaxlora.tasks.two_hop.records import Record


def test_there_are_hundreds_of_facts_of_seven_relations():
    counts = Counter(fact.relation for fact in world.facts())
    assert set(counts) == set(world.RELATIONS) == set(forms.FORMS)
    assert min(counts.values()) >= 40


def test_each_question_has_one_answer():
    asked = Counter((fact.head, fact.relation) for fact in world.facts())
    assert set(asked.values()) == {1}


def test_names_have_no_stray_blanks():
    names = [name for fact in world.facts() for name in (fact.head, fact.tail)]
    assert all(name == " ".join(name.split()) for name in names)


def test_every_country_of_a_city_or_an_author_is_in_the_table():
    heads = {fact.head for fact in world.facts("capital")}
    for relation in ("located in", "country of origin"):
        assert {fact.tail for fact in world.facts(relation)} <= heads
    authors = {fact.head for fact in world.facts("country of origin")}
    assert {fact.tail for fact in world.facts("author")} <= authors


def test_they_make_chains_that_the_reader_of_facts_takes(tmp_path):
    path = tmp_path / "facts.jsonl"
    path.write_text(world.lines(world.facts()), encoding="utf-8")
    read = facts.read(path, allow_ties=True)
    assert read.facts == world.facts()
    pairs = facts.chains(read)
    assert len(pairs) == 9
    assert min(map(len, pairs.values())) >= 40
    # A capital is of one country, an author's books are several.
    assert "capital" not in read.tied
    assert "currency" in read.tied


def test_tested_phrasings_are_never_trained():
    for relation in world.RELATIONS:
        (head, _, tail), *_ = world.facts(relation)
        record = Record(kind="one_hop", prompt=(head, relation), answer=(tail,))
        trained = {text["prompt"] for text in phrases.training(record)}
        assert not trained & set(phrases.held_out(record))
        assert all(head in text for text in trained)


def test_an_unknown_relation_is_named():
    with pytest.raises(ValueError, match="'colour'; there are capital"):
        world.facts("colour")
