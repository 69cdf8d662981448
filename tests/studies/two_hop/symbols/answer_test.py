"""Held-out experts answer only for people whom they were not trained on."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.studies.harness import Outcome
from jaxlora.studies.two_hop import arms
from jaxlora.studies.two_hop.arms import MEMBERS
from jaxlora.studies.two_hop.symbols import answer, expert_rows, experts, oracle
from jaxlora.studies.two_hop.symbols.config import TwoHopConfig
from jaxlora.studies.two_hop.symbols.recipes import ExpertsConfig, kinds
from jaxlora.tasks.two_hop import world
from jaxlora.tasks.two_hop.experts import Expert, groups

SIZES = {("R-OO", 0): 4, ("R-OO", 1): 7}
SIZES_OF_WORLD = world.WorldConfig(
    entities=16, relations=6, pairs=1, people=3, context_rows=8
)
SPLITS = (Split.TWO_HOP, Split.WRITTEN_BRIDGE, Split.FAMILIAR_TWO_HOP)


def setting():
    groups = [
        SimpleNamespace(cell=cell, pair=pair, size=n)
        for (cell, pair), n in SIZES.items()
    ]
    own = {expert: np.ones(len(groups)) for expert in Expert}
    asked = SimpleNamespace(groups=groups)
    return answer.Setting(None, SimpleNamespace(accuracy=own), asked)


def asked_of(first_half: bool) -> pd.DataFrame:
    """One item a person and split, that says which half's expert was asked."""
    parts = [
        pd.DataFrame(
            {
                "cell": cell,
                "pair": pair,
                "person": np.arange(n),
                "split": str(split),
                "predicted": int(first_half),
            }
        )
        for (cell, pair), n in SIZES.items()
        for split in SPLITS
    ]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("library", arms.OTHERS, ids=str)
