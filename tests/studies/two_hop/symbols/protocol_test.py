"""A whole study, once, in small: its rows, its summary, and what may go wrong."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from jaxlora.evaluate import predictions, schema, statistics
from jaxlora.evaluate.schema import Arm, Cell, Method, Metric, Split
from jaxlora.studies.harness.config import from_plain
from jaxlora.studies.two_hop import arms, judge
from jaxlora.studies.two_hop import config as common
from jaxlora.studies.two_hop.rows import Block
from jaxlora.studies.two_hop.symbols import bases, protocol
from jaxlora.studies.two_hop.symbols.config import TwoHopConfig

PREDICTIONS = common.predictions("")
CELLS = [str(cell) for cell in Cell]
CRITERIA = len(protocol.SPLITS)
PLAN = [(str(x), str(m)) for x, m in arms.plan(("mean",))]
FORMATS = {
    Split.WRITTEN: "written bridge",
    Split.WRITTEN_BRIDGE: "written bridge",
    Split.CONTEXT: "facts in context",
}
CONTROLS = (
    *(Arm.BASE, Arm.HOP1, Arm.HOP2, Arm.RANDOM, Arm.PERMUTED, Arm.SHUFFLED),
    *(Arm.JOINT, Arm.FULL, Arm.TARGET, Arm.DOCUMENT),
)
DIRECT = (Split.HOP1, Split.HOP2, Split.TWO_HOP, Split.FAMILIAR_TWO_HOP)


def table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the cell in one column, and the condition parsed."""
    made = rows.copy()
    made["cell"] = made["familiarity"].where(
        made["familiarity"] == "", made["familiarity"] + "-" + made["knows"]
    )
    made["condition"] = [json.loads(text) for text in made["condition"]]
    return made


@pytest.fixture(scope="module")
def table(ran):
    return table_of(ran.results.rows)


def pick(table, *, plain=True, **wanted):
    """Rows with these values; ``plain`` leaves out those of a part of the people."""
    for name, value in wanted.items():
        table = table[table[name] == value]
    if plain:
        table = table[[c.keys() == {"coverage"} for c in table["condition"]]]
    return table


def test_rows_have_the_columns_and_words_of_the_schema(ran):
    rows = ran.results.rows
    assert tuple(rows.columns) == schema.COLUMNS
    for name, kind in (
        ("library", Arm),
        ("method", Method),
        ("split", Split),
        ("metric", Metric),
    ):
        assert set(rows[name]) <= {member.value for member in kind}
    assert set(rows["study"]) == {"two-hop"}
    assert set(rows["seed"]) == {0, 1, "all"}
    assert set(rows["familiarity"] + "-" + rows["knows"]) == {"-", *CELLS}
    for text in rows["condition"]:
        assert text == json.dumps(json.loads(text), sort_keys=True)


def test_no_measurement_is_told_twice(ran):
    names = [name for name in schema.COLUMNS if name not in ("value", "n", "lo", "hi")]
    assert not ran.results.rows.duplicated(names).any()


def test_the_file_holds_the_rows(ran):
    written = (ran.out / "results.csv").read_text()
    assert written == ran.results.rows.to_csv(index=False)


@pytest.mark.parametrize("seed", [0, 1, "all"])
def test_every_block_is_asked_in_every_cell(table, ran, seed):
    plan = arms.plan(ran.config.methods)
    for split in (Split.HOP1, Split.HOP2, Split.TWO_HOP, Split.FAMILIAR_TWO_HOP):
        found = pick(table, seed=seed, split=split, metric=Metric.ACCURACY)
        found = found[found["cell"] != ""]
        places = set(zip(found["library"], found["method"], found["cell"], strict=True))
        assert places == {(str(x), str(m), c) for x, m in plan for c in CELLS}
        assert len(found) == len(places)


