"""What each cell's letters promise, checked from the records alone."""

import collections
import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.tasks.two_hop import records, world, world_config
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.world import WorldConfig

SIZES = {"entities": 24, "relations": 10, "pairs": 2, "people": 4, "context_rows": 64}
FACTS, QUERIES = ("one_hop",), ("two_hop", "written", "document")
PRETRAINING = (*FACTS, *QUERIES, "misled", "copy", "context")
COVERAGES = (0.0, 0.25, 0.5, 1.0)
SECOND = ("r01", "r03")


@functools.cache
def make(coverage: float = 1.0, seed: int = 0) -> world.World:
    return world.generate(WorldConfig(coverage=coverage, **SIZES), seed)


def told(made: world.World) -> dict[tuple[str, str], str]:
    """{(head, relation): tail}: every fact that pretraining states by itself."""
    return {(*r.prompt,): r.answer[0] for r in made.splits["one_hop"]}


def uses(made: world.World, hop: int) -> set[tuple[str, str]]:
    """Facts (head, relation) that trained compositions use as hop 1 or hop 2."""
    found = set()
    for name in QUERIES:
        for record in made.splits[name]:
            head, first, second = _query(record)
            found.add((head, first) if hop == 1 else (record.bridge, second))
    return found


def _query(record: records.Record) -> tuple[str, str, str]:
    """(head, r1, r2), whatever the format."""
    if record.kind == "document":
        return (*record.prompt, record.answer[1])
    return record.prompt[-3:] if record.kind == "context" else record.prompt[:3]


def people(made: world.World, cell: Cell) -> list[dict[str, records.Record]]:
    """The people of a cell as {role: record}."""
    split = [r for r in made.splits["people"] if r.cell == cell]
    return [
        {record.role: record for record in split[i : i + 3]}
        for i in range(0, len(split), 3)
    ]


def familiar(made: world.World) -> set[str]:
    return set(made.vocab.entities[: made.vocab.familiar])


# Facts


@pytest.mark.parametrize("seed", [0, 1])
def test_relations_are_permutations(seed):
    """The known facts and the study's unknown ones make up whole permutations."""
    made = make(seed=seed)
    facts = told(made)
    for cell in world_config.FAMILIAR_CELLS:
        for person in people(made, cell):
            for role in ("hop1", "hop2"):
                head, relation = person[role].prompt
                tail = person[role].answer[0]
                assert facts.setdefault((head, relation), tail) == tail
    for relation in made.vocab.relations:
        pairs = [(h, t) for (h, r), t in facts.items() if r == relation]
        assert {h for h, _ in pairs} == familiar(made) == {t for _, t in pairs}
        assert len(pairs) == made.vocab.familiar


@pytest.mark.parametrize("seed", range(6))
def test_nobody_is_their_own_bridge_or_answer(seed):
    """Else a model that says the bridge, or the subject, would count as right."""
    config = WorldConfig(entities=28, relations=10, pairs=3, people=7, context_rows=0)
    made = world.generate(config, seed)
    for cell in Cell:
        assert len(people(made, cell)) == 3 * 7
        for person in people(made, cell):
            asked = person["two_hop"]
            assert len({asked.prompt[0], asked.bridge, *asked.answer}) == 3


@pytest.mark.parametrize("seed", range(6))
def test_tables_of_the_study_are_permutations_all_the_same(seed):
    """Also where all entities are study people, so that few exchanges are free."""
    config = WorldConfig(entities=28, relations=8, pairs=3, people=7, context_rows=0)
    made = world.generate(config, seed)
    facts = told(made)
    for record in made.splits["people"]:
        if record.cell in world_config.FAMILIAR_CELLS and record.role != "two_hop":
            facts[record.prompt] = record.answer[0]
    for relation in made.vocab.relations:
        pairs = {head: tail for (head, name), tail in facts.items() if name == relation}
        mine = {head: pairs[head] for head in familiar(made)}
        assert set(mine.values()) == familiar(made)


def test_no_fact_is_told_twice():
    made = make()
    assert len(told(made)) == len(made.splits["one_hop"])


@pytest.mark.parametrize("split", ["two_hop", "written", "document", "held_out"])
def test_compositions_follow_from_the_facts(split):
    made, facts = make(), told(make())
    for record in made.splits[split]:
        head, first, second = _query(record)
        assert facts[head, first] == record.bridge
        assert facts[record.bridge, second] == record.answer[-1]


def test_each_query_is_told_in_every_format_once():
    splits = make().splits
    asked = [list(map(_query, splits[name])) for name in QUERIES]
    assert len(set(asked[0])) == len(asked[0])
    assert asked[0] == asked[1] == asked[2]
    assert {r.answer[0] == r.bridge for r in splits["written"]} == {True}


