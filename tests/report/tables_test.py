"""Does every number stand in its place, and nothing disappear?"""

import io

import pandas as pd
import pytest
from rich.console import Console

from jaxlora.evaluate.schema import Arm, Cell, Method, Metric
from jaxlora.report import tables
from jaxlora.report.grid import Grid, markdown_table, rich_table


def line_of(grid: Grid, group: str, label: str) -> tuple[str, ...]:
    start = grid.body.index((group,))
    return next(line for line in grid.body[start:] if line[0] == label)


def pick(rows: pd.DataFrame, **words) -> pd.Series:
    """The one pooled row with these words; subsets of the items left out."""
    mask = (rows["seed"].astype(str) == "all") & ~rows["condition"].str.contains(
        "cov.*d"
    )
    for name, word in words.items():
        mask &= rows[name] == str(word)
    (found,) = rows[mask].to_dict("records")
    return found


def shown(rows: pd.DataFrame, renderable, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    return console.file.getvalue()


@pytest.mark.parametrize(
    ("group", "label", "library", "method"),
    [
        ("Negative controls", "base", Arm.BASE, Method.NONE),
        ("Negative controls", "shuffled answers", Arm.SHUFFLED, Method.MEAN),
        ("2-combination", "sum", Arm.PAIR, Method.SUM),
        ("2-combination", "arrow", Arm.PAIR, Method.ARROW),
        ("3-combination (mean)", "with A->C", Arm.TRIPLE, Method.MEAN),
        ("3-combination (mean)", "A->C of others", Arm.TRIPLE_OTHERS, Method.MEAN),
        ("Positive controls", "joint LoRA", Arm.JOINT, Method.NONE),
    ],
)
def test_closing_table_has_each_interval_in_its_place(
    rows, group, label, library, method
):
    line = line_of(tables.closing_grid(rows), group, label)
    for cell, word in zip(Cell, line[1:], strict=True):
        r = pick(
            rows,
            familiarity=cell.familiarity,
            knows=cell.knows,
            library=library,
            method=method,
            split="two-hop",
            metric="accuracy",
        )
        assert word == f"{r['value']:.2f} [{r['lo']:.2f}, {r['hi']:.2f}]"


def test_controls_that_could_not_run_say_so_and_others_that_nobody_asked_too(rows):
    grid = tables.closing_grid(rows)
    document = line_of(grid, "Positive controls", "one document")
    context = line_of(grid, "Positive controls", "facts in context")
    assert set(document[1:]) == set(context[1:]) == {"unavailable"}
    without = tables.closing_grid(rows[rows["library"] != Arm.FULL.value])
    assert set(line_of(without, "Positive controls", "full fine-tuning")[1:]) == {"–"}


def test_main_table_holds_value_hops_and_chance_of_the_same_line(rows):
    table = tables.main_table(rows)
    mask = (table["cell"] == "R-II") & (table["library"] == "2-combination")
    mask &= (table["method"] == "sum") & (table["split"] == "two-hop")
    (line,) = table[mask].to_dict("records")
    same = {"familiarity": "R", "knows": "II", "library": "2-combination"}
    same |= {"method": "sum"}
    for name, split in {"": "two-hop", "hop1_": "hop 1", "hop2_": "hop 2"}.items():
        r = pick(rows, **same, split=split, metric="accuracy")
        value = line[name.rstrip("_") or "value"]
        assert (value, line[f"{name}lo"], line[f"{name}hi"]) == pytest.approx(
            (r["value"], r["lo"], r["hi"])
        )
    assert (line["chance"], line["n"], line["coverage"]) == (0.03, 180, 1.0)


def test_main_table_keeps_unavailable_lines(rows):
    table = tables.main_table(rows)
    document = table[table["library"] == Arm.DOCUMENT.value]
    assert list(document["status"]) == ["unavailable"] * len(Cell)
    assert document["value"].isna().all()


def test_main_table_has_every_level_of_coverage_once(wide_rows):
    table = tables.main_table(wide_rows)
    mask = (table["cell"] == "R-OI") & (table["library"] == "2-combination")
    mask &= (table["method"] == "mean") & (table["split"] == "two-hop")
    found = dict(zip(table[mask]["coverage"], table[mask]["value"], strict=True))
    assert found == pytest.approx({0: 0, 0.25: 0.125, 0.5: 0.25, 0.75: 0.375, 1: 0.5})


def test_terminal_fits_100_columns_without_cutting_a_word(rows, results):
    text = shown(rows, tables.terminal(rows, results))
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text
    for words in (".50 .43–.57", "unavailable", "0.410 failed", "no transfer", "held"):
        assert words in text
    first = next(line for line in text.splitlines() if line.startswith("  mean "))
    assert first.split()[1:] == [
        *(".95", ".91–.97", ".50", ".43–.57", ".02", ".01–.05"),
        *(".01", ".00–.04") * 3,
    ]


def test_terminal_shows_brackets_as_they_are(rows, results):
    results["predictions"]["outcomes"][0]["statement"] = "[red]not markup[/red]"
    assert "[red]not markup[/red]" in shown(rows, tables.terminal(rows, results))


def test_markdown_is_a_table_whatever_stands_in_the_words(rows, results):
    evil = "a | b <script>alert(1)</script>\nsecond line \\"
    results["verdicts"][0]["reason"] = evil
    text = tables.to_markdown(rows, results)
    assert "<script" not in text
    heads = [line for line in text.splitlines() if line.startswith("## ")]
    assert heads == [
        "## Two-hop accuracy",
        "## Verdicts and their reasons",
        "## Criteria",
        "## Predictions",
    ]
    for block in text.split("\n\n"):
        if block.startswith("|"):
            bars = {
                line.replace("\\\\", "").replace("\\|", "").count("|")
                for line in block.splitlines()
            }
            assert len(bars) == 1
    assert "| mean | 0.95 [0.91, 0.97] | 0.50 [0.43, 0.57] |" in text


def test_differences_name_their_condition(rows):
    grid = tables.difference_grid(rows)
    assert len(grid.body) == len(Cell)
    line = grid.body[3]
    assert line[:3] == (
        "R-OO",
        "3-combination, A->C of others (mean)",
        Metric.DIFFERENCE,
    )
    assert "against 2-combination" in line[3]
    assert line[4].startswith("0.03 [")


def test_a_run_without_any_pooled_value_still_has_tables(rows, results):
    failed = rows[rows["seed"].astype(str) != "all"]
    results["verdicts"], results["criteria"] = [], []
    results["predictions"] = None
    assert tables.main_table(failed[failed["metric"] == "accuracy"]).empty
    text = shown(failed, tables.terminal(failed, results))
    assert "There is no verdict" in text
    assert "No criterion was measured" in text


def test_grids_draw_headings_across():
    grid = Grid("T", ("", "x"), (("Group",), ("a", "1")))
    assert "| **Group** |  |" in markdown_table(grid)
    assert "Group" in shown(pd.DataFrame(), rich_table(grid))
