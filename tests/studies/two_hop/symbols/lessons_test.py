"""Who is learned from before a person is asked: everybody else of the cell."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora.evaluate.schema import Arm, Method
from jaxlora.studies.harness import Outcome
from jaxlora.studies.two_hop.items import Key, Split
from jaxlora.studies.two_hop.protocol import Log
from jaxlora.studies.two_hop.rows import Block
from jaxlora.studies.two_hop.symbols import lessons, summary

N, PAD = 5, 99
# Two cells, the groups of the first apart; the last has one pair and a person less.
PLACES = (("R-OO", 0, 5), ("F-OO", 0, 4), ("R-OO", 1, 3), ("R-OO", 2, 4))


def asked_of(places=PLACES, nobody=()):
    """Person i of group g is asked ``[10 g + i, 0, 0]``, and answers 10 g + i + 1."""
    groups = tuple(SimpleNamespace(cell=c, pair=p, size=n) for c, p, n in places)
    names = 10 * np.arange(len(groups))[:, None] + np.arange(N)
    for g, group in enumerate(groups):
        names[g, group.size :] = names[g, group.size - 1]  # padded as prompts are
    direct = np.zeros((len(groups), 3 * N + 1, 3), np.int32)
    direct[:, 2 * N : 3 * N, 0] = names
    keys = []
    for g, group in enumerate(groups):
        right = np.where(
            [(g, i) in nobody for i in range(group.size)],
            -1,
            names[g, : group.size] + 1,
        )
        none = np.full(group.size, -1)
        keys.append({Split.TWO_HOP: Key(right, none, none, np.roll(right, 1))})
    return SimpleNamespace(
        questions=SimpleNamespace(direct=jnp.asarray(direct)),
        people=N,
        keys=tuple(keys),
        groups=groups,
    )


def learned_from(given, asked, arm=Arm.PAIR):
    """{(group, half): {(group, question, answer)}} that is learned from."""
    out = {}
    for g, (c, k) in enumerate(lessons.places(given, asked.groups)):
        for half in (0, 1):
            used = np.argwhere(np.asarray(given.weights[c, k, half]) > 0)
            out[g, half] = [
                (
                    int(given.groups[c, j]),
                    int(given.tokens[c, j, i, 0]),
                    int(given.targets[c, j, i]),
                )
                for j, i in used
            ]
    return out


def test_everybody_of_the_cell_is_learned_from_but_the_half_that_is_asked():
    asked = asked_of()
    found = learned_from(lessons.lessons(asked, Arm.PAIR), asked)
    for (g, half), rows in found.items():
        expected = {
            (j, 10 * j + i, 10 * j + i + 1)
            for j, group in enumerate(asked.groups)
            for i in range(group.size)
            if group.cell == asked.groups[g].cell and not (j == g and i % 2 == half)
        }
        assert len(rows) == len(expected)
        assert set(rows) == expected


def test_nobodys_question_is_learned_from_before_they_are_asked():
    asked = asked_of()
    found = learned_from(lessons.lessons(asked, Arm.PAIR), asked)
    for g, group in enumerate(asked.groups):
        for person in range(group.size):
            assert 10 * g + person not in [x for _, x, _ in found[g, person % 2]]


def test_with_one_pair_it_is_the_other_half_alone():
    places = (("R-OO", 0, 5), ("F-OO", 0, 4))
    asked = asked_of(places)
    given = lessons.lessons(asked, Arm.PAIR)
    halves = lessons.examples(asked, Arm.PAIR)
    for (g, half), rows in learned_from(given, asked).items():
        used = np.asarray(halves.weights[g, half]) > 0
        assert {x for _, x, _ in rows} == set(
            np.asarray(halves.tokens[g, half, :, 0])[used].tolist()
        )
    assert lessons.counts(given, asked.groups) == {"R-OO": [2, 3], "F-OO": [2, 2]}


def test_counts_are_the_rows_that_weigh():
    asked = asked_of()
    given = lessons.lessons(asked, Arm.PAIR)
    # R-OO: 12 people, less the larger or smaller half of 5, 3 and 4.
    assert lessons.counts(given, asked.groups) == {"R-OO": [9, 11], "F-OO": [2, 2]}
    rows = [len(x) for x in learned_from(given, asked).values()]
    assert (min(rows), max(rows)) == (2, 11)


def test_sizes_of_a_standard_study():
    """Three pairs of seven people do not reach twenty rows; four of sixteen do."""
    for pairs, people, expected in ((3, 7, [17, 18]), (4, 16, [56, 56])):
        n = max(people, N)
        asked = SimpleNamespace(
            questions=SimpleNamespace(direct=jnp.zeros((pairs, 3 * n, 3), jnp.int32)),
            people=n,
            keys=({Split.TWO_HOP: Key(np.ones(n, int), *[np.ones(n, int)] * 3)},)
            * pairs,
            groups=(SimpleNamespace(cell="R-OO", size=people),) * pairs,
        )
        given = lessons.lessons(asked, Arm.PAIR)
        assert lessons.counts(given, asked.groups) == {"R-OO": expected}


def test_counterfactual_libraries_learn_what_their_facts_compose_to():
    asked = asked_of(nobody={(0, 1)})
    plain = learned_from(lessons.lessons(asked, Arm.SHUFFLED), asked)
    moved = learned_from(lessons.lessons(asked, Arm.COUNTERFACTUAL1), asked)
    assert (0, 3, 4) in plain[0, 0]
    assert (0, 3, 3) in moved[0, 0]
    # Who has no telling answer is not learned from: 1 itself, or whose answer 1's is.
    assert 1 not in [x for _, x, _ in plain[0, 0]]
    assert 2 not in [x for _, x, _ in moved[0, 1]]


def test_what_was_learned_comes_back_in_the_order_of_the_groups():
    asked = asked_of()
    given = lessons.lessons(asked, Arm.PAIR)
    assert given.groups.tolist() == [[0, 2, 3], [1, 1, 1]]
    marks = np.arange(2 * 3 * 2).reshape(2, 3, 2)
    found = lessons.by_half(given, asked.groups, {"x": marks})["x"]
    want = [
        [marks[c, k, h] for c, k in ((0, 0), (1, 0), (0, 1), (0, 2))] for h in (0, 1)
    ]
    np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize("half", [0, 1])
def test_examples_are_of_the_other_half_only(half):
    asked = asked_of(nobody={(2, 0)})
    found = lessons.examples(asked, Arm.PAIR)
    for g, group in enumerate(asked.groups):
        used = np.asarray(found.weights[g, half]) > 0
        others = [i for i in range(group.size) if i % 2 != half and (g, i) != (2, 0)]
        names = np.asarray(found.tokens[g, half, :, 0])[used].tolist()
        assert names == [10 * g + i for i in others]
        targets = np.asarray(found.targets[g, half])[used].tolist()
        assert targets == [10 * g + i + 1 for i in others]


def test_a_leaderboard_counts_the_rows_of_the_cells_that_it_pools():
    def block(arm, method, seed, **rows):
        at = Block(1.0, seed, arm, method)
        cells = {name.replace("_", "-"): span for name, span in rows.items()}
        return {at: [Outcome(None, {"rows": cells})]}

    log = Log()
    log.outcomes |= block(Arm.PAIR, Method.CAT, 0, R_OO=[9, 11], R_II=[1, 99])
    log.outcomes |= block(Arm.PAIR, Method.CAT, 1, R_OO=[10, 12], F_OO=[8, 9])
    log.outcomes |= block(Arm.TRIPLE, Method.CAT, 0, R_OO=[2, 2])
    log.outcomes |= {Block(1.0, 0, Arm.PAIR, Method.MEAN): [Outcome(None, {})]}
    log.outcomes |= {
        Block(0.5, 0, Arm.PAIR, Method.CAT): [Outcome(None, {"rows": {"R-OO": [1, 1]}})]
    }
    assert summary.learned_rows(log, 1.0) == {"cat": [8, 12]}
    assert summary.learned_rows(log, 0.5) == {"cat": [1, 1]}
