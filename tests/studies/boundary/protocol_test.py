"""The boundary study end to end: rows, verdicts, resuming, and bases that fail."""

import dataclasses
import json

import numpy as np
import pytest

from jaxlora.evaluate.schema import Arm, Cell, Metric, Split
from jaxlora.studies.boundary import design, log, protocol, regimes, summary
from jaxlora.studies.harness.samples import Sample
from jaxlora.studies.two_hop import rows
from jaxlora.tasks.two_hop import formats, records
from jaxlora.tasks.two_hop.records import Vocab

POOLED = dict(summary.POOLED)["cells"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("boundary")


@pytest.fixture(scope="module")
def ended(folder, tiny):
    """The tiny study, run once."""
    return protocol.run(tiny, folder / "out", folder / "cache")


def test_every_regime_has_verdicts_by_both_ways_of_asking(ended):
    asked = {(x["regime"], x["asked"], x["cell"]) for x in ended.summary["verdicts"]}
    cells = (*map(str, Cell), POOLED)
    regimes = ("direct", "bridge rows 0.5", "placed", "both practise")
    asks = ("direct", "written")
    assert asked == {(r, a, c) for r in regimes for a in asks for c in cells}
    assert not ended.failed


def test_every_row_of_people_names_what_was_trained(ended):
    people = ended.rows[ended.rows["library"] == str(Arm.PAIR)]
    conditions = people["condition"].map(json.loads)
    needed = {"coverage", "base", "base format", "regime", "rows", "rho", "placement"}
    assert all(needed <= set(x) for x in conditions)
    assert {x["rho"] for x in conditions} == {0.0, regimes.RHO}
    assert {x["placement"] for x in conditions} == {"all + all", "0 + 1"}
    assert {x["base format"] for x in conditions} == {"next-token"}


def test_layers_are_only_reversed_where_experts_are_placed(ended):
    arm = ended.rows[ended.rows["library"] == str(Arm.REVERSED)]
    assert {json.loads(x)["regime"] for x in arm["condition"]} == {"placed"}


def test_held_out_targets_learn_from_twenty_rows_at_standard_sizes(tiny):
    config = dataclasses.replace(tiny, world=design.points(PRESET)[0].world)
    half, others = config.world.people // 2, len(Cell) - 1
    assert half + others * config.world.people >= 20


PRESET = protocol.BoundaryConfig()


def test_resumed_it_ends_with_the_same_rows(ended, folder, tiny):
    before = (folder / "out" / "results.csv").read_bytes()
    blocks = sorted((folder / "out" / "blocks").rglob("*.json"))
    missing = blocks[::19]
    for path in missing:
        path.unlink()
    again = protocol.run(tiny, folder / "out", folder / "cache")
    assert len(missing) > 3
    resumed = again.summary["timings"]["blocks_resumed"]
    assert resumed >= len(blocks) - len(missing)
    assert (folder / "out" / "results.csv").read_bytes() == before


def test_a_base_that_fails_is_invalid_and_not_asked(tmp_path, tiny):
    strict = dataclasses.replace(tiny.pretrain, min_two_hop=1.0)
    config = dataclasses.replace(tiny, seeds=1, pretrain=strict)
    ended = protocol.run(config, tmp_path / "out", tmp_path / "cache")
    assert ended.failed == ["30 (headline, 1)"]
    assert not (tmp_path / "out" / "blocks").exists()
    assert {x["label"] for x in ended.summary["verdicts"]} == {"invalid"}


def test_written_answers_count_where_the_base_writes(tiny):
    point = design.points(tiny)[0]
    asked = log.Asked(point, point.regimes[0])
    run = log.Log(passed={point: [30, 31]})
    for seed, value in ((30, 0.9), (31, 0.5)):
        run.criteria += [
            {"base": point.name, "coverage": 1.0, "seed": seed, "criterion": name}
            | {"value": value}
            for name in summary.WRITTEN_CRITERIA
        ]
    config = dataclasses.replace(tiny, min_written=0.8)
    seeds = summary.asks(config, run, asked)
    assert seeds == {Split.TWO_HOP: (30, 31), Split.WRITTEN: (30,)}


def test_cells_of_new_facts_are_pooled_with_libraries_apart():
    block = rows.base_block(1.0, 5)
    measured = {
        block.address(cell, Split.TWO_HOP): {5: Sample(np.full(2, i), np.zeros(2, int))}
        for i, cell in enumerate(Cell)
    }
    ((address, by_seed),) = summary.new_facts(measured).items()
    assert address.cell in design.NEW
    assert address.metric is Metric.ACCURACY
    assert by_seed[5].values.tolist() == [3, 3, 4, 4, 5, 5]
    assert by_seed[5].libraries.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("form", ["next-token", "pad"])
def test_two_hop_answers_are_read_where_one_hop_answers_were_trained(form):
    """At the prompt's last token, or at the third position: never at both."""
    vocab = Vocab(("ann", "bob", "rome"), ("spouse", "city"), 3, form)
    one, two = formats.one_hop(vocab, 0, 0, 1), formats.direct(vocab, 0, 0, 1, 1, 2)
    lasts = []
    for record in (one, two):
        trained = records.encode([record], vocab, 3)
        place = int(np.argmax(trained.weights[0]))
        assert place == records.answer_position(record, form)
        lasts.append(vocab.words[trained.tokens[0, place]])
    relation = {"next-token": "spouse", "pad": records.PAD}[form]
    assert lasts == [relation, "city"]
