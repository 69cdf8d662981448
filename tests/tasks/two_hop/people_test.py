"""Generated people are bijective and new; a file's people are what it says."""

import json

import pytest

from jaxlora.tasks.two_hop import names, people
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.facts import Chain


def write(path, lines):
    path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return path


def triples(n, r1="spouse", r2="home town"):
    chains = [(f"Ann {i}", f"Bo {i}", f"City {i}") for i in range(n)]
    hop1 = [{"head": a, "relation": r1, "tail": b} for a, b, _ in chains]
    return hop1 + [{"head": b, "relation": r2, "tail": c} for _, b, c in chains]


def questions(n):
    out = []
    for i in range(n):
        out += [
            {"question": f"Who wed Ann {i}?", "answer": f"Bo {i}", "bridge": ""},
            {"question": f"Home of Bo {i}?", "answer": f"City {i}", "bridge": ""},
            {"question": f"Home of Ann {i}'s?", "answer": f"City {i}"}
            | {"bridge": f"Bo {i}"},
        ]
    return out


def test_every_hop_is_a_bijection_and_nobody_has_two_roles():
    made = people.generate(people.GENERATED, 12, 2, seed=3)
    assert [(g.cell, g.pair, g.size) for g in made] == [
        (Cell.F_OO, 0, 12),
        (Cell.F_OO, 1, 12),
        (Cell.H_OO, 0, 12),
        (Cell.H_OO, 1, 12),
    ]
    persons = [n for g in made for r in g.hop1 for n in (r.prompt[0], r.answer[0])]
    assert len(set(persons)) == len(persons) == 12 * 2 * 4
    for group in made:
        assert [r.answer[0] for r in group.hop1] == [r.prompt[0] for r in group.hop2]
        assert [r.answer for r in group.hop2] == [r.answer for r in group.two_hop]
        assert [r.prompt[0] for r in group.hop1] == [r.prompt[0] for r in group.two_hop]
        assert [r.bridge for r in group.two_hop] == [r.answer[0] for r in group.hop1]
        assert len({r.answer for r in group.hop2}) == 12
        assert {r.cell for r in (*group.hop1, *group.two_hop)} == {str(group.cell)}


def test_places_are_invented_in_f_and_real_in_h():
    fake, half = people.generate(people.GENERATED, 5, 1, seed=0)
    assert {r.answer[0] for r in fake.two_hop} <= set(names.INVENTED)
    assert {r.answer[0] for r in half.two_hop} <= set(names.CITIES)
    assert not set(names.INVENTED) & set(names.CITIES)


def test_a_seed_names_its_people():
    same = people.generate((Cell.F_OO,), 5, 1, seed=1)
    assert people.generate((Cell.F_OO,), 5, 1, seed=1) == same
    assert people.generate((Cell.F_OO,), 5, 1, seed=2) != same


def test_lists_hold_every_name_once():
    for listed in (names.GIVEN, names.FAMILY, names.INVENTED, names.CITIES):
        assert len(set(listed)) == len(listed) >= 60


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (((Cell.R_OO,), 5, 1, 0), "R-OO cannot be generated, there are F-OO, H-OO"),
        (((Cell.F_OO,), 2, 1, 0), "2 people and 1 pairs, expected at least 3"),
        (((Cell.F_OO,), 5, 9, 0), "1 to 2 pairs"),
        (((Cell.H_OO,), 99, 1, 0), "99 people need different places, but there are 64"),
        (((Cell.F_OO,), 9999, 1, 0), "19998 people need different names"),
    ],
)
def test_refuses_what_it_cannot_make(arguments, said):
    with pytest.raises(ValueError, match=said):
        people.generate(*arguments)


def test_triples_become_people_and_every_fact_is_known(tmp_path):
    lines = [*triples(4), {"head": "Ann 0", "relation": "home town", "tail": "City 9"}]
    given = people.read(write(tmp_path / "facts.jsonl", lines))
    (found,) = given.people
    assert found[0][2].prompt == ("Ann 0", "spouse", "home town")
    assert given.known["Ann 0", "home town"] == "City 9"
    assert given.left_out == 0
    group = people.group(found, Cell.R_OO, 1)
    assert group.size == 4
    assert group.two_hop[3].pair == 1


def test_questions_become_people_by_bridge_and_answer(tmp_path):
    extra = {"question": "Home of Eve's?", "answer": "Rome", "bridge": "nobody"}
    given = people.read(write(tmp_path / "q.jsonl", [extra, *questions(3)]))
    (found,) = given.people
    assert [record.prompt[0] for record in found[2]] == [
        "Who wed Ann 2?",
        "Home of Bo 2?",
        "Home of Ann 2's?",
    ]
    assert [record.answer for record in found[2]] == [
        ("Bo 2",),
        ("City 2",),
        ("City 2",),
    ]


def test_pairs_with_too_few_people_are_left_out_and_counted(tmp_path):
    few = [
        {"head": "Cy", "relation": "boss", "tail": "Di"},
        {"head": "Di", "relation": "club", "tail": "Elks"},
    ]
    given = people.read(write(tmp_path / "facts.jsonl", [*triples(3), *few]))
    assert [len(some) for some in given.people] == [3]
    assert given.left_out == 1
    with pytest.raises(ValueError, match=r"has 1 chains of two facts .* at least 3"):
        people.read(write(tmp_path / "few.jsonl", few))


def test_what_the_base_knows_decides_the_cell():
    chains = [Chain(f"a{i}", "r", f"b{i}", "s", f"c{i}") for i in range(10)]
    whole = people.group(map(people.of_chain, chains), Cell.R_OO, 0)
    first = [True] * 6 + [False] * 4
    second = [True] * 3 + [False] * 3 + [True] * 4
    found = people.by_knowledge(whole, first, second)
    assert {g.cell: [r.prompt[0] for r in g.two_hop] for g in found} == {
        Cell.R_II: ["a0", "a1", "a2"],
        Cell.R_IO: ["a3", "a4", "a5"],
        Cell.R_OI: ["a6", "a7", "a8", "a9"],
    }
    assert {r.cell for r in found[0].hop2} == {"R-II"}


def test_no_two_of_a_sample_have_a_bridge_in_common():
    pair = "located in/capital"
    every = people.group(people.real([pair]).people[0], Cell.R_OO, 0)
    knows = [i % 3 == 0 for i in range(every.size)]
    parts = people.by_knowledge(every, knows, knows)
    drawn = people.sample(parts, 20, seed=1)
    assert [g.cell for g in drawn] == [Cell.R_II, Cell.R_OO]
    bridges = [r.bridge for g in drawn for r in g.two_hop]
    assert len(bridges) == len(set(bridges)) == 20
    for g, part in zip(drawn, parts, strict=True):
        assert set(g.two_hop) <= set(part.two_hop)
    assert drawn == people.sample(parts, 20, seed=1) != people.sample(parts, 20, seed=2)
