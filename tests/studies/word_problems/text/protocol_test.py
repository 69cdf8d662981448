"""The whole study on a tiny checkpoint: complete rows, resume, files, bad inputs."""

import dataclasses
import json
from typing import NamedTuple

import pandas as pd
import pytest

from jaxlora.evaluate.schema import COLUMNS, Arm
from jaxlora.report import word_problems_text as tables
from jaxlora.studies.harness import Results
from jaxlora.studies.harness.config import read
from jaxlora.studies.word_problems.text import answer, design, learning, protocol
from jaxlora.studies.word_problems.text.config import (
    STUDY,
    AskConfig,
    ProblemsConfig,
)


class Ran(NamedTuple):
    """A finished study."""

    results: Results
    out: object
    cache: object
    config: ProblemsConfig


@pytest.fixture(scope="module")
def ran(tiny, files, tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    tests = ("english", str(files / "sets.jsonl"))
    config = dataclasses.replace(tiny, tests=tests)
    results = protocol.run(config, root / "out", root / "cache")
    return Ran(results, root / "out", root / "cache", config)


@pytest.fixture(scope="module")
def table(ran):
    return pd.read_csv(ran.out / "results.csv", keep_default_na=False)


def test_every_system_has_every_level_and_test(table, ran):
    assert tuple(table.columns) == COLUMNS
    assert set(table["study"]) == {STUDY}
    pooled = table[(table["seed"] == "all") & (table["metric"] == "accuracy")]
    conditions = [json.loads(x) for x in pooled["condition"]]
    systems = zip(pooled["library"], pooled["method"], conditions, strict=True)
    known = {
        (str(arm), str(method), " + ".join(x.formats))
        for x in design.regimes(ran.config)
        for arm, method in design.plan(ran.config, x)
    }
    levels = {("english", x) for x in ("easy", "medium", "hard")} | {("sets", "all")}
    got = {
        (arm, method, x.get("format"), x["test"], x["level"])
        for arm, method, x in systems
    }
    wanted = {(*x, *y) for x in {*known, ("base", "none", None)} for y in levels}
    assert got == wanted


def test_answers_of_files_have_a_spread_over_sets(table):
    spread = table[table["metric"] == "standard deviation over test sets"]
    assert set(spread["n"]) == {3}
    assert {json.loads(x)["test"] for x in spread["condition"]} == {"sets"}
    assert "base" in set(spread["library"])


def test_combinations_are_compared_with_what_there_is(table):
    chosen = table[table["metric"] == "paired difference"]
    assert set(chosen["library"]) == {str(Arm.PAIR)}
    against = {json.loads(x)["against"].split(" [")[0] for x in chosen["condition"]}
    assert against == {
        "base",
        "few-shot",
        "expert A",
        "expert B",
        "joint",
        "expert of the hard level",
        "random",
    }


def test_results_repeat_the_run(ran):
    assert read(ProblemsConfig, ran.out / "results.json", STUDY) == ran.config
    summary = json.loads((ran.out / "results.json").read_text())
    assert len(summary["criteria"]) == 4
    assert summary["failed"] == []
    assert {x["system"] for x in summary["written"]} >= {"base", "2-combination"}


def test_tables_have_a_line_for_every_system(ran):
    grid = tables.solved_grid(ran.results.rows)
    counts = [len(list(design.plan(ran.config, x))) for x in design.regimes(ran.config)]
    assert len(grid.body) == sum(counts) + len(counts) + 2
    assert grid.header == (
        "",
        "english easy",
        "english medium",
        "english hard",
        "sets all",
    )
    assert "–" not in {word for line in grid.body for word in line[1:]}
    beyond = tables.difference_grid(ran.results.rows)
    assert beyond.header == ("", "mean", "arrow")
    assert ("levels: plain, english hard",) in beyond.body
    assert ("formats: plain + python, sets all",) in beyond.body


def test_a_run_goes_on_where_it_stopped(ran, monkeypatch):
    before = (ran.out / "results.csv").read_bytes()
    block = design.Regime(("plain",)).block(0, Arm.HARD).path(ran.out)
    assert block.is_file()
    block.unlink()
    asked, original = [], answer.answer

    def counted(setting, regime, arm, method):
        asked.append(arm)
        return original(setting, regime, arm, method)

    monkeypatch.setattr(answer, "answer", counted)
    protocol.run(ran.config, ran.out, ran.cache)
    assert asked == [Arm.HARD]
    assert (ran.out / "results.csv").read_bytes() == before


def test_a_finished_run_loads_nothing(ran, monkeypatch):
    monkeypatch.setattr(protocol, "load", lambda *_: pytest.fail("it was loaded"))
    monkeypatch.setattr(learning, "learn", lambda *_: pytest.fail("it was trained"))
    faster = dataclasses.replace(ran.config.ask, batch=3)
    config = dataclasses.replace(ran.config, ask=faster)
    again = protocol.run(config, ran.out, ran.cache)
    assert again.summary["timings"]["blocks_resumed"] > 20


def test_another_configuration_needs_another_folder(ran):
    other = dataclasses.replace(ran.config, rows=5)
    with pytest.raises(ValueError, match="rows is 6 there and 5 here"):
        protocol.run(other, ran.out, ran.cache)


def test_a_file_that_changed_is_noticed(ran, files):
    path = files / "sets.jsonl"
    text = path.read_text()
    path.write_text(text + "\n")
    try:
        with pytest.raises(ValueError, match=r"sets\.jsonl has changed since"):
            protocol.run(ran.config, ran.out, ran.cache)
    finally:
        path.write_text(text)


@pytest.mark.slow
def test_over_a_mesh_the_study_says_the_same(ran, table, tmp_path):
    cut = dataclasses.replace(ran.config, mesh="expert=4,data=2")
    protocol.run(cut, tmp_path / "out", tmp_path / "cache")
    other = pd.read_csv(tmp_path / "out" / "results.csv", keep_default_na=False)
    assert len(other) == len(table)
    # Experts of 2 updates are as good as on one device, and answers are as long.
    pd.testing.assert_frame_equal(other, table, rtol=1e-4)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"mesh": "tensor=8"}, "does not divide 4 heads"),
        ({"model": ""}, "--model DIR names a checkpoint"),
        ({"model": "no/such"}, "no/such"),
        ({"data": "no.jsonl"}, r"no\.jsonl"),
        ({"tests": ("no.jsonl",)}, r"no\.jsonl"),
        ({"ask": AskConfig(new_tokens=2000)}, "lower ask.shots or ask.new_tokens"),
    ],
)
def test_bad_inputs_are_refused_before_a_file_is_written(tiny, tmp_path, fields, words):
    fields = {"tests": ("english",)} | fields
    with pytest.raises(ValueError, match=words):
        protocol.run(dataclasses.replace(tiny, **fields), tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


def test_canaries_are_never_trained_on(tiny, files, tmp_path):
    config = dataclasses.replace(
        tiny, data=str(files / "sets.jsonl"), tests=("english",)
    )
    with pytest.raises(ValueError, match="has the canary"):
        protocol.run(config, tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()
