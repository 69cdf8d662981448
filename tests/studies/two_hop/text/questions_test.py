"""Candidates, keys and shapes of a group's questions."""

import pathlib

import pytest

from jaxlora.evaluate.schema import Split
from jaxlora.studies.two_hop.text import codec as codecs
from jaxlora.studies.two_hop.text import questions
from jaxlora.tasks.two_hop import people, phrases
from jaxlora.tasks.two_hop.cells import Cell

DATA = pathlib.Path(__file__).parents[3] / "data" / "tokenizer"


@pytest.fixture(scope="module")
def codec():
    return codecs.load(DATA / "plain", False)


@pytest.fixture(scope="module")
def groups():
    small = people.generate((Cell.F_OO,), 3, 1, seed=0)
    return (*small, *people.generate((Cell.H_OO,), 4, 1, seed=1))


@pytest.fixture(scope="module")
def asked(codec, groups):
    sizes = questions.shapes(codec, groups, 2)
    return questions.ask(codec, groups[:1], sizes, 2, {})


def test_candidates_are_answers_then_bridges(groups, asked):
    group = groups[0]
    assert asked.names[:3] == tuple(r.answer[0] for r in group.two_hop)
    assert asked.names[3:] == tuple(r.bridge for r in group.two_hop)
    # Filled up to the largest group, so that all groups share a program.
    assert len(asked.answers.tokens) == 8


def test_keys_say_who_is_right_and_what_errors_are(asked):
    two_hop = asked.keys[Split.TWO_HOP]
    assert two_hop.answer.tolist() == [0, 1, 2]
    assert two_hop.bridge.tolist() == [3, 4, 5]
    assert two_hop.counterfactual.tolist() == [1, 2, 0]
    assert two_hop.relation2_of_a.tolist() == [-1, -1, -1]
    assert asked.keys[Split.HOP1].answer.tolist() == [3, 4, 5]
    assert asked.keys[Split.HOP2].answer.tolist() == [0, 1, 2]


def test_the_second_relation_of_a_person_is_known_from_a_file(codec, groups):
    group = groups[0]
    ann, tail = group.two_hop[0].prompt[0], group.two_hop[2].answer[0]
    known = {(ann, "residence"): tail, (ann, "spouse"): "someone else"}
    sizes = questions.shapes(codec, groups, 1)
    found = questions.ask(codec, [group], sizes, 1, known)
    assert found.keys[Split.TWO_HOP].relation2_of_a.tolist() == [2, -1, -1]


def test_questions_are_asked_phrasing_by_phrasing(codec, groups, asked):
    prompts = asked.ranked[Split.HOP2]
    assert prompts.tokens.shape[0] == 2 * 3
    texts = [
        codec.text(row[mask])
        for row, mask in zip(prompts.tokens, prompts.mask, strict=True)
    ]
    wanted = [[phrases.held_out(r)[i] for r in groups[0].hop2] for i in range(2)]
    assert [text.strip() for text in texts] == wanted[0] + wanted[1]
    assert asked.first(Split.HOP2, 3).tokens.tolist() == prompts.tokens[:3].tolist()


def test_shapes_hold_every_question_of_every_group(codec, groups):
    sizes = questions.shapes(codec, groups, 0)
    for group in groups:
        # Padding refuses what is longer.
        questions.ask(codec, [group], sizes, 0, {})
    assert sizes.candidates == 8
    assert sizes.prompt % 8 == 0


def test_real_people_of_one_pair_share_candidates(codec):
    every = people.group(people.real(["located in/capital"]).people[0], Cell.R_OO, 0)
    knows = [i % 2 == 0 for i in range(every.size)]
    parts = people.sample(people.by_knowledge(every, knows, knows), 12, seed=0)
    first, second = (questions.library_of(parts, part) for part in parts)
    assert set(first) == set(second) == set(parts)
    assert first[0] is parts[0]
    assert second[0] is parts[1]
    names = [questions.names(library) for library in (first, second)]
    assert set(names[0]) == set(names[1])
    assert names[0] != names[1]  # those who are asked come first
    made = people.generate((Cell.F_OO, Cell.H_OO), 3, 1, seed=0)
    assert questions.library_of((*parts, *made), made[0]) == (made[0],)
