"""Tables of the word-problem study, line by line."""

import io

import numpy as np
import pytest
from rich.console import Console

import word_problem_rows as made_up
from jaxlora.evaluate.schema import Arm, Method, Metric, Split
from jaxlora.report import (
    word_problems_facts,
    word_problems_judged,
    word_problems_laws,
    word_problems_levels,
    word_problems_maps,
    word_problems_ranked,
    word_problems_tables,
)
from jaxlora.report import word_problems_readings as look
from jaxlora.report.grid import rich_table
from jaxlora.report.readings import Reading
from jaxlora.report.word_problems_lines import JOINT

QUICK = made_up.without_axes(made_up.CONFIG)
MEAN = (Arm.PAIR, Method.MEAN)


@pytest.fixture(scope="module")
def rows(word_problem_rows):
    return word_problem_rows


@pytest.fixture(scope="module")
def results(word_problem_results):
    return word_problem_results


def test_a_ratio_to_next_to_nothing_is_not_shown(book):
    law = next(iter(book.laws.values()))
    small = law._replace(product=Reading(0.06, 0.04, 0.1, 9, "measured"))
    assert not word_problems_laws.ratio(small).measured
    assert word_problems_laws.sides([small]) == {}
    large = small._replace(product=Reading(0.06, 0.05, 0.1, 9, "measured"))
    assert word_problems_laws.ratio(large) == law.ratio


def test_the_dial_table_has_a_column_for_every_method_and_fits_a_terminal(book):
    grid = word_problems_tables.overlap_grid(book)
    assert grid.header[:6] == (
        "overlap",
        "mean",
        "sum",
        "Arrow",
        JOINT.label,
        "A alone",
    )
    assert [x[0] for x in grid.body] == ["0", "0.1", "0.25", "0.5", "1"]
    assert grid.body[-1][-1] == "mean: composes;\nsum: composes;\nArrow: composes"
    place = look.dial(book)[-1]
    assert grid.body[-1][1] == look.read(book, place, MEAN).text()
    console = Console(width=100, record=True, file=io.StringIO())
    for short in word_problems_tables.terminal(book):
        console.print(rich_table(short))
    text = console.export_text()
    assert "…" not in text


def test_templates_stand_between_full_and_no_overlap(book):
    grid = word_problems_tables.template_grid(book)
    names = [x[0] for x in grid.body]
    assert names[0].endswith("(overlap 1)")
    assert names[-1].endswith("(overlap 0)")
    assert names[1:-1] == list(word_problems_tables.TEMPLATES.values())


def test_levels_stand_beside_the_expert_of_the_hard_level(book):
    one, two = word_problems_levels.tables(book)
    assert one.levels == (1, 2, 3, 4)
    assert two.levels == (2, 3, 4)
    assert "hard expert alone" in one.names
    place = next(x for x in book.places if x.regime == word_problems_levels.LADDER)
    hard = one.readings[one.names.index("hard expert alone")]
    use = (Arm.HARD, Method.NONE)
    assert hard[0] == look.read(book, place, use, Split.SKILL_A, 1)
    assert hard[2] == look.read(book, place, use, Split.CHAIN_A, 3)
    assert len(two.names) == 9
    grid = word_problems_levels.level_grid(book)
    assert grid.header == ("", "level 1", "level 2", "level 3", "level 4")
    left = word_problems_maps.easy_to_hard(book).axes[0]
    texts = [x.get_text() for x in left.texts]
    for value in np.ravel(left.images[0].get_array()):
        assert f"{value:.2f}" in texts


def test_libraries_of_more_experts_and_coverages_have_a_line_each(book):
    sizes = word_problems_tables.size_grid(book)
    assert [x[0] for x in sizes.body] == ["mean", *"2346", "sum", *"2346"]
    covered = word_problems_tables.coverage_grid(book)
    assert [(x[0], x[1]) for x in covered.body] == [
        ("0", "coverage"),
        ("2", "coverage"),
        ("8", "axes"),
    ]


def test_the_leaderboard_is_sorted_and_names_what_was_left_out(rows, results):
    refused = {"base": "leaderboard", "method": "slerp", "reason": "two experts only"}
    book = look.book(rows, results | {"refused": [refused]})
    grid = word_problems_ranked.leaderboard_grid(book)
    at = [len(x) for x in grid.body].index(1)
    values = [float(x[3].split()[0]) for x in grid.body[:at]]
    assert values == sorted(values, reverse=True)
    assert [x[0] for x in grid.body[at:]] == ["Controls", "random-mean"]
    lines = {x[0]: x for x in grid.body}
    assert lines["ties"][1:3] == ("merge", "nothing")
    assert lines["Arrow"][1] == "route"
    assert "Left out: slerp (two experts only)." in grid.note
    assert lines["mean"][6] == "–"
    assert lines["ties"][6] == "0.010"


def test_first_wrong_steps_are_those_of_the_rows(book):
    grid = word_problems_laws.error_grid(book)
    assert grid.header[4:] == (
        *("operand", "operation", "arithmetic", "order"),
        *("template", "missing", "extra"),
    )
    place = look.dial(book)[0]
    order = look.read(book, place, MEAN, metric=Metric.ORDER)
    assert grid.body[0][:3] == ("0", "2", "mean")
    assert grid.body[0][7] == f"{order.value:.2f}"


def test_facts_of_two_hops_are_read_from_a_boundary_study(book, two_hop):
    facts = word_problems_facts.read(two_hop)
    assert [x.name for x in facts] == ["mean", "sum", "joint LoRA", "best expert alone"]
    mean = facts[0]
    assert mean.written.value > 0.5 > mean.direct.value
    grid = word_problems_facts.answer_grid(book, facts)
    headings = [x[0] for x in grid.body if len(x) == 1]
    assert headings == [word_problems_facts.PROBLEMS, word_problems_facts.FACTS]
    axes = word_problems_maps.answers(book, facts).axes
    assert len(axes) == 2
    assert axes[1].containers[1][0].get_height() == mean.written.value
    assert word_problems_facts.read(None) == ()


def test_what_is_no_boundary_study_is_refused(two_hop, tmp_path):
    with pytest.raises(ValueError, match="has neither results"):
        word_problems_facts.read(tmp_path)
    made_up.rows(QUICK).to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(ValueError, match="holds no direct and written answers"):
        word_problems_facts.read(tmp_path)


def test_criteria_show_the_worst_of_seeds_and_templates(results):
    grid = word_problems_judged.criteria_grid(results)
    assert grid.header[4:] == (
        *("level 1 >= 0.95", "level 2 >= 0.95", "answer only, level 2 >= 0.9"),
    )
    assert grid.body[0] == ("headline", "8", "2", "2000", "0.990", "0.990",
                            "0.850 failed")  # fmt: skip
    experts = word_problems_judged.expert_grid(results)
    assert experts.body[0][4:] == ("0.992", "–", "0.992", "–")
    low = [x | {"value": 0.5} for x in results["own_facts"]]
    failed = word_problems_judged.expert_grid(results | {"own_facts": low})
    assert failed.body[0][4] == "0.500 failed"


def test_verdicts_on_answers_are_apart(results):
    written = word_problems_judged.verdict_grid(results)
    answers = word_problems_judged.verdict_grid(results, answers=True)
    assert len(written.body) + len(answers.body) == len(results["verdicts"])
    assert "degrades" in {x[8] for x in written.body}
