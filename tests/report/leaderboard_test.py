"""The leaderboard as words, CSV, figure and page, from results written by hand."""

import csv
import io

import pytest

from jaxlora.report import draw, leaderboard, page


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
def ranked(results):
    """Results with a leaderboard of two coverages."""
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
    return results | {"leaderboard": [old, *lines]}


def test_grid_has_a_line_for_each_method_and_the_references_below(ranked):
    grid = leaderboard.grid(ranked)
    assert len({len(x) for x in (grid.header, *grid.body)} - {1}) == 1
    names = [x[0] for x in grid.body]
    assert names == ["cat", "ties|x", "random-mean", "slerp", "broken",
                     "For comparison", "base"]  # fmt: skip
    sees = {x[0]: x[1] for x in grid.body if len(x) > 1}
    assert sees["cat"] == "target data"
    assert sees["random-mean"] == "control"
    assert grid.body[0][3] == "0.12 [0.07, 0.17]"
    three = grid.header.index("with A->C")
    assert grid.body[3][three] == "unavailable"
    assert grid.body[4][three] == grid.body[4][3] == "–"


def test_rows_that_were_learned_from_are_shown_where_they_were_noted(ranked):
    before = leaderboard.grid(ranked)
    assert "rows" not in before.header
    assert "Rows:" not in before.note
    some = line("linear", 0.1, data="target", learned_rows=[17, 18])
    many = line("smear", 0.1, data="target", learned_rows=[56, 56])
    more = ranked | {"leaderboard": [*ranked["leaderboard"], some, many]}
    grid = leaderboard.grid(more)
    shown = {x[0]: x[grid.header.index("rows")] for x in grid.body if len(x) > 1}
    assert shown["linear"] == "17 to 18"
    assert shown["smear"] == "56"
    assert shown["ties|x"] == shown["base"] == "–"
    assert "rows" not in leaderboard.grid(more, short=True).header
    # Who had fewer than twenty is named, and nobody else.
    assert grid.note.endswith("Fewer than 20, too few to judge by: linear.")
    rows = {
        r["method"]: r for r in csv.DictReader(io.StringIO(leaderboard.to_csv(more)))
    }
    assert rows["linear"]["learned_rows"] == "17 to 18"
    assert rows["cat"]["learned_rows"] == ""


def test_short_grid_fits_a_terminal(ranked):
    grid = leaderboard.grid(ranked, short=True)
    widths = [max(len(row[i]) for row in (grid.header, *grid.body) if len(row) > 1)
              for i in range(len(grid.header))]  # fmt: skip
    # The longest name is of 23 characters, not of 11.
    assert sum(widths) + len(widths) + 12 <= 100


def test_markdown_stands_between_markers_that_can_be_filled_again(ranked):
    text = leaderboard.to_markdown(ranked)
    assert text.startswith(leaderboard.BEGIN)
    assert text.rstrip().endswith(leaderboard.END)
    assert r"ties\|x" in text
    readme = f"# Title\n\n{leaderboard.BEGIN}\nold\n{leaderboard.END}\n\nThe end.\n"
    filled = leaderboard.fill(readme, ranked)
    assert filled == f"# Title\n\n{text.rstrip()}\n\nThe end.\n"
    assert leaderboard.fill(filled, ranked) == filled
    with pytest.raises(ValueError, match="needs a line"):
        leaderboard.fill("no markers", ranked)


def test_csv_has_every_number(ranked):
    rows = list(csv.DictReader(io.StringIO(leaderboard.to_csv(ranked))))
    assert [row["method"] for row in rows][:2] == ["cat", "ties|x"]
    assert float(rows[0]["two_hop"]) == 0.12
    assert float(rows[0]["two_hop_hi"]) == pytest.approx(0.17)
    assert rows[0]["two_hop_n"] in ("63", "63.0")
    assert "slerp interpolates" in rows[3]["unavailable"]


def test_figure_shows_every_method_the_band_and_what_it_sees(ranked):
    axes = leaderboard.figure(ranked).axes[0]
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert names == ["cat", "ties|x", "random-mean", "slerp", "broken"]
    labels = axes.get_legend_handles_labels()[1]
    assert {"negative controls", "control", "with an A→C expert that saw these people",
            "merge or route that sees target data"} <= set(labels)  # fmt: skip


def test_files_are_written_and_the_page_shows_them(ranked, results, rows, tmp_path):
    paths = leaderboard.save(ranked, tmp_path)
    assert [x.name for x in paths] == [leaderboard.FIGURE]
    assert paths[0].read_bytes()[:4] == b"\x89PNG"
    assert {x.name for x in tmp_path.iterdir()} == {
        "leaderboard.md", "leaderboard.csv", leaderboard.FIGURE
    }  # fmt: skip
    shown = page.render(rows, ranked, {leaderboard.FIGURE: "<svg></svg>"})
    assert "Leaderboard of methods" in shown
    assert "Every method" in shown
    without = page.render(rows, results, {})
    assert "Leaderboard of methods" not in without


def test_results_without_a_league_write_nothing(results, tmp_path):
    assert leaderboard.save(results, tmp_path) == []
    assert leaderboard.render(results) == {}
    assert leaderboard.grid(results).body == ()
    with pytest.raises(draw.NothingToShowError):
        leaderboard.figure(results)


@pytest.mark.parametrize("headroom", [None, True, False])
def test_a_leaderboard_without_headroom_says_so(ranked, headroom):
    remarks = ["no headroom: the joint LoRA has 0.04"] if headroom is False else []
    for x in ranked["leaderboard"]:
        if x["kind"] != "reference":
            x |= {"headroom": headroom, "remarks": remarks}
    grid = leaderboard.grid(ranked)
    assert ("listed, not ranked" in grid.note) == (headroom is False)
    word = "no transfer, no headroom" if headroom is False else "no transfer"
    assert grid.body[0][-1] == word
