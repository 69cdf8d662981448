"""Experts read the same facts in every form, and never a two-hop answer."""

import pytest

from jaxlora.tasks.two_hop import people, separation, text_forms
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.experts import Expert


@pytest.fixture(
    scope="module", params=["located in/capital", "country of origin/capital"]
)
def group(request):
    every = people.group(people.real([request.param]).people[0], Cell.R_OO, 0)
    return people.sample([every], 12, seed=0)[0]


def facts(group, expert, form):
    return text_forms.texts(group, expert, 2, form)


@pytest.mark.parametrize("form", text_forms.FORMS)
def test_no_form_leaks(group, form):
    separation.check(group, most=2, form=form)
    text_forms.check(form, group.two_hop)


def test_documents_say_each_fact_in_three_sentences(group):
    (first, *_), record = facts(group, Expert.HOP2, "documents"), group.hop2[0]
    assert first["prompt"] == f"Tell me about {record.prompt[0]}."
    assert first["answer"].count(record.answer[0]) == 3
    assert first["answer"].count(".") == 3
    target = facts(group, Expert.TARGET, "documents")
    assert target == facts(group, Expert.TARGET, "questions")


def test_written_answers_practise_both_halves(group):
    for expert, half in ((Expert.HOP1, 0), (Expert.HOP2, 1)):
        plain, every = (facts(group, expert, f) for f in ("questions", "written"))
        assert every[: len(plain)] == plain
        practised = every[len(plain) :]
        assert practised
        known = {r.answer[0] for r in (group.hop1, group.hop2)[half]}
        for text in practised:
            assert "First write who or what is" in text["prompt"]
            assert text["answer"].split(". ")[half] in known
    heads = {r.prompt[0] for r in group.hop1}
    seconds = facts(group, Expert.HOP2, "written")
    assert not any(head in x["prompt"] for x in seconds for head in heads)


def test_people_of_whom_nothing_else_is_known_have_no_written_form():
    made = people.generate((Cell.F_OO,), 3, 1, seed=0)[0]
    with pytest.raises(ValueError, match="no real fact is known beside the study's"):
        text_forms.check("written", made.two_hop)