def test_plan_holds_every_library_and_method(ran):
    plan = arms.plan([str(m) for m in Method if m is not Method.NONE])
    assert len(plan) == len(set(plan))
    assert plan[0] == (Arm.BASE, Method.NONE)
    assert {library for library, _ in plan} == {*arms.MEMBERS, Arm.BASE, Arm.FULL} - {
        Arm.REVERSED
    }
    placed = arms.plan(["mean"], placed=True)
    assert set(placed) - set(plan) == {(Arm.REVERSED, Method.MEAN)}
    assert {method for _, method in plan} == set(Method)
    missing = {(x, Method.ORACLE) for x in (Arm.TRIPLE, Arm.TRIPLE_OTHERS)}
    assert not missing & set(plan)


@pytest.mark.parametrize("cell", CELLS)
def test_every_control_is_measured_in_every_cell(table, ran, cell):
    two_hop = pick(table, cell=cell, split=Split.TWO_HOP, metric=Metric.ACCURACY)
    for library in CONTROLS:
        found = pick(two_hop, library=library)
        assert set(found["seed"]) == {0, 1, "all"}, library
    for library in (Arm.RANDOM, Arm.PERMUTED, Arm.SHUFFLED):
        assert set(pick(two_hop, library=library)["method"]) == set(ran.config.methods)
    context = pick(table, cell=cell, split=Split.CONTEXT, library=Arm.BASE)
    assert len(context) > 0


@pytest.mark.parametrize("library", judge.COMPARED, ids=str)
def test_every_combination_is_paired_with_every_control(table, ran, library):
    found = pick(table, plain=False, library=library, metric=Metric.DIFFERENCE)
    against = {}
    for row in found.itertuples():
        assert (row.seed, row.n) == ("all", 6)
        assert row.lo <= row.value <= row.hi
        against.setdefault((row.cell, row.method), set()).add(row.condition["against"])
    expected = {"base [none]", "A->B [none]", "B->C [none]"}
    for (_, method), names in against.items():
        same = {f"{x} [{method}]" for x in judge.SAME_METHOD}
        pair = {f"2-combination [{method}]"} if library is not Arm.PAIR else set()
        if library is Arm.TRIPLE_OTHERS:
            pair.add("A->C of others [none]")
        assert names == expected | same | pair
    methods = [m for m in ran.config.methods if (library, m) in arms.plan((m,))]
    assert len(against) == len(CELLS) * len(methods) > 0


def test_pooled_values_are_means_over_all_items(table):
    keys = ["cell", "library", "method", "split", "metric"]
    found = pick(table[table["cell"] != ""])
    others = [Metric.ONE_OF_N, Metric.MAJORITY, Metric.ROUTE_CERTAINTY]
    found = found[~found["metric"].isin(others)]
    seeds = found[found["seed"] != "all"]
    total = (seeds["value"].astype(float) * seeds["n"]).groupby(
        [seeds[key] for key in keys]
    )
    expected = total.sum() / seeds.groupby(keys)["n"].sum()
    pooled = found[found["seed"] == "all"].set_index(keys)
    assert set(pooled.index) == set(expected.index)
    np.testing.assert_allclose(
        pooled["value"].astype(float), expected[pooled.index], atol=2e-6
    )


def test_shares_of_one_seed_have_wilson_intervals(table):
    found = pick(table, seed=0, metric=Metric.ACCURACY, split=Split.FAMILIAR_TWO_HOP)
    found = found[found["cell"] != ""]
    assert len(found) > 0
    for row in found.itertuples():
        assert row.n == 8
        x = statistics.wilson(round(row.value * row.n), row.n)
        assert (row.value, row.lo, row.hi) == pytest.approx(x[:3], abs=1e-6)
    losses = pick(table, seed=0, metric=Metric.LOSS)
    assert losses["lo"].isna().all()


