"""Figures, tables and page of the boundary study, of full and of partial results."""

import dataclasses
import json

import numpy as np
import pytest

import boundary_rows
from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.report import draw, regimes, regimes_readings, regimes_tables
from jaxlora.report import regimes_maps as maps
from jaxlora.report.regimes_lines import CONTROLS, MEAN, SUM
from jaxlora.studies.boundary.config import BoundaryConfig

CONFIG = BoundaryConfig(
    seeds=1,
    map_seeds=1,
    methods=("mean", "sum", "ties", "tsv"),
    ranked=(),
    rhos=(0.0, 0.5),
    coverages=(0.0, 1.0),
    axes=("pad", "no formats"),
)


@pytest.fixture(scope="module")
def rows():
    return boundary_rows.rows(CONFIG)


@pytest.fixture(scope="module")
def results():
    return boundary_rows.summary(CONFIG)


@pytest.fixture(scope="module")
def book(rows, results):
    return regimes_readings.book(rows, results)


def without(book, keep):
    """A book of a run that has not come to all places yet."""
    values = {k: v for k, v in book.values.items() if keep(k[0])}
    places = tuple(x for x in book.places if keep(x))
    return dataclasses.replace(book, values=values, places=places)


def test_a_run_becomes_figures_tables_and_one_page(rows, results, tmp_path):
    rows.to_csv(tmp_path / "results.csv.gz", index=False)
    (tmp_path / "results.json").write_text(json.dumps(results))
    files = regimes.make(tmp_path, tmp_path / "out")
    drawn = [x for x in files if x.suffix == ".png"]
    assert [x.name for x in drawn] == list(regimes.FIGURES)
    page = files[-1].read_text(encoding="utf-8")
    assert page.count("<svg ") == len(drawn)
    assert "http" not in page.replace("http-equiv", "")
    assert "<because>" not in page
    assert "2 held, 1 failed, 1 undecided, 1 not measured" in page
    assert "## Regimes" in (tmp_path / "out" / "tables.md").read_text()


def test_the_figure_shows_the_headline_and_without_it_the_map(book):
    (axes,) = regimes.FIGURES["figure-regimes.png"](book).axes
    names = [x.get_text().replace("\n", " ") for x in axes.get_xticklabels()]
    assert len(names) == 6
    assert names[0] == "direct rows asked directly"
    labels = axes.get_legend_handles_labels()[1]
    assert "best other merge" in labels
    assert labels.count("chance") == 1
    partial = without(book, lambda x: x.base == "map")
    (axes,) = regimes.FIGURES["figure-regimes.png"](partial).axes
    assert len(axes.get_xticklabels()) == 6
    assert "best other merge" not in axes.get_legend_handles_labels()[1]


def test_a_dot_stands_at_the_value_of_its_row(book):
    (axes,) = regimes.FIGURES["figure-regimes.png"](book).axes
    (mean,) = (x for x in axes.containers if x.get_label() == "mean")
    place = regimes_readings.find(book, "headline", "bridge rows 0.5")
    wanted = regimes_readings.read(
        book, place, Split.WRITTEN, (Arm.PAIR, Method.MEAN)
    ).value
    assert mean.lines[0].get_ydata()[2] == pytest.approx(wanted)
    assert wanted > 0.5


@pytest.mark.parametrize("name", regimes.FIGURES)
def test_figures_of_nothing_say_so(name):
    empty = regimes_readings.Book({}, {}, ())
    with pytest.raises(draw.NothingToShowError):
        regimes.FIGURES[name](empty)


def test_the_phase_diagram_has_a_number_in_every_cell(book):
    left = maps.phase(book).axes[0]
    shown = left.images[0].get_array()
    assert shown.shape == (2, 2)
    texts = [x.get_text() for x in left.texts]
    for value in np.ravel(shown):
        assert f"{value:.2f}" in texts
    # The mean passes the best single expert where the second expert practises.
    assert len(left.collections) >= 1
    holes = without(book, lambda x: not (x.coverage == 0 and x.rho == 0.5))
    assert "–" in [x.get_text() for x in maps.phase(holes).axes[0].texts]


def test_placements_are_in_the_order_of_layers(book):
    left = maps.placement(book).axes[0]
    names = [x.get_text() for x in left.get_xticklabels()]
    assert names == ["all", "0", "0-1", "2-3", "3"]
    assert [x.get_text() for x in left.get_yticklabels()] == names
    shown = left.images[0].get_array()
    assert np.unravel_index(np.argmax(shown), shown.shape) == (3, 1)


def test_placed_is_found_among_all_pairs_of_layers(book):
    pairs = without(book, lambda x: x.regime != "placed")
    place = regimes_readings.find(pairs, "map", "placed")
    assert (place.regime, place.placement) == ("layers", "0 + 2-3")
    two = without(book, lambda x: x.base == "no such base")
    assert regimes_readings.find(two, "map", "placed") is None


def test_the_best_control_is_the_highest_of_those_that_must_fail(book):
    place = regimes_readings.find(book, "headline", "direct")
    reading, use = regimes_readings.best(book, place, Split.TWO_HOP, CONTROLS)
    values = [
        regimes_readings.read(book, place, Split.TWO_HOP, x).value for x in CONTROLS
    ]
    assert reading.value == max(x for x in values if x is not None)
    assert use == (Arm.HOP2, Method.NONE)


def test_identity_rows_show_the_pair_that_has_them(book):
    place = regimes_readings.find(book, "map", "identity rows")
    key = (place, "", str(Arm.IDENTITY), "mean", str(Split.TWO_HOP), "accuracy")
    other = dataclasses.replace(
        book, values=dict(book.values) | {key: regimes_readings.Reading(0.77)}
    )
    assert regimes_readings.value(other, place, Split.TWO_HOP, MEAN).value == 0.77


def test_the_finding_is_two_sentences_with_numbers(book):
    first, second = regimes_tables.finding(book)
    assert first.startswith("In 2 of 8 ways of training and asking two merged experts")
    assert "bridge written: mean 0.6" in first
    assert second.startswith("In the other 6 the better of mean and sum has")
    assert regimes_tables.finding(without(book, lambda _: False))[0].startswith(
        "There is no verdict"
    )


def test_a_base_that_cannot_write_makes_its_regime_invalid(rows, results):
    verdicts = [
        x | {"label": "invalid"} for x in results["verdicts"] if "," not in x["cell"]
    ]
    book = regimes_readings.book(rows, {"verdicts": verdicts})
    place = regimes_readings.find(book, "headline", "direct")
    assert regimes_readings.label(book, place, Split.WRITTEN, SUM) == "invalid"
    assert regimes_tables.finding(book)[1] == "Nothing follows from this run."


def test_tables_name_remarks_controls_and_failed_criteria(book, results):
    grid = regimes_tables.regime_grid(book)
    lines = {x[0]: x[1:] for x in grid.body}
    assert lines["which"][0] == "B->C"
    assert lines["verdicts, mean / sum"][3] == "composes / composes"
    pooled = regimes_tables.verdict_grid(results)
    assert {x[pooled.header.index("remarks")] for x in pooled.body} == {
        "–",
        "no headroom",
    }
    criteria = regimes_tables.criteria_grid(results)
    assert "0.890 failed" in criteria.body[0]
    assert len(criteria.body) == 5
    assert len(regimes_tables.place_grid(book).body) == 2 * len(book.places)
