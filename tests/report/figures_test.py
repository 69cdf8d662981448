"""Do the figures draw the numbers of the rows, all of them, and legibly?"""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.container import BarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from jaxlora.evaluate.schema import Arm, Cell, Method
from jaxlora.report import boundary, draw, figures, readings, routing
from jaxlora.report.lines import SECTIONS, Line

R_CELLS = (Cell.R_II, Cell.R_OI, Cell.R_IO, Cell.R_OO)


def bars_of(figure: Figure) -> dict[str, BarContainer]:
    return {
        bars.get_label(): bars
        for bars in figure.axes[0].containers
        if isinstance(bars, BarContainer)
    }


def bounds(bars: BarContainer) -> list[tuple[float, float]]:
    (_, _, (lines,)) = bars.errorbar.lines
    return [(segment[0, 1], segment[1, 1]) for segment in lines.get_segments()]


@pytest.mark.parametrize(
    ("make", "cells"),
    [
        (figures.library, R_CELLS),
        (figures.familiarity, (Cell.R_OO, Cell.H_OO, Cell.F_OO)),
    ],
)
def test_bars_and_their_errors_are_the_pooled_values(rows, make, cells):
    found = readings.book(rows)
    bars = bars_of(make(rows))
    assert list(bars) == [series.label for series in figures.SERIES]
    for series in figures.SERIES:
        expected = [readings.read(found, cell, series.line) for cell in cells]
        heights = [bar.get_height() for bar in bars[series.label]]
        assert heights == pytest.approx([r.value for r in expected])
        np.testing.assert_allclose(
            bounds(bars[series.label]), [(r.lo, r.hi) for r in expected], atol=1e-12
        )


def test_bars_of_a_group_stand_together_and_do_not_overlap(rows):
    bars = bars_of(figures.library(rows))
    for group in range(4):
        edges = sorted(
            (b[group].get_x(), b[group].get_x() + b[group].get_width())
            for b in bars.values()
        )
        assert all(right <= left for (_, right), (left, _) in itertools.pairwise(edges))
        assert group - 0.5 < edges[0][0] < edges[-1][1] < group + 0.5


def test_chance_is_marked_in_every_group(rows):
    axes = figures.library(rows).axes[0]
    (chance,) = [c for c in axes.collections if c.get_label() == "chance"]
    assert [s[0, 1] for s in chance.get_segments()] == [0.03] * 4


def test_a_bar_without_a_value_says_why(rows):
    gone = rows[rows["library"] != Arm.JOINT.value]
    value = rows["value"].mask(rows["library"] == Arm.RANDOM.value)
    words = [t.get_text() for t in figures.library(gone).axes[0].texts]
    assert words == ["not measured"] * 4
    panel = figures.controls(rows.assign(value=value)).axes[0]
    # One document, facts in context, and now the random adapters.
    assert [t.get_text() for t in panel.texts] == ["unavailable"] * 3


def test_error_types_fill_every_bar_in_order(rows):
    figure = figures.errors(rows)
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == [
        *("mean", "sum", "arrow", "oracle")
    ]
    found = readings.book(rows)
    line = Line("", Arm.PAIR, Method.SUM)
    stacks = panels[1].containers
    assert [stack.get_label() for stack in stacks] == [a[1] for a in figures.ANSWERS]
    for y, cell in enumerate(Cell):
        left = 0.0
        for stack, (metric, _, _) in zip(stacks, figures.ANSWERS, strict=True):
            width = readings.read(found, cell, line, metric).value
            assert stack[y].get_x() == pytest.approx(left)
            assert stack[y].get_width() == pytest.approx(width)
            left += width
        assert left == pytest.approx(1.0)


def test_dots_stand_beside_their_names(rows):
    figure = figures.controls(rows)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    found = readings.book(rows)
    expected = {
        line.label.replace("->", "→"): readings.read(found, "H-OO", line)
        for _, lines in SECTIONS
        for line in lines
    }
    seen = {}
    for container in figure.axes[1].containers:
        dots, _, (spans,) = container.lines
        for x, y, span in zip(*dots.get_data(), spans.get_segments(), strict=True):
            if not math.isnan(x):
                seen[names[round(y)]] = (x, span[0, 0], span[1, 0])
    measured = {k: (r.value, r.lo, r.hi) for k, r in expected.items() if r.measured}
    assert seen.keys() == measured.keys()
    for name, values in measured.items():
        assert seen[name] == pytest.approx(values)