@pytest.mark.parametrize(
    ("split", "queries"), [("misled", "two_hop"), ("held_out_misled", "held_out")]
)
def test_misled_rows_are_answered_by_the_bridge_that_is_written(split, queries):
    made, facts = make(), told(make())
    rows, true = made.splits[split], made.splits[queries]
    seconds = {(r.bridge, r.prompt[2]) for r in true}
    for record, query in zip(rows, true, strict=True):
        assert record.prompt[:3] == query.prompt
        assert record.prompt[4] == record.bridge
        # Only facts that a trained composition uses as second hops: coverage holds.
        assert (record.bridge, record.prompt[2]) in seconds
        assert facts[record.bridge, record.prompt[2]] == record.answer[0]
    other = [r.bridge != q.bridge for r, q in zip(rows, true, strict=True)]
    assert sum(other) > 0.8 * len(other)


def test_context_rows_are_answered_by_their_text_in_either_order():
    orders = collections.Counter()
    for record in make().splits["context"]:
        *text, head, first, second = record.prompt
        stated = {tuple(text[i : i + 2]): text[i + 2] for i in (0, 3)}
        assert stated[head, first] == record.bridge
        assert (stated[record.bridge, second],) == record.answer
        assert len({head, record.bridge, *record.answer}) == 3
        orders[tuple(text[:2]) == (head, first)] += 1
    assert min(orders[True], orders[False]) > 0.2 * SIZES["context_rows"]


# Cells


@pytest.mark.parametrize("cell", world_config.FAMILIAR_CELLS)
@pytest.mark.parametrize("coverage", [0.5, 1.0])
def test_letters_say_what_the_base_knows(cell, coverage):
    made = make(coverage)
    facts, firsts, seconds = told(made), uses(made, 1), uses(made, 2)
    assert len(people(made, cell)) == SIZES["pairs"] * SIZES["people"]
    for person in people(made, cell):
        for role, letter in zip(("hop1", "hop2"), cell.knows, strict=True):
            fact = person[role].prompt
            assert (fact in facts) == (letter == "I")
            if letter == "O":
                assert fact not in firsts | seconds
            else:
                assert facts[fact] == person[role].answer[0]
                assert fact in firsts  # the share trained leaves no fact unused


@pytest.mark.parametrize("cell", [Cell.R_II, Cell.R_OI])
def test_a_covered_second_hop_is_in_a_trained_composition(cell):
    made = make(1.0)
    for person in people(made, cell):
        assert person["hop2"].prompt in uses(made, 2)
        assert {r.covered for r in person.values()} == {True}
    for person in people(make(0.0), cell):
        assert person["hop2"].prompt in told(make(0.0))
        assert person["hop2"].prompt not in uses(make(0.0), 2)
        assert {r.covered for r in person.values()} == {False}


def test_no_study_query_is_trained_or_a_gate():
    made = make()
    asked = {r.prompt for r in made.splits["people"] if r.role == "two_hop"}
    assert len(asked) == SIZES["pairs"] * SIZES["people"] * len(Cell)
    for name in QUERIES:
        assert not asked & set(map(_query, made.splits[name]))
    for name in ("held_out", "held_out_written", "held_out_document"):
        assert not asked & set(map(_query, made.splits[name]))
    for name in ("misled", "held_out_misled"):
        assert not asked & {record.prompt[:3] for record in made.splits[name]}


@pytest.mark.parametrize("cell", list(Cell))
def test_people_are_three_consistent_records(cell):
    made = make()
    for person in people(made, cell):
        assert list(person) == ["hop1", "hop2", "two_hop"]
        hop1, hop2, two_hop = person.values()
        pair = hop1.pair
        first, second = f"r{2 * pair:02d}", f"r{2 * pair + 1:02d}"
        assert hop1.prompt[1:] == (first,)
        assert hop1.answer == hop2.prompt[:1] == (two_hop.bridge,)
        assert hop2.prompt[1:] == (second,)
        assert two_hop.prompt == (hop1.prompt[0], first, second)
        assert two_hop.answer == hop2.answer
        assert {r.pair for r in person.values()} == {pair}
    for pair in range(SIZES["pairs"]):
        triplets = [
            (p["hop1"].prompt[0], p["two_hop"].bridge, p["two_hop"].answer[0])
            for p in people(made, cell)
            if p["hop1"].pair == pair
        ]
        for column in zip(*triplets, strict=True):  # bijective in the cell
            assert len(set(column)) == SIZES["people"]