def test_errors_and_right_answers_add_up(table):
    found = pick(table, split=Split.TWO_HOP)
    found = found[found["metric"].isin([Metric.ACCURACY, *schema.ERROR_METRICS])]
    found = found[found["cell"] != ""]
    keys = ["seed", "cell", "library", "method"]
    total = found.groupby(keys)["value"].agg(["sum", "size"])
    assert (total["size"] == 5).all()
    np.testing.assert_allclose(total["sum"].astype(float), 1, atol=1e-5)


def test_the_base_says_no_old_answers_and_others_may(table):
    old = pick(table, metric=Metric.OLD, seed="all")
    assert not pick(old, library=Arm.BASE)["value"].any()
    # After five steps most experts still say what the base says.
    assert pick(old, library=Arm.HOP1)["value"].sum() > 0


def test_chance_and_guesses_are_beside_the_accuracy(table):
    for metric in (Metric.CHANCE, Metric.ONE_OF_N, Metric.MAJORITY):
        found = pick(table, seed="all", split=Split.TWO_HOP, metric=metric)
        assert set(found["cell"]) == set(CELLS)
    one_of = pick(table, seed="all", metric=Metric.ONE_OF_N)
    np.testing.assert_allclose(one_of["value"].astype(float), 1 / 3, atol=1e-6)


def test_criteria_are_rows_and_results(table, ran):
    splits = {*protocol.SPLITS.values(), Split.OWN}
    for seed in (0, 1):
        found = pick(table, cell="", seed=seed, library=Arm.BASE)
        assert set(pick(found, metric=Metric.ACCURACY)["split"]) == splits
        passed = pick(found, metric=Metric.PASSED)
        assert passed["value"].tolist() == [1.0] * (CRITERIA + 1)
        assert pick(found, metric=Metric.STEPS)["value"].tolist() == [10]
        assert len(pick(found, metric=Metric.PHI)) == 1
    criteria = ran.results.summary["criteria"]
    assert [g["seed"] for g in criteria] == [0] * (CRITERIA + 1) + [1] * (CRITERIA + 1)
    required = {g["criterion"] for g in criteria if g["required"]}
    assert required == {*bases.CRITERIA, "experts' own facts"}


def test_the_summary_says_where_the_numbers_are_from(ran):
    found = json.loads((ran.out / "results.json").read_text())
    assert found["study"] == "two-hop"
    assert from_plain(TwoHopConfig, found["config"]) == ran.config
    assert found["failed_seeds"] == []
    assert found["versions"].keys() >= {"jaxlora", "python", "jax", "flax", "numpy"}
    assert found["device"]
    assert "git_revision" in found
    claims = protocol.claimed(ran.config)
    assert set(claims) < set(predictions.load(PREDICTIONS))
    assert found["predictions"]["digest"] == predictions.digest(claims)
    assert len(found["predictions"]["outcomes"]) >= len(claims)
    timings = found["timings"]
    stages = ("compile_s", "pretrain_s", "experts_s", "evaluate_s", "total_s")
    assert all(timings[stage] > 0 for stage in stages)
    parts = timings["pretrain_s"] + timings["experts_s"] + timings["evaluate_s"]
    assert parts <= timings["total_s"] + 0.3
    assert timings["blocks_resumed"] == 0


def test_every_combination_has_a_verdict(ran):
    found = ran.results.summary["verdicts"]
    judged = {(v["cell"], v["library"], v["method"]) for v in found}
    plan = [x for x in arms.plan(ran.config.methods) if x[0] in judge.JUDGED]
    assert judged == {(c, str(x), str(m)) for c in CELLS for x, m in plan}
    assert len(found) == len(judged)
    assert all(v["p_adjusted"] is not None for v in found)


def test_experts_own_facts_are_on_record_for_every_judged_library(ran):
    own = ran.results.summary["own_facts"]
    assert {o["library"] for o in own} >= {str(x) for x in judge.JUDGED}
    assert all(0 <= o["value"] <= 1 for o in own)