def test_coverage_draws_one_curve_a_method_and_the_band_of_the_controls(wide_rows):
    figure = figures.coverage(wide_rows)
    panel = next(a for a in figure.axes if a.get_title(loc="left") == "R-OI")
    curves = {c.get_label(): c.lines[0] for c in panel.containers}
    assert list(curves) == [method.value for method, _ in boundary.CURVES]
    x, y = (np.asarray(data, float) for data in curves["mean"].get_data())
    np.testing.assert_allclose(y, [0, 0.125, 0.25, 0.375, 0.5], atol=1e-12)
    np.testing.assert_allclose(x, [0, 0.25, 0.5, 0.75, 1], atol=0.05)
    low, high = readings.band(readings.book(wide_rows), "R-OI")
    extent = panel.collections[0].get_paths()[0].get_extents()
    assert (extent.y0, extent.y1) == pytest.approx((low, high))


def test_band_is_that_of_the_mean_and_says_so(wide_rows):
    worse = wide_rows.copy()
    random = worse["library"] == Arm.RANDOM.value
    other = worse[random].assign(method="sum", value=0.9, lo=0.8, hi=0.99)
    more = pd.concat([worse, other], ignore_index=True)
    assert readings.band(readings.book(more), "R-OO") == readings.band(
        readings.book(worse), "R-OO"
    )
    for make in (figures.controls, figures.coverage):
        _, labels = make(more).axes[0].get_legend_handles_labels()
        assert "negative controls (mean), range" in labels


def test_coverage_needs_two_values(rows, wide_rows):
    with pytest.raises(draw.NothingToShowError, match=r"hold 1 value.* needs two"):
        figures.coverage(rows)
    assert "coverage 1" in figures.library(wide_rows).get_suptitle()
    assert "coverage" not in figures.library(rows).get_suptitle()


# What gates chose is of other rows: tests/report/routing_test.py.
ANSWERS = [make for make in figures.FIGURES.values() if make is not routing.figure]


@pytest.mark.parametrize("make", ANSWERS)
def test_no_text_is_cut_and_no_labels_overlap(wide_rows, make):
    figure = make(wide_rows)
    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    canvas = figure.bbox
    boxes = []
    for text in figure.findobj(Text):
        hidden = text.axes is not None and not text.axes.get_visible()
        if text.get_text().strip() and text.get_visible() and not hidden:
            box = text.get_window_extent(renderer)
            if box.width and in_use(text):
                boxes.append((text.get_text(), box))
    assert len(boxes) > 15
    for words, box in boxes:
        assert canvas.x0 <= box.x0 < box.x1 <= canvas.x1, words
        assert canvas.y0 <= box.y0 < box.y1 <= canvas.y1, words
    for i, (words, box) in enumerate(boxes):
        for others, other in boxes[i + 1 :]:
            assert not touch(box, other), (words, others)


def in_use(text: Text) -> bool:
    """Whether a tick label belongs to a tick that is drawn."""
    axes = text.axes
    if axes is None:
        return True
    for axis in (axes.xaxis, axes.yaxis):
        ticks = [
            t for tick in axis.get_major_ticks() for t in (tick.label1, tick.label2)
        ]
        if text in ticks:
            return text in axis.get_ticklabels()
    return True


def touch(a, b) -> bool:
    return (
        min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    )


def test_the_same_rows_give_the_same_bytes_and_no_state_is_left(rows):
    import matplotlib

    before = dict(matplotlib.rcParams)
    first, second = (figures.png(figures.library(rows)) for _ in range(2))
    assert first == second
    assert b"Software" not in first
    assert dict(matplotlib.rcParams) == before
    assert "matplotlib.pyplot" not in vars(figures)


def test_save_all_writes_what_the_rows_can_fill(rows, tmp_path):
    paths = figures.save_all(rows, tmp_path / "new")
    assert [path.name for path in paths] == [
        *("figure-library.png", "figure-familiarity.png"),
        *("figure-errors.png", "figure-controls.png"),
    ]
    assert {p.name for p in (tmp_path / "new").iterdir()} == {p.name for p in paths}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_cells_that_did_not_run_are_left_out(rows):
    some = rows[~((rows["familiarity"] == "R") & (rows["knows"] == "OI"))]
    figure = figures.library(some)
    assert len(figure.axes[0].get_xticks()) == 3
    none = rows[rows["seed"].astype(str) != "all"]
    with pytest.raises(draw.NothingToShowError, match="No pooled accuracy"):
        figures.library(none)
    assert figures.render(none) == {}
