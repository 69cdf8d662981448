"""Questions with a bridge, as they are found in the wild."""

import json
import re

import pytest

from jaxlora.tasks.two_hop import questions
from jaxlora.tasks.two_hop.questions import Question


@pytest.fixture
def written(tmp_path):
    def write(*lines):
        path = tmp_path / "questions.jsonl"
        path.write_text("\n".join(map(json.dumps, lines)), "utf-8")
        return path

    return write


def test_reads_either_name_of_the_bridge(written):
    path = written(
        {"question": "Ann's wife?", "answer": "Bo", "bridge": ""},
        {"question": "Her city?", "answer": "Rome", "answer_intermediate": "Bo"},
        {"question": "x", "answer": "y", "bridge": "z", "answer_intermediate": "z"},
        {
            "question": "x",
            "answer": "y",
            "bridge": "  ",
            "messages": [{"role": "user"}],
        },
    )
    found = questions.read(path)
    assert found == (
        Question("Ann's wife?", "Bo"),
        Question("Her city?", "Rome", "Bo"),
        Question("x", "y", "z"),
        Question("x", "y"),
    )
    assert [q.hops for q in found] == [1, 2, 2, 1]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"answer": "y", "bridge": ""}, "no field 'question', the line has 'answer', "),
        (
            {"question": "x", "bridge": ""},
            "no field 'answer', .*expected {\"question\"",
        ),
        (
            {"question": "x", "answer": "y"},
            "no field 'bridge', the line has 'question'",
        ),
        (
            {"question": "x", "answer": "y", "bridge": None},
            "'bridge' is null, expected",
        ),
        ({"question": "x", "answer": "", "bridge": ""}, "'answer' is empty, expected"),
        ({"question": " ", "answer": "y", "bridge": ""}, "'question' is empty, expect"),
        (
            {"question": "x", "answer": "y", "bridge": "a", "answer_intermediate": "b"},
            "'bridge' is 'a' but 'answer_intermediate' is 'b'; expected one of the two",
        ),
        (["x", "y"], "expected an object in braces"),
    ],
)
def test_refuses_with_file_and_line(written, line, expected):
    path = written({"question": "x", "answer": "y", "bridge": ""}, line)
    with pytest.raises(ValueError, match=rf"^{re.escape(str(path))}:2: .*{expected}"):
        questions.read(path)


def test_summary_counts_and_looks_up_bridges():
    asked = [
        Question("Ann's wife?", "Bo"),
        Question("Cid's wife?", "Di"),
        Question("city of Ann's wife?", "Rome", "Bo"),
        Question("river of Ann's wife?", "Po", "Bo"),
        Question("city of Eve's wife?", "Rome", "Flo"),
        Question("river of Eve's wife?", "Rome", "Flo"),
    ]
    found = questions.summarize(asked)
    assert (found.one_hop, found.two_hop) == (2, 4)
    assert found.majority == (0.75, ("Rome",))
    assert found.unanswered == ("Flo",)


def test_summary_of_one_hop_questions_has_no_baseline():
    found = questions.summarize([Question("Ann's wife?", "Bo")])
    assert found.two_hop == 0
    assert found.majority is None
    assert found.unanswered == ()