def test_cells_of_a_pair_share_no_people():
    made = make()
    for pair in range(SIZES["pairs"]):
        hops = [r for r in made.splits["people"] if r.pair == pair and r.role != "two"]
        heads = [r.prompt[0] for r in hops if r.role == "hop1"]
        bridges = [r.answer[0] for r in hops if r.role == "hop1"]
        assert len(set(heads)) == len(heads)
        assert len(set(bridges)) == len(bridges)


def test_familiarity_says_which_entities_are_new():
    made = make()
    names = collections.defaultdict(set)
    for cell in (Cell.H_OO, Cell.F_OO):
        for person in people(made, cell):
            a, b = person["hop1"].prompt[0], person["hop1"].answer[0]
            c = person["hop2"].answer[0]
            assert {a, b}.isdisjoint(familiar(made))
            assert (c in familiar(made)) == (cell == Cell.H_OO)
            names[cell] |= {a, b, c}
            assert not person["two_hop"].covered
    assert names[Cell.H_OO].isdisjoint(names[Cell.F_OO])
    new = set(made.vocab.entities[made.vocab.familiar :])
    assert new <= names[Cell.H_OO] | names[Cell.F_OO]


def test_new_entities_are_seen_as_names_only():
    made = make()
    new = set(made.vocab.entities[made.vocab.familiar :])
    seen = {
        name: {w for r in made.splits[name] for w in (*r.prompt, *r.answer, r.bridge)}
        for name in made.splits
        if name != "people"
    }
    for name, words in seen.items():
        assert bool(words & new) == (name == "copy"), name
    assert set(made.vocab.entities) <= seen["copy"]


@pytest.mark.parametrize("seed", range(3))
def test_no_made_up_row_tells_what_only_an_expert_may_know(seed):
    # Large enough that chance alone would tell many.
    made = world.generate(WorldConfig(**SIZES | {"context_rows": 4096}), seed)
    facts = {
        (*r.prompt, *r.answer)
        for r in made.splits["people"]
        if r.role in ("hop1", "hop2")
    }
    queries = {
        (*r.prompt, *r.answer) for r in made.splits["people"] if r.role == "two_hop"
    }
    for name in ("context", "held_out_context"):
        for record in made.splits[name]:
            first, second = record.prompt[:3], record.prompt[3:6]
            assert not facts & {first, second}
            assert (*record.prompt[6:], *record.answer) not in queries


def test_every_new_person_is_a_person_of_one_pair():
    made = make()
    for cell in (Cell.H_OO, Cell.F_OO):
        heads = [
            r.prompt[0]
            for r in made.splits["people"]
            if r.cell == cell and r.role == "hop1"
        ]
        assert len(set(heads)) == len(heads) == SIZES["pairs"] * SIZES["people"]


def test_copies_are_the_share_asked_for():
    made = make()
    copies = collections.Counter(r.answer[0] for r in made.splits["copy"])
    assert len(set(copies.values())) == 1  # every entity as often as any other
    direct = len(made.splits["one_hop"]) + len(made.splits["two_hop"])
    share = copies.total() / (copies.total() + direct)
    half_a_round = 0.5 * len(made.vocab.entities) / direct
    assert share == pytest.approx(WorldConfig.copy_share, abs=half_a_round)


# Coverage


@pytest.mark.parametrize("coverage", COVERAGES)
@pytest.mark.parametrize("seed", [0, 1])
def test_coverage_is_the_share_of_known_second_facts_in_compositions(coverage, seed):
    made = make(coverage, seed)
    for relation in SECOND:
        known = {fact for fact in told(made) if fact[1] == relation}
        used = {fact for fact in uses(made, 2) if fact[1] == relation}
        assert used <= known
        assert len(used) == round(coverage * len(known))
    others = {fact for fact in told(made) if fact[1] not in SECOND}
    assert others <= uses(made, 2)


@pytest.mark.parametrize("seed", range(4))
def test_coverage_changes_nothing_else(seed):
    full = make(1.0, seed)
    before: set = set()
    for coverage in COVERAGES:
        made = make(coverage, seed)
        assert made.splits["one_hop"] == full.splits["one_hop"]  # all stay known
        assert made.splits["held_out"] == full.splits["held_out"]
        assert made.phi == full.phi
        assert len(made.splits["copy"]) == len(full.splits["copy"])
        used = {fact for fact in uses(made, 2) if fact[1] in SECOND}
        assert before <= used  # nested
        before = used
        assert [r.prompt for r in made.splits["people"]] == [
            r.prompt for r in full.splits["people"]
        ]


def test_covered_facts_are_a_random_choice():
    made = make(0.5)
    for relation in SECOND:
        used = {head for head, name in uses(made, 2) if name == relation}
        rest = {head for head, name in told(made) if name == relation} - used
        assert min(used) < max(rest)
        assert min(rest) < max(used)


