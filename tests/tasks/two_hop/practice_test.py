"""Rows that practise a fact's role: how many, of whom, and what they must not tell."""

import collections
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.tasks.two_hop import experts, practice, records, world
from jaxlora.tasks.two_hop.experts import Expert
from jaxlora.tasks.two_hop.practice import Practice, Practices
from jaxlora.tasks.two_hop.records import THINK

SMALL = world.WorldConfig(entities=24, relations=10, pairs=2, people=5, context_rows=8)
MADE = world.generate(SMALL, seed=3)
GROUPS = experts.groups(MADE)
VOCAB = MADE.vocab
FORMS = ("bridge", "document", "mixture")
each_group = pytest.mark.parametrize(
    "group", GROUPS, ids=[f"{g.cell}-{g.pair}" for g in GROUPS]
)
each_form = pytest.mark.parametrize("form", FORMS)


def practised(group, expert, rho=0.5, form="bridge", rows=5):
    """Rows of an expert where both hops are practised alike."""
    how = Practice(rho=rho, form=form, rows=rows)
    return practice.rows(group, expert, VOCAB, Practices(how, how))


def head(row) -> str:
    """The head of the fact that a row of a B->C expert is about."""
    if row.kind == "misled":
        return row.prompt[4]
    return row.prompt[-2]


def subject(row) -> str:
    """The head of the fact that a row of an A->B expert is about."""
    return row.prompt[0]


@settings(max_examples=40, deadline=None)
@given(
    rho=st.floats(0.01, 1),
    rows=st.integers(1, 7),
    form=st.sampled_from(FORMS),
    number=st.integers(0, len(GROUPS) - 1),
    expert=st.sampled_from([Expert.HOP1, Expert.HOP2, Expert.COUNTER2]),
)
def test_the_share_is_exact_and_everybody_is_practised_alike(
    rho, rows, form, number, expert
):
    group = GROUPS[number]
    found = practised(group, expert, rho, form, rows)
    total = rows * group.size
    kinds = collections.Counter(row.kind for row in found)
    assert len(found) == total
    assert total - kinds["one_hop"] == round(rho * total)
    of = subject if expert is Expert.HOP1 else head
    for direct in (True, False):
        mine = [of(row) for row in found if (row.kind == "one_hop") == direct]
        each = collections.Counter(mine)
        counts = [each[r.prompt[0]] for r in experts.rows(group, expert)]
        assert sum(counts) == len(mine)
        assert max(counts) - min(counts) <= 1
    totals = collections.Counter(map(of, found))
    assert max(totals.values()) - min(totals.values()) <= 1


@pytest.mark.parametrize(
    ("form", "first", "second"),
    [
        ("bridge", {"written"}, {"misled"}),
        ("document", {"document"}, {"document"}),
        ("mixture", {"written", "document"}, {"misled", "document"}),
    ],
)
def test_kinds_are_those_of_the_form(form, first, second):
    for expert, kinds in ((Expert.HOP1, first), (Expert.HOP2, second)):
        found = practised(GROUPS[0], expert, 1.0, form, 4)
        assert {row.kind for row in found} == kinds
    formats = Practice(rho=0.5, form=form).formats
    trained = {"written": "written", "misled": "misled", "document": "document"}
    assert {trained[kind] for kind in first | second} <= set(formats)
    assert Practice(form=form).formats == ()


@each_group
@each_form
def test_no_row_of_a_person_names_both_ends(group, form):
    ends = {r.bridge: (r.prompt[0], r.answer[0]) for r in group.two_hop}
    subjects = {r.prompt[0]: (r.prompt[0], r.answer[0]) for r in group.two_hop}
    for expert, of, mine in (
        (Expert.HOP1, subject, subjects),
        (Expert.HOP2, head, ends),
    ):
        for row in practised(group, expert, 0.7, form):
            assert not set(mine[of(row)]) <= {*row.prompt, *row.answer}


@each_group
@each_form
def test_rows_state_the_facts_of_the_expert_and_no_other(group, form):
    for expert, of in ((Expert.HOP1, subject), (Expert.HOP2, head)):
        facts = {r.prompt[0]: r.answer for r in experts.rows(group, expert)}
        for row in practised(group, expert, 0.7, form):
            assert row.answer == facts[of(row)]


@each_group
@each_form
def test_who_leads_to_a_bridge_is_familiar_and_not_of_the_group(group, form):
    people = {record.prompt[0] for record in group.two_hop}
    familiar = set(VOCAB.entities[: VOCAB.familiar])
    _, first, second = group.two_hop[0].prompt
    for row in practised(group, Expert.HOP2, 1.0, form):
        x, relation = row.prompt[:2]
        assert x in familiar - people - {head(row), *row.answer}
        assert relation in VOCAB.relations
        assert relation != first
        if row.kind == "misled":
            assert row.prompt == (x, relation, second, THINK, head(row))
        else:
            assert row.prompt == (x, relation, head(row), second)


