"""The league as words, CSV, figure and page, from results written by hand."""

import csv
import io

import pytest

from jaxlora.report import draw, league, page


def value(x, n=63):
    return {"value": x, "lo": max(0.0, x - 0.05), "hi": min(1.0, x + 0.05), "n": n}


def line(name, two_hop, three=0.8, kind="merge", data="free", **more):
    names = ("known_second_hop", "R-OO", "H-OO", "F-OO", "hop1", "hop2", "familiar")
    return {
        "method": name,
        "coverage": 1.0,
        "kind": kind,
        "data": data,
        "space": "core",
        "two_hop": None if two_hop is None else value(two_hop),
        "difference": value(0.1),
        "against": "base [none]",
        **{key: value(0.9) for key in names},
        "three": None if three is None else value(three),
        "three_verdict": "retrieves",
        "verdict": "no transfer",
        "p_adjusted": 1.0,
        "unavailable": {},
    } | more


@pytest.fixture
def found(results):
    """Results with a league of two coverages."""
    refused = {"3-combination": "slerp interpolates between two experts"}
    lines = [
        line("cat", 0.12, data="target"),
        line("ties|x", 0.05),
        line("random-mean", 0.02, kind="control"),
        line("slerp", 0.01, three=None, unavailable=refused),
        line("broken", None, three=None, verdict="unavailable"),
        {"method": "base", "kind": "reference", "coverage": 1.0, "two_hop": value(0.0)},
    ]
    old = line("old", 0.99, coverage=0.5)
    return results | {"league": [old, *lines]}


def test_grid_has_a_line_for_each_method_and_the_references_below(found):
    made = league.grid(found)
    assert len({len(x) for x in (made.header, *made.body)} - {1}) == 1
    names = [x[0] for x in made.body]
    assert names == ["cat", "ties|x", "random-mean", "slerp", "broken",
                     "For comparison", "base"]  # fmt: skip
    sees = {x[0]: x[1] for x in made.body if len(x) > 1}
    assert sees["cat"] == "target data"
    assert sees["random-mean"] == "control"
    assert made.body[0][3] == "0.12 [0.07, 0.17]"
    three = made.header.index("with A->C")
    assert made.body[3][three] == "unavailable"
    assert made.body[4][three] == made.body[4][3] == "–"


def test_short_grid_fits_a_terminal(found):
    made = league.grid(found, short=True)
    widths = [max(len(row[i]) for row in (made.header, *made.body) if len(row) > 1)
              for i in range(len(made.header))]  # fmt: skip
    # The longest name is of 23 characters, not of 11.
    assert sum(widths) + len(widths) + 12 <= 100


def test_markdown_stands_between_markers_that_can_be_filled_again(found):
    text = league.to_markdown(found)
    assert text.startswith(league.BEGIN)
    assert text.rstrip().endswith(league.END)
    assert r"ties\|x" in text
    readme = f"# Title\n\n{league.BEGIN}\nold\n{league.END}\n\nThe end.\n"
    filled = league.fill(readme, found)
    assert filled == f"# Title\n\n{text.rstrip()}\n\nThe end.\n"
    assert league.fill(filled, found) == filled
    with pytest.raises(ValueError, match="needs a line"):
        league.fill("no markers", found)


def test_csv_has_every_number(found):
    rows = list(csv.DictReader(io.StringIO(league.to_csv(found))))
    assert [row["method"] for row in rows][:2] == ["cat", "ties|x"]
    assert float(rows[0]["two_hop"]) == 0.12
    assert float(rows[0]["two_hop_hi"]) == pytest.approx(0.17)
    assert rows[0]["two_hop_n"] in ("63", "63.0")
    assert "slerp interpolates" in rows[3]["unavailable"]


def test_figure_shows_every_method_the_band_and_what_it_sees(found):
    axes = league.figure(found).axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["cat", "ties|x", "random-mean", "slerp", "broken"]
    labels = axes.get_legend_handles_labels()[1]
    assert {"negative controls", "control", "with an A→C expert that saw these people",
            "merge or route that sees target data"} <= set(labels)  # fmt: skip


def test_files_are_written_and_the_page_shows_them(found, results, rows, tmp_path):
    made = league.save(found, tmp_path)
    assert [x.name for x in made] == [league.FIGURE]
    assert made[0].read_bytes()[:4] == b"\x89PNG"
    assert {x.name for x in tmp_path.iterdir()} == {
        "league.md", "league.csv", league.FIGURE
    }  # fmt: skip
    images = {league.FIGURE: made[0].read_bytes()}
    shown = page.render(rows, found, images)
    assert "League of methods" in shown
    assert "Every method" in shown
    without = page.render(rows, results, {})
    assert "League of methods" not in without


def test_results_without_a_league_write_nothing(results, tmp_path):
    assert league.save(results, tmp_path) == []
    assert league.render(results) == {}
    assert league.grid(results).body == ()
    with pytest.raises(draw.NothingToShowError):
        league.figure(results)
