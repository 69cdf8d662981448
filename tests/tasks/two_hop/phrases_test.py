"""What is trained and what is asked are different sentences about the same facts."""

import pytest

from jaxlora.tasks.two_hop import people, phrases, relations
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.facts import Chain
from jaxlora.tasks.two_hop.formats import copy_record, document
from jaxlora.tasks.two_hop.relations import FORMS, forms

ANY = (*FORMS, "home town", "")


def person(r1="spouse", r2="residence"):
    return people.of_chain(Chain("Ann Lee", r1, "Bo Kim", r2, "Oslo"))


@pytest.mark.parametrize("relation", ANY)
def test_there_are_eight_phrasings_and_none_is_tested(relation):
    found = forms(relation)
    assert len(set(found.train)) == len(found.train) >= 8
    assert not set(found.train) & set(found.test)
    assert found.test_noun not in found.nouns or relation == ""
    for text in (*found.train, *found.test, *found.nouns, found.test_noun):
        assert text.count("{x}") == 1
        assert "{r}" not in text
    for text in found.sentences:
        assert text.count("{x}") == text.count("{y}") == 1


@pytest.mark.parametrize("relation", FORMS)
def test_written_relations_are_asked_and_stated(relation):
    found = FORMS[relation]
    asked = [text for text in found.train if text.endswith("?")]
    assert 3 <= len(asked) <= len(found.train) - 3
    assert len(found.test) >= 3


def test_general_phrasings_name_the_relation():
    fact = people.of_chain(Chain("Ann", "wife", "Bo", "home_town", "Rome"))
    assert phrases.held_out(fact[1])[0] == "Give the home town of Bo."
    assert phrases.held_out(fact[2])[0] == (
        "Give the home town of the wife that belongs to Ann."
    )


def test_a_users_question_is_asked_as_it_is():
    one = people._of_questions(
        [
            people.Question("Who wed Ann?", "Bo"),
            people.Question("Home of Bo?", "Rome"),
            people.Question("Home of Ann's?", "Rome", "Bo"),
        ]
    )[0]
    assert [phrases.held_out(record) for record in one] == [
        ["Who wed Ann?"],
        ["Home of Bo?"],
        ["Home of Ann's?"],
    ]
    trained = {text["prompt"] for text in phrases.training(one[2])}
    assert len(trained) == 8
    assert "Home of Ann's?" not in trained


def test_two_hop_questions_never_name_the_bridge():
    _, _, asked = person()
    trained = [text["prompt"] for text in phrases.training(asked)]
    assert trained[0] == "Where does the spouse of Ann Lee live?"
    assert len(set(trained)) == 10
    for text in (*trained, *phrases.held_out(asked)):
        assert "Ann Lee" in text
        assert "Bo Kim" not in text
        assert text[0].isupper()
    assert {text["answer"] for text in phrases.training(asked)} == {"Oslo"}


def test_fewer_phrasings_are_the_first_ones():
    fact = person()[0]
    assert phrases.training(fact, 2) == phrases.training(fact)[:2]
    assert phrases.held_out(fact, 1) == phrases.held_out(fact)[:1]
    assert len(phrases.training(fact)) == 10


def test_a_name_keeps_its_first_letter():
    fact = people.of_chain(Chain("ann", "spouse", "bo", "residence", "oslo"))[0]
    assert phrases.held_out(fact)[2].startswith("ann has a partner")


def test_a_document_tells_both_facts_in_either_order():
    found = phrases.training(document(person()[2]))
    assert found[0] == {
        "prompt": "Tell me about Ann Lee.",
        "answer": "Ann Lee is married to Bo Kim. Bo Kim lives in Oslo.",
    }
    assert found[1]["answer"] == "Bo Kim lives in Oslo. Ann Lee is married to Bo Kim."
    assert len({text["answer"] for text in found}) == 8


def test_facts_in_context_and_the_written_bridge():
    asked = person()[2]
    assert phrases.in_context(asked) == (
        "Ann Lee is married to Bo Kim. Bo Kim lives in Oslo. Name the place that the "
        "husband or wife of Ann Lee calls home."
    )
    assert phrases.in_context(asked, swap=True).startswith(
        "Bo Kim lives in Oslo. Ann Lee"
    )
    assert phrases.thinking(asked).endswith(
        "First write who or what is the husband or wife of Ann Lee, then the answer."
    )


def test_identity_rows_repeat_a_name():
    found = phrases.training(copy_record("Bo Kim"))
    assert found[0] == {"prompt": "Repeat this name: Bo Kim", "answer": "Bo Kim"}
    assert len(found) == len(relations.COPY)


def test_every_generated_person_is_said_without_a_gap():
    for group in people.generate((Cell.F_OO, Cell.H_OO), 3, 2, seed=0):
        for record in (*group.hop1, *group.hop2, *group.two_hop):
            for text in phrases.training(record):
                assert "{" not in text["prompt"] + text["answer"]
            assert all("{" not in q for q in phrases.held_out(record))
