"""What each expert is trained on: its rows are what its name says."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.tasks.two_hop import experts, facts, world
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.experts import Expert
from jaxlora.tasks.two_hop.facts import Fact, Facts
from jaxlora.tasks.two_hop.records import COPY

SMALL = world.WorldConfig(
    entities=24, relations=6, pairs=2, people=5, context_rows=8, trained=0.8
)
MADE = world.generate(SMALL, seed=3)
GROUPS = experts.groups(MADE)
each_group = pytest.mark.parametrize(
    "group", GROUPS, ids=[f"{g.cell}-{g.pair}" for g in GROUPS]
)


def chain(records) -> dict[tuple[str, ...], str]:
    return {record.prompt: record.answer[0] for record in records}


def two_hop_answers(group, hop1, hop2) -> list[str]:
    """What follows, for each person, from the facts of two experts."""
    first, second = chain(hop1), chain(hop2)
    return [second[first[a, r1], r2] for a, r1, r2 in (r.prompt for r in group.two_hop)]


def test_groups_are_ordered_by_cell_then_pair():
    expected = [(cell, pair) for cell in Cell for pair in range(SMALL.pairs)]
    assert [(group.cell, group.pair) for group in GROUPS] == expected
    assert {group.size for group in GROUPS} == {SMALL.people}


def test_groups_of_a_facts_file_keep_their_own_sizes():
    def couples(n, first, second):
        hop1 = [Fact(f"{first}{i}", first, f"{second}{i}") for i in range(n)]
        return [*hop1, *(Fact(f"{second}{i}", second, f"at {i}") for i in range(n))]

    given = Facts((*couples(3, "wife", "city"), *couples(7, "boss", "river")))
    made = world.generate(SMALL, 0, facts.people(given, SMALL))
    own = [g for g in experts.groups(made) if g.cell is Cell.F_OO]
    assert [(g.pair, g.size) for g in own] == [(0, 3), (1, 7)]
    assert [r.prompt[0] for r in own[1].two_hop] == [f"boss{i}" for i in range(7)]


@each_group
def test_person_i_is_entry_i_of_every_tuple(group):
    for hop1, hop2, query in zip(group.hop1, group.hop2, group.two_hop, strict=True):
        a, r1, r2 = query.prompt
        assert (hop1.prompt, hop1.answer) == ((a, r1), (query.bridge,))
        assert (hop2.prompt, hop2.answer) == ((query.bridge, r2), query.answer)
        assert (hop1.role, hop2.role, query.role) == ("hop1", "hop2", "two_hop")


@each_group
def test_plain_experts_hold_their_own_facts(group):
    assert experts.rows(group, Expert.HOP1) == group.hop1
    assert experts.rows(group, Expert.HOP2) == group.hop2
    assert experts.rows(group, Expert.TARGET) == group.two_hop
    assert experts.rows(group, Expert.JOINT) == group.hop1 + group.hop2


@each_group
def test_halves_share_nobody_and_leave_nobody_out(group):
    first = experts.rows(group, Expert.TARGET_FIRST)
    second = experts.rows(group, Expert.TARGET_SECOND)
    assert first + second == group.two_hop
    assert not {r.prompt for r in first} & {r.prompt for r in second}
    assert tuple(r in first for r in group.two_hop) == group.first_half


@each_group
@pytest.mark.parametrize("counter", [Expert.COUNTER1, Expert.COUNTER2])
def test_a_counterfactual_moves_the_answer_to_the_next_person(group, counter):
    rows = experts.rows(group, counter)
    true = group.hop1 if counter is Expert.COUNTER1 else group.hop2
    assert [r.prompt for r in rows] == [r.prompt for r in true]
    assert sorted(r.answer for r in rows) == sorted(r.answer for r in true)
    assert all(r.answer != t.answer for r, t in zip(rows, true, strict=True))
    hops = (rows, group.hop2) if counter is Expert.COUNTER1 else (group.hop1, rows)
    answers = [r.answer[0] for r in group.two_hop]
    assert two_hop_answers(group, *hops) == answers[1:] + answers[:1]


@settings(max_examples=20, deadline=None)
@given(n=st.integers(3, 6), seed=st.integers(0, 99))
def test_both_hops_deranged_never_give_back_the_answer(n, seed):
    made = world.generate(dataclasses.replace(SMALL, people=n), seed)
    for group in experts.groups(made):
        both = (experts.rows(group, e) for e in (Expert.COUNTER1, Expert.COUNTER2))
        answers = [r.answer[0] for r in group.two_hop]
        moved = two_hop_answers(group, *both)
        assert all(x != y for x, y in zip(moved, answers, strict=True))


def test_people_who_share_an_answer_share_the_new_one():
    first = GROUPS[0].hop1
    shared = (*first[:-1], dataclasses.replace(first[-1], answer=first[0].answer))
    moved = experts.deranged(shared)
    assert [r.prompt for r in moved] == [r.prompt for r in shared]
    assert moved[0].answer == moved[-1].answer == first[1].answer
    assert all(r.answer != t.answer for r, t in zip(moved, shared, strict=True))


def test_one_answer_for_all_cannot_be_deranged():
    same = [dataclasses.replace(r, answer=("e00",)) for r in GROUPS[0].hop1]
    with pytest.raises(ValueError, match="All 5 answers are 'e00'"):
        experts.deranged(same)


def test_two_people_are_too_few_for_that():
    made = world.generate(dataclasses.replace(SMALL, people=2), 0)
    group = experts.groups(made)[0]
    both = (experts.rows(group, e) for e in (Expert.COUNTER1, Expert.COUNTER2))
    assert two_hop_answers(group, *both) == [r.answer[0] for r in group.two_hop]


@each_group
def test_identity_rows_copy_the_bridges(group):
    rows = experts.rows(group, Expert.IDENTITY)
    assert rows[: group.size] == group.hop2
    copies = rows[group.size :]
    assert [r.prompt for r in copies] == [(q.bridge, COPY) for q in group.two_hop]
    assert [r.answer for r in copies] == [(q.bridge,) for q in group.two_hop]


@each_group
def test_a_document_holds_both_facts(group):
    rows = experts.rows(group, Expert.DOCUMENT)
    assert len(rows) == group.size
    for row, query in zip(rows, group.two_hop, strict=True):
        a, r1, r2 = query.prompt
        assert row.prompt + row.answer == (a, r1, query.bridge, r2, *query.answer)


@pytest.mark.parametrize("expert", Expert)
def test_every_expert_has_rows(expert):
    assert all(experts.rows(group, expert) for group in GROUPS)