@each_group
def test_a_bridge_is_written_under_another_second_relation(group):
    _, first, second = group.two_hop[0].prompt
    for row in practised(group, Expert.HOP1, 1.0):
        assert row.prompt == (row.prompt[0], first, row.prompt[2], THINK)
        assert row.prompt[2] in set(VOCAB.relations) - {second}


@pytest.mark.parametrize("length_form", ["next-token", "pad"])
@each_form
@pytest.mark.parametrize("expert", [Expert.HOP1, Expert.HOP2, Expert.JOINT])
def test_the_loss_is_on_the_answer_alone_where_it_is_read(length_form, form, expert):
    vocab = dataclasses.replace(VOCAB, form=length_form)
    for group in GROUPS[::3]:
        found = practised(group, expert, 0.6, form)
        encoded = records.encode(found, vocab, 5)
        assert (encoded.weights.sum(-1) == 1).all()
        for i, row in enumerate(found):
            where = records.answer_position(row, length_form)
            assert encoded.weights[i, where] == 1
            assert vocab.words[encoded.targets[i, where]] == row.answer[0]
            if row.kind != "one_hop":
                assert vocab.words[encoded.tokens[i, where]] == row.prompt[-1]


@pytest.mark.parametrize("expert", Expert)
def test_without_practice_rows_are_the_experts_own(expert):
    for group in GROUPS:
        plain = experts.rows(group, expert)
        assert practice.rows(group, expert, VOCAB) == plain
        many = Practices(Practice(rows=3), Practice(rows=4))
        assert practice.rows(group, expert, VOCAB, many) == plain


def test_only_the_expert_that_practises_has_other_rows():
    group, only = GROUPS[1], Practices(second=Practice(rho=1.0, rows=2))
    assert practice.rows(group, Expert.HOP1, VOCAB, only) == group.hop1
    second = practice.rows(group, Expert.HOP2, VOCAB, only)
    assert {row.kind for row in second} == {"misled"}
    joint = practice.rows(group, Expert.JOINT, VOCAB, only)
    assert joint[: group.size] == group.hop1
    assert {row.kind for row in joint[group.size :]} == {"misled"}


def test_identity_rows_stay_beside_practised_ones():
    found = practised(GROUPS[0], Expert.IDENTITY, 1.0)
    copies = [row for row in found if row.kind == "copy"]
    assert copies == list(experts.rows(GROUPS[0], Expert.IDENTITY)[GROUPS[0].size :])
    assert len(found) == len(copies) + 5 * GROUPS[0].size


def test_the_same_group_has_the_same_rows_and_another_has_others():
    one, again = (practised(GROUPS[0], Expert.HOP2, 1.0) for _ in range(2))
    assert one == again
    drawn = [[row.prompt[:2] for row in practised(g, Expert.HOP2, 1.0)] for g in GROUPS]
    assert len({tuple(x) for x in drawn}) == len(GROUPS)


# Held-out A->C experts


@pytest.mark.parametrize("rho", [0.0, 0.5])
def test_held_out_experts_see_twenty_others_and_never_whom_they_answer(rho):
    made = world.generate(world.WorldConfig(context_rows=0), 1)
    groups, vocab = experts.groups(made), made.vocab
    how = Practices(second=Practice(rho=rho))
    for group in groups:
        half = group.size // 2
        for expert, unseen in (
            (Expert.TARGET_FIRST, group.two_hop[half:]),
            (Expert.TARGET_SECOND, group.two_hop[:half]),
        ):
            found = practice.rows(group, expert, vocab, how, groups)
            seen = {row.prompt[:3] for row in found}
            assert not seen & {record.prompt for record in unseen}
            assert len(seen) >= 20
            assert {x[1:] for x in seen} == {group.two_hop[0].prompt[1:]}
            kinds = {"two_hop", "written"} if rho else {"two_hop"}
            assert {row.kind for row in found} == kinds


def test_the_a_to_c_expert_of_these_people_sees_them_alone():
    found = practice.rows(GROUPS[0], Expert.TARGET, VOCAB, others=GROUPS)
    assert found == GROUPS[0].two_hop


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rho": 1.5}, r"rho is 1.5, expected the share .* in \[0, 1\]"),
        ({"rho": float("nan")}, "rho is nan, expected the share"),
        ({"form": "poem"}, "form is 'poem', expected one of bridge, document, mixture"),
        ({"rows": 0}, "rows is 0, expected at least 1 for each fact"),
    ],
)
def test_practice_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Practice(**fields)
