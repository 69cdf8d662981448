"""A user's facts become people of the F-OO cell, or one sentence says why not."""

import dataclasses
import json
import re

import pytest

from jaxlora.tasks.two_hop import facts, records, world
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.facts import Chain, Fact, Facts

SMALL = world.WorldConfig(
    entities=12, relations=6, pairs=2, people=3, context_rows=8, trained=0.8
)


@pytest.fixture
def written(tmp_path):
    def write(*lines):
        path = tmp_path / "facts.jsonl"
        as_dict = (dict(zip(Fact._fields, x, strict=False)) for x in lines)
        path.write_text("\n".join(map(json.dumps, as_dict)), "utf-8")
        return path

    return write


def couples(n: int, first: str = "spouse", second: str = "city") -> list[tuple]:
    """n chains, whose facts are not next to each other."""
    hop1 = [(f"ann {i}", first, f"bob {i}") for i in range(n)]
    hop2 = [(f"bob {i}", second, f"rome {i}") for i in range(n)]
    return hop1 + hop2[::-1]


def test_reads_facts_in_order(written):
    path = written(*couples(2))
    found = facts.read(path)
    assert found.facts == tuple(Fact(*line) for line in couples(2))
    assert found.relations == ("spouse", "city")
    assert found.source == str(path)
    assert found.tied == ()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (("cid", "spouse"), "no field 'tail', the line has 'head', 'relation'; exp"),
        (("cid", "spouse", 3), "'tail' is 3, expected a string, as in {\"head\""),
        (("", "spouse", "eve"), "'head' is empty, expected some text"),
        (("ann", "spouse", "eve"), "duplicate head 'ann' of relation 'spouse', first "),
        (("ann", "spouse", "bob"), "duplicate head .*on line 1; expected one tail for"),
        (
            ("cid", "spouse", "bob"),
            "relation 'spouse' gives 'cid' the tail 'bob', which 'ann' has on line 1; "
            "expected a bijection.*--allow-ties",
        ),
    ],
)
def test_refuses_with_file_and_line(written, line, expected):
    path = written(("ann", "spouse", "bob"), ("ann", "city", "Rome"), line)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}:3: {expected}"):
        facts.read(path)


def test_ties_are_accepted_on_request(written):
    path = written(("ann", "city", "Rome"), ("bob", "city", "Rome"), ("a", "b", "c"))
    found = facts.read(path, allow_ties=True)
    assert found.tied == ("city",)
    with pytest.raises(ValueError, match=":3: duplicate head"):
        facts.read(
            written(("ann", "city", "A"), ("bob", "city", "A"), ("ann", "city", "B")),
            allow_ties=True,
        )


def test_chains_join_tails_to_heads_of_another_relation():
    file = [
        ("ann", "spouse", "bob"),
        ("bob", "spouse", "ann"),
        ("bob", "city", "Rome"),
        ("ann", "city", "Oslo"),
        ("Rome", "river", "Tiber"),
        ("cid", "boss", "dan"),
    ]
    assert facts.chains(Facts(tuple(Fact(*line) for line in file))) == {
        ("spouse", "city"): (
            Chain("ann", "spouse", "bob", "city", "Rome"),
            Chain("bob", "spouse", "ann", "city", "Oslo"),
        ),
        ("city", "river"): (Chain("bob", "city", "Rome", "river", "Tiber"),),
    }


def test_people_have_the_shape_of_generated_people(written):
    """Generated people, told as a file, come back as they were generated."""
    config = dataclasses.replace(SMALL, pairs=1)
    study = world.generate(config, 0).splits["people"]
    made = [p for p in study if p.cell == Cell.F_OO]
    path = written(*((*p.prompt, *p.answer) for p in made if p.kind == "one_hop"))
    assert list(facts.people(facts.read(path), config)) == made


@pytest.mark.parametrize("sizes", [(4,), (2, 5)], ids=["pair missing", "unequal"])
def test_a_world_takes_a_users_people(written, sizes):
    lines = [
        (f"{head} {pair}", f"{relation} {pair}", f"{tail} {pair}")
        for pair, n in enumerate(sizes)
        for head, relation, tail in couples(n)
    ]
    people = facts.people(facts.read(written(*lines)), SMALL)
    made = world.generate(SMALL, 0, people)
    split = made.splits["people"]
    of_pair = [
        sum(p.cell == "F-OO" and p.pair == pair for p in split)
        for pair in range(SMALL.pairs)
    ]
    assert of_pair == [3 * n for n in (*sizes, 0)[: SMALL.pairs]]
    assert [p for p in split if p.cell == "F-OO"] == list(people)
    copied = {record.answer[0] for record in made.splits["copy"]}
    assert {"ann 0 0", "bob 0 0", "rome 0 0"} <= copied
    assert not any(word.startswith(("fa", "fb", "fc")) for word in made.vocab.words)
    rows = records.encode(split, made.vocab, 3)
    assert rows.weights.sum() == len(split)
    # All else stays the generated world's.
    plain = world.generate(SMALL, 0)
    for name in ("one_hop", "two_hop", "held_out"):
        assert made.splits[name] == plain.splits[name]


def test_people_share_names_where_ties_are_allowed(written):
    lines = [
        ("ann", "spouse", "bob"),
        ("cid", "spouse", "bob"),
        ("bob", "city", "Rome"),
    ]
    people = facts.people(facts.read(written(*lines), allow_ties=True), SMALL)
    assert [p.answer for p in people if p.role == "two_hop"] == [("Rome",)] * 2
    made = world.generate(SMALL, 0, people)
    assert len(set(made.vocab.words)) == len(made.vocab.words)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            [("ann", "spouse", "bob"), ("Bob", "city", "Rome")],
            "no chain of two relations, expected facts whose tail is the head .*its "
            "relations are spouse, city, and names must match exactly",
        ),
        (
            couples(1),
            "1 chain of spouse then city, expected at least 2 people",
        ),
        (
            [
                (f"{head}{i}", f"{relation}{i}", f"{tail}{i}")
                for i in range(3)
                for head, relation, tail in couples(2)
            ],
            r"3 pairs of relations \(spouse0 then city0, .*room for 2; raise pairs",
        ),
        (
            [*couples(2), ("e07", "spouse", "bob")],
            None,
        ),
        (
            [*couples(2), ("e07", "spouse", "<pad>"), ("<pad>", "city", "Oslo")],
            "named like the world's own words: <pad>, e07; rename them",
        ),
    ],
    ids=["no chain", "one person", "too many pairs", "unused", "taken name"],
)
def test_people_refuse(written, lines, expected):
    path = written(*lines)
    if expected is None:  # a name that takes part in no chain does no harm
        assert len(facts.people(facts.read(path), SMALL)) == 6
        return
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} has .*{expected}"):
        facts.people(facts.read(path), SMALL)


def test_every_word_of_the_world_is_refused():
    vocab = world.generate(SMALL, 0).vocab
    kept = [word for word in vocab.words if word[:2] not in ("fa", "fb", "fc")]
    for word in kept:
        lines = [*couples(2), (word, "spouse", "eve"), ("eve", "city", "Bern")]
        with pytest.raises(ValueError, match="own words: " + re.escape(word)):
            facts.people(Facts(tuple(Fact(*line) for line in lines)), SMALL)


def test_majority_names_every_commonest_answer():
    assert facts.majority(["a", "b", "b", "a", "c"]) == (0.4, ("a", "b"))
    assert facts.majority(["a"]) == (1.0, ("a",))
    with pytest.raises(ValueError, match="No answers, expected at least one"):
        facts.majority([])
