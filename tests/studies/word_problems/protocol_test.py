"""The word-problem study end to end: rows, resuming, and bases that fail."""

import dataclasses
import json
import shutil

import pytest

from jaxlora.evaluate.schema import Arm, Metric, Split
from jaxlora.studies.word_problems import answer, protocol


def conditions(rows):
    return rows["condition"].map(json.loads)


def rows_of(ended, **where):
    rows = ended.rows
    for column, value in where.items():
        rows = rows[rows[column] == str(value)]
    return rows


def test_every_regime_is_judged_at_every_level(ended):
    asked = {
        (x["overlap"], x["asked"], x["level"], x["method"])
        for x in ended.summary["verdicts"]
    }
    both, direct = str(Split.BOTH), str(Split.ANSWER_BOTH)
    assert asked == {
        (share, split, level, "mean")
        for share in (0.0, 1.0)
        for split, level in ((both, 2), (both, 3), (direct, 2))
    }
    assert not ended.failed


def test_every_combination_has_its_law(ended):
    laws = {
        (x["overlap"], x["library"], x["kept"], x["level"])
        for x in ended.summary["laws"]
    }
    assert laws == {
        (share, str(arm), kept, level)
        for share in (0.0, 1.0)
        for arm in (Arm.JOINT, Arm.PAIR, Arm.RANDOM)
        for kept, level in (
            ("alone", 2),
            ("in chains", 2),
            ("alone", 3),
            ("in chains", 3),
            ("answer only", 2),
        )
    }
    products = rows_of(ended, library=Arm.PAIR, metric=Metric.PRODUCT)
    assert len(products) == 2 * 5


def test_rows_name_what_was_trained_and_asked(ended):
    pair = rows_of(ended, library=Arm.PAIR, metric=Metric.ACCURACY, split=Split.BOTH)
    needed = {"base", "known unary", "regime", "overlap", "first rows", "second rows"}
    assert all({*needed, "asked in", "level"} <= set(x) for x in conditions(pair))
    assert set(pair["seed"].astype(str)) == {"70", "71", "all"}
    every = pair[pair["seed"].astype(str) == "all"]
    # Three pairs of ten questions, on two bases, at two levels under two regimes.
    level = conditions(every).map(lambda x: x["level"])
    assert set(every["n"][level == 2]) == {2 * 3 * 10}
    assert len(every) == 4
    assert every["lo"].le(every["value"]).all()


def test_full_fine_tuning_and_practice_are_asked_at_full_overlap_only(ended):
    for arm in (Arm.FULL, Arm.PRACTISED):
        assert {x["overlap"] for x in conditions(rows_of(ended, library=arm))} == {1.0}
    # Of three operations no two are others.
    assert not len(rows_of(ended, library=Arm.PRACTISED_OTHERS))


def test_criteria_of_both_bases_are_recorded(ended):
    records = ended.summary["criteria"]
    assert {x["seed"] for x in records} == {70, 71}
    assert all(x["passed"] for x in records)
    assert {x["required"] for x in records} == {True, False}
    passed = rows_of(ended, metric=Metric.PASSED)
    assert len(passed) == len(records)


def test_experts_accuracies_and_timings_are_recorded(ended):
    libraries = {x["library"] for x in ended.summary["own_facts"]}
    assert {str(Arm.PAIR), str(Arm.JOINT), str(Arm.SHUFFLED)} <= libraries
    assert ended.summary["refused"] == []
    assert {"pretrain_s", "experts_s", "evaluate_s"} <= set(ended.summary["timings"])


def test_predictions_are_compared_with_rows_of_their_regime(ended):
    """A base of ten steps solves next to nothing; claims on no row are not measured."""
    outcomes = ended.summary["predictions"]["outcomes"]
    assert [x["outcome"] for x in outcomes] == ["failed", "held", "not measured"]


def test_a_run_that_was_cut_ends_with_the_same_bytes(ended, tiny, folder, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(folder / "out", out)
    blocks = sorted((out / "blocks").rglob("*.json"))
    lost = blocks[::5]
    for path in lost:
        path.unlink()
    again = protocol.run(tiny, out, folder / "cache")
    assert again.summary["timings"]["blocks_resumed"] == len(blocks) - len(lost)
    for name in ("results.csv", *(path.relative_to(out) for path in lost)):
        assert (out / name).read_bytes() == (folder / "out" / name).read_bytes()


def test_a_finished_run_is_read_without_asking(ended, tiny, folder, monkeypatch):
    monkeypatch.setattr(answer, "answer", None)
    monkeypatch.setattr(protocol.experts, "train", None)
    again = protocol.run(tiny, folder / "out", folder / "cache")
    assert again.rows.equals(ended.rows)


def test_another_configuration_is_refused(ended, tiny, folder):
    other = dataclasses.replace(tiny, resamples=51)
    with pytest.raises(ValueError, match="resamples is 50 there and 51 here"):
        protocol.run(other, folder / "out", folder / "cache")


def test_a_base_below_its_criterion_is_logged_and_asked_nothing(
    small, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(answer, "answer", None)
    recipe = dataclasses.replace(small.pretrain, min_known=1.0)
    hard = dataclasses.replace(small, pretrain=recipe)
    ended = protocol.run(hard, tmp_path / "out", folder / "cache")
    assert ended.failed == ["70 (headline, 3 unary operations)"]
    assert ended.summary["failed_seeds"] == ended.failed
    assert ended.summary["verdicts"] == []
    assert not all(x["passed"] for x in ended.summary["criteria"])
    assert set(ended.rows["metric"]) <= {
        str(x) for x in (Metric.ACCURACY, Metric.PASSED, Metric.AVAILABLE)
    }
