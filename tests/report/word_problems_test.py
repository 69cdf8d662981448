"""Figures, tables and page of the word-problem study, of full and partial results."""

import dataclasses
import json

import numpy as np
import pytest

import word_problem_rows as made_up
from jaxlora.evaluate.schema import Arm, Method, Split
from jaxlora.report import (
    draw,
    word_problems,
    word_problems_figure,
    word_problems_finding,
    word_problems_law_figure,
    word_problems_maps,
)
from jaxlora.report import word_problems_readings as look
from jaxlora.report.readings import Reading
from jaxlora.report.word_problems_lines import combined

QUICK = made_up.without_axes(made_up.CONFIG)
TITLES = (
    "The dial: shared solution templates",
    "The law of kept skills",
    "Which part of a template",
    "From easy to hard",
    "Number of experts merged",
    "Coverage of the new operations' role",
    "Leaderboard of merges and routes",
    "The first wrong step",
    "Written steps and the answer alone",
    "Controls and bounds",
)
MEAN = (Arm.PAIR, Method.MEAN)


@pytest.fixture(scope="module")
def rows(word_problem_rows):
    return word_problem_rows


@pytest.fixture(scope="module")
def results(word_problem_results):
    return word_problem_results


@pytest.fixture(scope="module")
def quick():
    return look.book(made_up.rows(QUICK), made_up.summary(QUICK))


def without(book, keep):
    """A book of a run that has not come to all places yet."""
    values = {k: x for k, x in book.values.items() if keep(k[0])}
    laws = {k: x for k, x in book.laws.items() if keep(k.place)}
    places = tuple(filter(keep, book.places))
    return dataclasses.replace(book, values=values, laws=laws, places=places)


def with_ratio(book, lo, hi):
    """A book in which the mean's law at full overlap has another ratio."""
    place = look.dial(book)[-1]
    key = look.LawKey(place, *map(str, (*MEAN, Split.BOTH)), 2, "alone")
    ratio = Reading((lo + hi) / 2, lo, hi, 156, "measured")
    laws = dict(book.laws) | {key: book.laws[key]._replace(ratio=ratio)}
    return dataclasses.replace(book, laws=laws)


def test_a_run_becomes_figures_tables_and_one_page(rows, results, two_hop, tmp_path):
    rows.to_csv(tmp_path / "results.csv.gz", index=False)
    (tmp_path / "results.json").write_text(json.dumps(results))
    files = word_problems.make(tmp_path, tmp_path / "out", two_hop)
    drawn = [x for x in files if x.suffix == ".png"]
    assert [x.name for x in drawn] == [*word_problems.FIGURES, word_problems.ANSWERS]
    page = files[-1].read_text(encoding="utf-8")
    assert page.count("<svg ") == len(drawn)
    assert "http" not in page.replace("http-equiv", "")
    assert "<because>" not in page
    assert "2 held, 1 failed, 1 undecided, 1 not measured" in page
    # The finding and the dial stand before everything else.
    assert page.index("The mean of two experts") < page.index("The dial.</b>")
    assert page.index("The dial.</b>") < page.index("Predictions:")
    text = (tmp_path / "out" / "tables.md").read_text()
    at = [text.index(f"## {x}") for x in TITLES]
    assert at == sorted(at)
    assert "--two-hop FOLDER" not in text


def test_the_quick_preset_leaves_no_holes(quick):
    names = list(word_problems.charts(quick))
    assert names == ["overlap.png", "law.png", "answers.png"]
    titles = [x.title for x in word_problems.grids(quick)]
    assert titles == [x for i, x in enumerate(TITLES) if i in (0, 1, 7, 8, 9)]
    text = word_problems.to_markdown(quick, made_up.summary(QUICK))
    assert "--two-hop FOLDER" in text
    assert "merges and routes" not in " ".join(word_problems_finding.sentences(quick))
    page = word_problems.to_html(quick, made_up.summary(QUICK), {})
    assert "There is no pooled value to draw" in page


def test_nothing_measured_is_a_page_that_says_so():
    rows = made_up.rows(QUICK).iloc[:0]
    results = made_up.summary(QUICK) | {"failed_seeds": ["70"]}
    for name in ("verdicts", "laws", "leaderboard", "criteria", "own_facts"):
        results[name] = []
    empty = look.book(rows, results)
    assert word_problems_finding.sentences(empty) == [word_problems_finding.NOTHING]
    assert word_problems.charts(empty) == {}
    assert word_problems.grids(empty) == []
    page = word_problems.to_html(empty, results, {})
    assert "Bases that never met their criteria: 70." in page