def test_each_half_is_asked_of_the_expert_of_the_other(library):
    found = answer._of_others(setting(), library, asked_of)
    for (cell, pair), n in SIZES.items():
        for split in (Split.TWO_HOP, Split.WRITTEN_BRIDGE):
            mine = found[
                (found["cell"] == cell)
                & (found["pair"] == pair)
                & (found["split"] == str(split))
            ]
            # The expert of the first half answers for the second, and the reverse.
            assert mine["predicted"].tolist() == [0] * (n // 2) + [1] * (n - n // 2)
    familiar = found[found["split"] == str(Split.FAMILIAR_TWO_HOP)]
    assert (familiar["predicted"] == 0).all()
    assert len(found) == len(asked_of(False))
    assert found.dtypes.equals(asked_of(False).dtypes)


@pytest.mark.parametrize("library", [Arm.PAIR, Arm.TRIPLE], ids=str)
def test_other_libraries_are_asked_once(library):
    found = answer._of_others(setting(), library, asked_of)
    pd.testing.assert_frame_equal(found, asked_of(False))


def test_a_librarys_own_accuracy_is_the_lowest_of_its_members():
    made = setting()
    made.experts.accuracy[Expert.HOP1] = np.array([1.0, 0.75])
    made.experts.accuracy[Expert.TARGET_FIRST] = np.array([0.5, 1.0])
    made.experts.accuracy[Expert.TARGET] = np.array([0.25, 1.0])
    assert answer._own(made, Arm.HOP2) == {"R-OO": 1.0}
    assert answer._own(made, Arm.PAIR) == {"R-OO": 0.75}
    assert answer._own(made, Arm.TRIPLE) == {"R-OO": 0.25}
    # Both halves take part, though one is named in the library.
    assert answer._own(made, Arm.TRIPLE_OTHERS) == {"R-OO": 0.5}
    assert answer._own(made, Arm.TARGET_OTHERS) == {"R-OO": 0.5}


def test_the_oracle_says_too_what_its_experts_hold(monkeypatch):
    """Else a study of the oracle alone would call every expert untrained."""
    found = Outcome(asked_of(False), {"oracle": {"R-OO, half 0": {}}})
    monkeypatch.setattr(answer, "_oracle", lambda *_: found)
    notes = answer.answer(setting(), Arm.PAIR, Method.ORACLE).notes
    assert notes == {"oracle": {"R-OO, half 0": {}}, "own": {"R-OO": 1.0}}


def test_every_library_of_the_oracle_goes_through_the_same_search(monkeypatch):
    """Random experts above all: what it finds there is what chance finds."""
    libraries_of = [x for x, method in arms.plan(("oracle",)) if method == "oracle"]
    assert {Arm.PAIR, Arm.RANDOM, Arm.PERMUTED, Arm.SHUFFLED} <= {*libraries_of}
    calls = []

    def search(base, stacked, examples, groups, how, progress):
        calls.append((stacked, examples, how))
        return "routes"

    monkeypatch.setattr(answer.oracle, "search", search)
    monkeypatch.setattr(answer.oracle, "answers", lambda *_: "answers")
    monkeypatch.setattr(answer.oracle, "notes", lambda *_: {"search": {}})
    monkeypatch.setattr(answer.oracle, "rows", lambda *_: {"R-OO": [3, 4]})
    monkeypatch.setattr(answer.lessons, "examples", lambda asked, x: x)
    monkeypatch.setattr(answer.libraries, "stacked", lambda experts, library: library)
    monkeypatch.setattr(answer, "_items", lambda *_: asked_of(False))
    made = setting()
    made.experts.base = None
    config = TwoHopConfig(oracle_starts=9, oracle_sweeps=2, oracle_none=False)
    for library in libraries_of:
        answer.answer(made._replace(config=config), library, Method.ORACLE)
    how = oracle.Search(mode="local", starts=9, sweeps=2, none=False)
    assert calls == [(library, library, how) for library in libraries_of]


def test_libraries_hold_the_experts_that_their_names_say():
    assert MEMBERS[Arm.PAIR] == (Expert.HOP1, Expert.HOP2)
    assert MEMBERS[Arm.TRIPLE] == (Expert.HOP1, Expert.HOP2, Expert.TARGET)
    assert MEMBERS[Arm.SHUFFLED] == (Expert.COUNTER1, Expert.COUNTER2)
    assert MEMBERS[Arm.COUNTERFACTUAL1] == (Expert.COUNTER1, Expert.HOP2)
    assert MEMBERS[Arm.COUNTERFACTUAL2] == (Expert.HOP1, Expert.COUNTER2)
    for library in arms.OTHERS:
        assert Expert.TARGET not in MEMBERS[library]
    assert not {Arm.BASE, Arm.FULL} & set(MEMBERS)


def test_every_expert_trains_in_exactly_one_program():
    made = world.generate(SIZES_OF_WORLD, 0)
    base = SimpleNamespace(world=made)
    every = [*dict.fromkeys(kinds(ExpertsConfig()).values())]
    programs = expert_rows.programs(base, groups(made), every, 0)
    trained = [kind for some in programs for kind in some]
    assert len(trained) == len(set(trained)) == len(every)
    assert set(trained) == set(every)
    reversed_ = {Expert.HOP1_REVERSED, Expert.HOP2_REVERSED}
    assert {kind.expert for kind in every} == set(Expert) - reversed_


def test_keys_of_experts_differ_and_do_not_depend_on_the_program():
    import jax

    def keys(names, size=6):
        made = jax.random.key_data(experts.keys_of(1, names, size))
        return np.asarray(made).reshape(len(names), size, -1)

    together = keys([Expert.HOP1, Expert.HOP2, Expert.JOINT])
    np.testing.assert_array_equal(together[1], keys([Expert.HOP2])[0])
    flat = together.reshape(-1, together.shape[-1])
    assert len(np.unique(flat, axis=0)) == len(flat)
