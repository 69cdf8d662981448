"""Templates as they are read: the annotated fields, and every refusal."""

import json
import re

import pytest

from jaxlora.tasks.gsm import template


def test_the_parts_of_a_template(parse):
    parsed = parse(
        ["name, other = sample(names, 2)", "$n=range(2, 9)"],
        question="{name, Ola} has {n,3} cups, {other,Pia} has none.",
        solution="<<{n}*2={n*2}>>{n*2}\n#### { n*2}",
        answer="$n",
        rules=["n > 2"],
    )
    assert parsed.defaults == {"name": "Ola", "n": "3", "other": "Pia"}
    assert [x.names for x in parsed.bindings] == [("name", "other"), ("n",)]
    assert [x.names for x in parsed.conditions] == [{"n"}]
    assert set(parsed.slots) == {"n", "n*2", " n*2"}
    assert (parsed.original, parsed.where) == (5, "cups.json")
    # The trap of P1 and P2: their plain fields are still the problem of GSM8K.
    assert "easier" not in parsed.question


def test_forms_of_lines_that_the_files_have(parse):
    parsed = parse(["$n = range(2, 9)"], rules=["n > 2\n-is_int(n/2)"])
    assert len(parsed.conditions) == 2
    assert parse(["$n = range(2, 9)"], answer="{n}").answer
    record = {
        "question_annotated": "{n,3} cups\n#init:\n- $n = range(4)\n#answer = n",
        "answer_annotated": "#### {n}",
    }
    assert template.template(record, "").conditions == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"init": ["$m = range(4)"]}, "'n' is used and never drawn; #init draws m."),
        ({"rules": ["k > 2"]}, "'k' is used and never drawn"),
        ({"answer": "k"}, "'k' is used and never drawn"),
        ({"solution": "#### {k}"}, "'k' is used and never drawn"),
        ({"init": ["n"]}, "'n' in #init draws nothing"),
        ({"init": ["n, m = range(4)"]}, "draws 1 of 4 entries"),
        ({"init": ["n, m = sample([1], 2)"]}, "draws 2 of 1 entries"),
        ({"init": ["n = range(0)"]}, "draws 1 of 0 entries"),
        ({"init": ["n = open('x')"]}, "calls 'open'"),
        ({"rules": ["n >"]}, "is no Python"),
        ({"solution": "#### {n.real}"}, "holds 'n.real'"),
        ({"rules": ["1 > 2"]}, "is about no value"),
    ],
)
def test_a_bad_template_is_one_sentence_with_its_file(parse, changes, message):
    parts = {"init": ["$n = range(2, 9)"]} | changes
    with pytest.raises(ValueError, match=rf"^cups\.json: .*{re.escape(message)}"):
        parse(**parts)


def test_sections_and_fields_that_are_missing_are_named():
    record = {"question_annotated": "{n,3} cups", "answer_annotated": "#### {n}"}
    with pytest.raises(ValueError, match=r"c\.json: .* lacks #init: or #answer:"):
        template.template(record, "c.json")
    with pytest.raises(ValueError, match=r"c\.json: no field 'question_annotated'"):
        template.template({"question": "2?", "answer": "#### 2"}, "c.json")


def test_a_folder_in_the_order_of_names(tmp_path):
    for name in ("0001", "0000"):
        text = f"{{n,3}} cups of {name}\n#init:\n- $n = range(4)\n#answer: n"
        record = {"question_annotated": text, "answer_annotated": "#### {n}"}
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    questions = [x.question for x in template.read(tmp_path)]
    assert questions == ["{n,3} cups of 0000", "{n,3} cups of 0001"]
    assert len(list(template.read(tmp_path / "0000.json"))) == 1
    with pytest.raises(ValueError, match=r"Cannot read .*no\.json"):
        list(template.read(tmp_path / "no.json"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty has no \*\.json"):
        list(template.read(tmp_path / "empty"))
