"""Problems: the same in every format, of their level, never both learned and asked."""

import dataclasses
import json
from collections import Counter

import pytest

from jaxlora.studies.word_problems.text import problems, score
from jaxlora.studies.word_problems.text.config import (
    LEVELS,
    AskConfig,
    EnglishConfig,
    ProblemsConfig,
)

ASK = AskConfig(problems=30, shots=3)


@pytest.fixture(scope="module")
def ours():
    formats = ("plain", "annotated", "python", "markup")
    config = ProblemsConfig(formats=formats, rows=60, ask=ASK)
    return config, problems.prepare(config, 3)


def of_files(files, **more):
    fields = {"data": str(files / "train.jsonl"), "tests": (str(files / "test.jsonl"),)}
    return ProblemsConfig(**fields | more)


def test_every_problem_has_every_format_and_its_level(ours):
    config, data = ours
    assert [len(data.lessons[x]) for x in LEVELS] == [60, 60, 60]
    assert Counter(x.level for x in data.asked) == dict.fromkeys(LEVELS, 30)
    for problem in (*data.asked, *(x for some in data.lessons.values() for x in some)):
        assert set(problem.solutions) == set(config.formats)
        first, last = config.levels[problem.level]
        steps = len(problem.solutions["annotated"].splitlines()) - 1
        assert first <= steps <= last
        answers = {score.value(text, f) for f, text in problem.solutions.items()}
        assert answers == {problem.answer}


def test_no_question_is_both_learned_and_asked(ours):
    _, data = ours
    learned = {x.question for some in data.lessons.values() for x in some}
    assert not learned & {x.question for x in data.asked}


def test_formats_do_not_change_the_problems(ours):
    config, data = ours
    single = dataclasses.replace(config, formats=("python",))
    again = problems.prepare(single, 3)
    assert [x.question for x in again.asked] == [x.question for x in data.asked]
    assert again.lessons["hard"][7].question == data.lessons["hard"][7].question


def test_seeds_choose_other_problems(ours):
    config, data = ours
    other = problems.prepare(config, 4)
    assert problems.prepare(config, 3) == data
    assert not {x.question for x in other.asked} & {x.question for x in data.asked}


def test_options_of_the_world_reach_it():
    few = EnglishConfig(graph="trees", idle=1.0, limit=50)
    data = problems.prepare(ProblemsConfig(rows=5, ask=ASK, english=few), 0)
    assert max(x.answer for x in data.asked) < 50
    steps = [len(x.solutions["annotated"].splitlines()) - 1 for x in data.asked]
    # A clause that does not matter is one sentence more.
    assert all(
        x.question.count(".") > n for x, n in zip(data.asked, steps, strict=True)
    )


def test_shots_are_lessons_of_both_levels(ours):
    _, data = ours
    assert [x.level for x in data.shots] == ["easy", "medium", "easy"]
    assert data.shots[0] in data.lessons["easy"]


def test_texts_are_every_problem_in_every_format(ours):
    _, data = ours
    some = data.lessons["easy"][:3]
    both = problems.texts(some, ("plain", "python"))
    assert [x["question"] for x in both] == 2 * [x.question for x in some]
    assert both[4]["answer"] == some[1].solutions["python"]


def test_files_are_sorted_into_levels(files):
    data = problems.prepare(of_files(files, tests=(str(files / "test.jsonl"),)), 0)
    assert {x: len(some) for x, some in data.lessons.items()} == {
        "easy": 8,
        "medium": 8,
        "hard": 4,
    }
    assert Counter(x.level for x in data.asked) == dict.fromkeys(LEVELS, 4)
    assert any("1 problems without a solution in every" in x for x in data.notes)
    assert any("4 of no level" in x for x in data.notes)
    assert any("hard: 4 problems to learn of 1000" in x for x in data.notes)


def test_a_problem_without_a_program_is_learned_in_other_formats(files):
    data = problems.prepare(of_files(files, formats=("plain",)), 0)
    assert "Who knows 7?" in {x.question for x in data.lessons["easy"]}


def test_parallel_sets_are_asked_in_order(files):
    config = of_files(
        files,
        tests=("english", str(files / "sets.jsonl")),
        ask=AskConfig(problems=2, sets=2),
    )
    data = problems.prepare(config, 0)
    sets = [x for x in data.asked if x.test == 1]
    assert [(x.instance, x.template) for x in sets] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {x.level for x in sets} == {"all"}
    assert {x.instance for x in data.asked if x.test == 0} == {-1}


def test_a_question_that_is_asked_is_not_learned(files):
    path = str(files / "train.jsonl")
    with pytest.raises(ValueError, match="no easy problem to learn: 8 have 1 to 2"):
        problems.prepare(of_files(files, tests=(path,)), 0)


def test_test_data_are_never_trained_on(files):
    with pytest.raises(ValueError, match=r"sets.jsonl:1: the problem has the canary"):
        problems.prepare(of_files(files, data=str(files / "sets.jsonl")), 0)


@pytest.mark.parametrize("field", ["data", "tests"])
def test_a_missing_file_is_refused(files, field):
    value = "no.jsonl" if field == "data" else ("no.jsonl",)
    with pytest.raises(ValueError, match=r"no\.jsonl"):
        problems.prepare(of_files(files, **{field: value}), 0)


def test_a_test_of_no_level_is_refused(files):
    levels = {"easy": (20, 21), "medium": (22, 23), "hard": (24, 25)}
    with pytest.raises(ValueError, match=r"test.jsonl has no problem of"):
        problems.prepare(of_files(files, **levels), 0)


def test_a_bad_record_names_its_line(files, tmp_path):
    bad = {"question": "2 + 3?", "answer": "five"}
    (tmp_path / "bad.jsonl").write_text(json.dumps(bad))
    with pytest.raises(ValueError, match=r"bad\.jsonl:1: the answer has no final"):
        problems.prepare(of_files(files, data=str(tmp_path / "bad.jsonl")), 0)


def test_digests_are_of_the_bytes(files, tmp_path):
    config = of_files(files)
    before = problems.digests(config)
    assert len(before) == 2
    copy = tmp_path / "test.jsonl"
    copy.write_bytes((files / "test.jsonl").read_bytes())
    moved = dataclasses.replace(config, tests=(str(copy),))
    assert problems.digests(moved) == before
    copy.write_text(copy.read_text() + "\n")
    assert problems.digests(moved) != before
    assert problems.digests(ProblemsConfig()) == []