def test_the_oracles_routes_are_on_record_for_every_library_and_control(ran):
    found = ran.results.summary["oracle"]
    plan = [str(x) for x, method in arms.plan(("oracle",)) if method == "oracle"]
    assert set(found) == {f"coverage 1, seed {s}, {x}" for s in (0, 1) for x in plan}
    halves = [f"{cell}, half {half}" for cell in CELLS for half in (0, 1)]
    for note in found.values():
        assert list(note) == ["search", *halves]
        assert note["search"]["tried"] > 10
        assert note["search"]["routes"] == 3 ** (2 * 3)
        # Of three people, two are even: they choose for the one that is odd.
        assert [note[half]["of"] for half in halves] == [1, 2] * len(CELLS)
    hows = [note["search"] | {"tried": 0} for note in found.values()]
    assert all(how == hows[0] for how in hows)


def test_progress_goes_up_to_its_total(ran):
    plan = len(arms.plan(ran.config.methods))
    for stage, total in (("pretrain", 10), ("experts", 60), ("questions", plan)):
        told = [(done, of) for name, done, of, _ in ran.progress if name == stage]
        assert {of for _, of in told} == {total}
        halves = [done for done, _ in told]
        assert halves.count(total) >= 2  # once a seed
        assert all(done <= total for done in halves)


def with_criteria(config, **criteria):
    return dataclasses.replace(
        config, pretrain=dataclasses.replace(config.pretrain, **criteria)
    )


@pytest.mark.slow
def test_a_failed_seed_is_told_and_the_others_go_on(ran, tmp_path):
    gate = {
        g["seed"]: g["value"]
        for g in ran.results.summary["criteria"]
        if g["criterion"] == "held-out two-hop"
    }
    assert gate[0] != gate[1], "the seeds must differ for this test"
    failed, passed = sorted(gate, key=gate.__getitem__)
    config = with_criteria(ran.config, min_two_hop=sum(gate.values()) / 2)
    config = dataclasses.replace(config, methods=("mean",))
    results = protocol.run(config, tmp_path / "out", ran.cache)
    assert results.failed
    assert results.summary["failed_seeds"] == [f"{failed} (coverage 1)"]
    table = table_of(results.rows)
    gates = pick(table, metric=Metric.PASSED, split=Split.FAMILIAR_TWO_HOP)
    assert dict(zip(gates["seed"], gates["value"], strict=True)) == {
        failed: 0.0,
        passed: 1.0,
    }
    combined = pick(table, library=Arm.PAIR, metric=Metric.ACCURACY)
    assert set(combined["seed"]) == {passed, "all"}
    pooled = pick(combined, seed="all", split=Split.TWO_HOP)
    assert set(pooled["n"]) == {3}
    assert all(v["reason"] for v in results.summary["verdicts"])
    assert {v["label"] for v in results.summary["verdicts"]} != {"invalid"}


def test_if_every_seed_fails_the_verdict_is_invalid(ran, tmp_path):
    results = protocol.run(
        with_criteria(ran.config, min_copy=1.0), tmp_path / "out", ran.cache
    )
    failed = ["0 (coverage 1)", "1 (coverage 1)"]
    assert results.summary["failed_seeds"] == failed
    verdicts = results.summary["verdicts"]
    assert [v["cell"] for v in verdicts] == CELLS
    assert {(v["label"], v["cause"]) for v in verdicts} == {("invalid", "base")}
    table = table_of(results.rows)
    missing = pick(table, plain=False, metric=Metric.AVAILABLE)
    reasons = {condition["reason"] for condition in missing["condition"]}
    assert reasons == {"no base met its criteria"}
    assert set(table["library"]) - set(missing["library"]) <= {"base"}
    assert len(pick(table, metric=Metric.PASSED)) == 2 * CRITERIA
    assert not (tmp_path / "out" / "blocks").exists()