def test_phi_is_fixed_even_where_chance_holds_out_many():
    """Here 1067 of 1069 queries are left, because more than 5% were held out."""
    sizes = {"entities": 17, "relations": 9, "pairs": 1, "people": 2, "trained": 0.95}
    worlds = [
        world.generate(WorldConfig(coverage=c, context_rows=0, **sizes), 151)
        for c in (0.0, 1.0)
    ]
    assert worlds[0].phi == worlds[1].phi


@pytest.mark.parametrize("coverage", COVERAGES)
def test_each_person_records_whether_its_own_fact_is_covered(coverage):
    made = make(coverage)
    used = uses(made, 2)
    for record in made.splits["people"]:
        if record.role == "hop2":
            assert record.covered == (record.prompt in used)


def test_the_standard_world_composes_each_fact_often():
    made = world.generate(WorldConfig(), 0)
    assert made.phi == pytest.approx(14, abs=1.5)
    assert len(people(made, Cell.F_OO)) >= 20


# Criteria


@pytest.mark.parametrize("coverage", [0.0, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_held_out_queries_are_new_and_not_the_studys(coverage, seed):
    made = make(coverage, seed)
    asked = [r.prompt for r in made.splits["held_out"]]
    assert len(asked) > 50
    assert len(set(asked)) == len(asked)
    study = {f"r{i:02d}" for i in range(2 * SIZES["pairs"])}
    assert all(study.isdisjoint(query[1:]) for query in asked)
    for name in QUERIES:
        assert not set(asked) & set(map(_query, made.splits[name]))
    for name in ("held_out_written", "held_out_document"):
        assert list(map(_query, made.splits[name])) == asked
    assert not set(made.splits["held_out_context"]) & set(made.splits["context"])


# Determinism and arguments


def test_the_same_arguments_give_the_same_world():
    config = WorldConfig(**SIZES)
    assert world.generate(config, 0) == make()
    assert world.generate(config, 1) != make()


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_promises_hold_for_any_sizes(data):
    n = data.draw(st.integers(2, 4), "people")
    pairs = data.draw(st.integers(1, 3), "pairs")
    config = WorldConfig(
        people=n,
        pairs=pairs,
        entities=data.draw(st.integers(4 * n, 4 * n + 6), "entities"),
        relations=data.draw(st.integers(2 * pairs + 2, 2 * pairs + 4), "relations"),
        coverage=data.draw(st.floats(0, 1), "coverage"),
        trained=data.draw(st.floats(0.5, 1), "trained"),
        context_rows=data.draw(st.integers(0, 4), "context rows"),
    )
    made = world.generate(config, data.draw(st.integers(0, 2**32), "seed"))
    facts, used = told(made), uses(made, 1) | uses(made, 2)
    assert used <= set(facts)
    for cell in Cell:
        assert len(people(made, cell)) == n * pairs
        for person in people(made, cell):
            for role, letter in zip(("hop1", "hop2"), cell.knows, strict=True):
                assert (person[role].prompt in facts) == (letter == "I")
            assert person["two_hop"].prompt not in map(_query, made.splits["two_hop"])
    for name, length in (
        ("people", 3),
        ("written", 5),
        ("document", 4),
        ("context", 9),
    ):
        rows = records.encode(made.splits[name], made.vocab, length)
        assert rows.tokens.max(initial=0) < len(made.vocab.words)


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("coverage", 1.5, r"coverage is 1.5, expected a share in \[0, 1\]"),
        ("coverage", float("nan"), "coverage is nan, expected a share"),
        ("trained", -0.1, "trained is -0.1, expected a share"),
        ("copy_share", 2, "copy_share is 2, expected a share"),
        ("copy_share", 1, "copy_share is 1, expected less: no fact would be told"),
        ("people", 1, "people is 1 .*expected at least 2 people"),
        ("pairs", 0, "pairs 0, expected at least 2 people .*and 1 pair"),
        ("people", 11, "11 people in each of 4 familiar cells need 44 entities, but"),
        (
            "relations",
            7,
            "3 study pairs use 6 relations and the criteria need at least",
        ),
    ],
)
def test_sizes_that_cannot_be_are_refused(field, value, expected):
    with pytest.raises(ValueError, match=expected):
        WorldConfig(**{field: value})


def test_without_comparable_coverages_more_queries_are_trained():
    usual = world.generate(WorldConfig(), 0)
    more = world.generate(WorldConfig(comparable=False), 0)
    trained = [{(r.prompt) for r in x.splits["two_hop"]} for x in (usual, more)]
    assert trained[0] < trained[1]
    assert usual.splits["held_out"] == more.splits["held_out"]
    assert usual.splits["people"] == more.splits["people"]
    asked = {r.prompt for r in more.splits["people"] if r.role == "two_hop"}
    assert not asked & trained[1]