@pytest.mark.parametrize("name", [*word_problems.FIGURES, word_problems.ANSWERS])
def test_figures_of_nothing_say_so(name):
    make = word_problems.FIGURES.get(name, word_problems_maps.answers)
    with pytest.raises(draw.NothingToShowError):
        make(look.Book({}, {}, {}, ()))


def test_a_dot_of_the_dial_stands_at_the_value_of_its_row(book):
    left, right = word_problems_figure.overlap(book).axes
    (mean,) = (x for x in left.containers if x.get_label() == "mean")
    places = look.dial(book)
    wanted = [look.read(book, x, MEAN).value for x in places]
    np.testing.assert_allclose(np.asarray(mean.lines[0].get_ydata(), float), wanted)
    shares = [x.overlap for x in places]
    at = np.asarray(mean.lines[0].get_xdata(), float)
    np.testing.assert_allclose(at, shares, atol=0.02)
    assert shares == sorted(made_up.CONFIG.overlaps)
    (joint,) = (x for x in right.containers if x.get_label() == "joint LoRA")
    assert list(joint.lines[0].get_xdata()) == [2, 3, 4]


def test_filled_dots_are_those_that_compose(book):
    left = word_problems_figure.overlap(book).axes[0]
    labels = [look.label(book, x, Method.MEAN) for x in look.dial(book)]
    assert {"composes", "no transfer"} == set(labels)
    faces = next(
        x for x in left.collections
        if len(x.get_offsets()) == len(labels) and len(x.get_facecolors()) > 1
    ).get_facecolors()  # fmt: skip
    white = [bool((face[:3] == 1).all()) for face in faces]
    assert white == [x != "composes" for x in labels]


def test_the_law_has_a_dot_for_every_merge_route_and_level(book):
    panels = word_problems_law_figure.law(book).axes
    assert len(panels) == 2
    for axes, kept in zip(panels, word_problems_law_figure.PANELS, strict=True):
        chosen = [x for x in book.laws if x.kept == kept]
        assert sum(len(x.get_offsets()) for x in axes.collections) == len(chosen)
        names = [x.get_text() for x in axes.texts]
        assert 2 <= len(set(names)) == len(names) <= word_problems_law_figure.NAMED
        (line,) = (x for x in axes.lines if x.get_label() == "both = product")
        np.testing.assert_array_equal(*line.get_data())


def test_the_finding_gives_both_ends_chance_joint_and_the_product(book):
    first, law, best, verdicts, ranked, hard = word_problems_finding.sentences(book)
    places = look.dial(book)
    for place in (places[0], places[-1]):
        assert look.read(book, place, MEAN).text() in first
    assert "share a solution template, " in first
    assert "(chance 0.08); one LoRA on both: 0.98." in first
    shown = combined([Method.MEAN])[0]
    assert look.law(book, places[-1], shown).product.text() in law
    assert "Arrow, with 0.9" in best
    assert verdicts == (
        "Verdicts: at overlap 1 composes (mean, sum, Arrow); "
        "at overlap 0 no transfer (mean, sum, Arrow)."
    )
    assert ranked.startswith("Of 6 merges and routes the best is ")
    assert "solves 0.75 [0.68, 0.81] of problems of three operations" in hard


@pytest.mark.parametrize(
    ("lo", "hi", "words"),
    [
        (0.9, 1.1, "What is lost is what the merge loses of each skill"),
        (0.7, 0.9, "More is lost than the merge loses of each skill"),
        (1.1, 1.3, "Less is lost than the two skills apart would say"),
    ],
)
def test_the_law_is_put_in_words_by_its_interval(book, lo, hi, words):
    changed = with_ratio(book, lo, hi)
    assert word_problems_finding.sentences(changed)[1].startswith(words)


def test_without_the_headline_another_dial_is_shown(book):
    partial = without(book, lambda x: x.base != look.HEADLINE)
    assert partial.main == look.AXES
    assert [x.overlap for x in look.dial(partial)] == [1.0]
    first = word_problems_finding.sentences(partial)[0]
    assert "where they share none" not in first
    assert word_problems.charts(partial).keys() >= {"overlap.png", "law.png"}