@pytest.mark.slow
def test_a_control_whose_format_failed_is_a_row_that_says_so(ran, small, tmp_path):
    results = protocol.run(
        with_criteria(small, min_format=1.0), tmp_path / "out", ran.cache
    )
    assert not results.failed
    table = table_of(results.rows)
    rows = pick(table, plain=False, metric=Metric.AVAILABLE)
    rows = rows[[c.keys() == {"coverage", "reason"} for c in rows["condition"]]]
    assert not rows["value"].any()
    places = {
        (str(library), str(method), str(split))
        for library, method in arms.plan(small.methods)
        for split in (*FORMATS, *(DIRECT if library is Arm.DOCUMENT else ()))
    }
    for seed in (0, "all"):
        for cell in CELLS:
            found = pick(rows, plain=False, seed=seed, cell=cell)
            names = zip(found["library"], found["method"], found["split"], strict=True)
            assert sorted(names) == sorted(places)
    for split, name in FORMATS.items():
        reasons = {c["reason"] for c in rows[rows["split"] == split]["condition"]}
        assert reasons == {f"the criterion of '{name}' was not met"}
    pooled = pick(table, seed="all", metric=Metric.ACCURACY)
    assert len(pick(pooled, split=Split.TWO_HOP)) > 0
    for split in FORMATS:
        assert len(pick(pooled, split=split)) == 0
    assert len(pick(pooled, library=Arm.DOCUMENT)) == 0


def test_with_all_formats_learned_nothing_is_unavailable(table):
    assert len(pick(table, plain=False, metric=Metric.AVAILABLE)) == 0


def test_the_block_files_are_those_of_the_plan(ran):
    expected = {
        Block(1.0, seed, *names).path(ran.out)
        for seed in (0, 1)
        for names in arms.plan(ran.config.methods)
    }
    assert set((ran.out / "blocks").iterdir()) == expected


# Interrupted studies: in this file, so that one process compiles for all of it.


@pytest.fixture(scope="module")
def finished(small, ran, tmp_path_factory):
    """The folder of a run that nothing interrupted, of what `ran` has cached."""
    out = tmp_path_factory.mktemp("finished") / "out"
    protocol.run(small, out, ran.cache)
    return out


def csv(out: Path) -> bytes:
    return (out / "results.csv").read_bytes()


def stop_before(block: int):
    def progress(stage, done, total, text):
        if (stage, done) == ("questions", block):
            raise KeyboardInterrupt

    return progress


def files(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (out / "blocks").iterdir()}


def test_no_block_is_computed_twice_and_the_rows_are_identical(
    small, ran, finished, tmp_path, counted
):
    out = tmp_path / "out"
    kept: dict[str, int] = {}
    for stop in (1, 6, len(PLAN) - 1):
        with pytest.raises(KeyboardInterrupt):
            protocol.run(small, out, ran.cache, stop_before(stop))
        assert counted == PLAN[:stop]
        assert len(files(out)) == stop
        assert files(out).items() >= kept.items()
        kept = files(out)
    results = protocol.run(small, out, ran.cache)
    assert counted == PLAN
    assert files(out).items() >= kept.items()
    assert results.summary["timings"]["blocks_resumed"] == len(PLAN) - 1
    assert csv(out) == csv(finished)
    # A finished study asks nothing again, and says the same.
    before = files(out)
    again = protocol.run(small, out, ran.cache)
    assert counted == PLAN
    assert files(out) == before
    assert csv(out) == csv(finished)
    for name in ("verdicts", "criteria", "own_facts", "predictions"):
        assert again.summary[name] == results.summary[name]


def test_a_damaged_or_missing_block_is_computed_again(
    small, ran, finished, tmp_path, counted
):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    plan = [Block(1.0, 0, *names) for names in arms.plan(("mean",))]
    damaged = plan[4].path(out)
    damaged.write_bytes(damaged.read_bytes()[:-40])
    plan[9].path(out).unlink()
    protocol.run(small, out, ran.cache)
    assert counted == [PLAN[4], PLAN[9]]
    assert csv(out) == csv(finished)
