"""Records as people have them: each is honoured, or refused by the name of a field."""

import dataclasses
import json
import pathlib

import pytest

from jaxlora.models import tokenizer
from jaxlora.tasks import prompts, text

DATA = pathlib.Path(__file__).parents[1] / "data" / "tokenizer"
TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: {{ tools | tojson }}<|im_end|>\n"
    "{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}"
    "{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<call>{{ c | tojson }}</call>{% endfor %}"
    "<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}


@pytest.fixture(scope="module")
def words():
    whole = tokenizer.load(DATA / "chatml")
    return dataclasses.replace(whole, chat_template=TEMPLATE)


@pytest.fixture(scope="module")
def bare():
    return tokenizer.load(DATA / "plain")


def user(content, **more):
    return {"role": "user", "content": content, **more}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def read(words, fields):
    """What a record becomes, and what of it is learnt."""
    example = text.encode_one(text.record(fields, "f:1"), words)
    whole = words.decode(example.tokens, skip_special=False)
    learnt = words.decode(example.tokens[example.answer], skip_special=False)
    return whole.replace("<|im_start|>", "|").replace("<|im_end|>", ";"), learnt


def learnt(words, fields):
    return read(words, fields)[1].replace("<|im_end|>", ";")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"train": False}, {}, "GOOD;"),
        ({"weight": 0}, {"weight": 1}, "GOOD;"),
        ({"weight": 0.0}, {"train": True}, "GOOD;"),
        ({"loss": False}, {"loss": True}, "GOOD;"),
        ({}, {"training": False}, "BAD;"),
        ({"loss_weight": 0.0}, {"trainable": True}, "GOOD;"),
        ({"should_train": False}, {}, "GOOD;"),
        ({"train": None}, {}, "BAD;GOOD;"),
        ({"weight": 1, "train": True}, {}, "BAD;GOOD;"),
    ],
)
def test_a_weight_says_which_turns_are_learnt(words, first, second, expected):
    turns = [user("q1"), assistant("BAD", **first)]
    turns += [user("q2", weight=0), assistant("GOOD", **second)]
    assert learnt(words, {"messages": turns}) == expected


def test_of_nothing_that_is_learnt_there_is_no_example(words, bare):
    item = {"messages": [user("q"), assistant("a", train=False)]}
    for known in (words, bare):
        assert not text.encode_one(text.record(item, "f:1"), known).answer.any()


TURNS = [user("q"), assistant("a")]
ASKED = "|user\nq;\n|assistant\n"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"messages": TURNS, "tools": [TOOL]}, "|system\nTools: [{"),
        ({"messages": TURNS, "tools": json.dumps([TOOL])}, "|system\nTools: [{"),
        (
            {"messages": [user("q"), assistant("a", reasoning_content="because")]},
            ASKED + "<think>because</think>a;",
        ),
        (
            {"messages": [user("q"), assistant("a", thinking="because")]},
            ASKED + "<think>because</think>a;",
        ),
        (
            {"messages": [user("q"), assistant("a", reasoning="because")]},
            ASKED + "<think>because</think>a;",
        ),
        ({"messages": TURNS, "system": "Be kind."}, "|system\nBe kind.;\n" + ASKED),
        (
            {"messages": [user([{"type": "text", "text": "q"}]), TURNS[1]]},
            ASKED + "a;",
        ),
        (
            {
                "messages": [
                    user("q"),
                    assistant(None, tool_calls=[CALL]),
                    {"role": "tool", "content": "7", "tool_call_id": "1"},
                    assistant("a"),
                ]
            },
            ASKED + "<call>{",
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "q"},
                    {"from": "gpt", "value": "a"},
                ]
            },
            ASKED + "a;",
        ),
        (
            {
                "system": "Be kind.",
                "conversations": [
                    {"from": "human", "value": "q"},
                    {"from": "function_call", "value": json.dumps(CALL["function"])},
                    {"from": "observation", "value": "7"},
                    {"from": "gpt", "value": "a"},
                ],
            },
            "|system\nBe kind.;\n" + ASKED + "<call>{",
        ),
        ({"conversation": TURNS}, ASKED + "a;"),
        (
            {"messages": [{"role": "Human", "content": "q"}, assistant("a")]},
            ASKED + "a;",
        ),
        (
            {"messages": [user("q"), {"role": "model", "content": "a"}]},
            ASKED + "a;",
        ),
        (
            {
                "conversations": [
                    {"role": "human", "value": "q"},
                    {"from": "Assistant", "content": "a"},
                ]
            },
            ASKED + "a;",
        ),
        ({"messages": TURNS, "tools": "null"}, ASKED + "a;"),
        ({"instruction": "q", "input": "  ", "output": "a"}, ASKED + "a;"),
        (
            {"instruction": "Add 1", "input": 3, "output": 4},
            "|user\nAdd 1\n3;\n|assistant\n4;",
        ),
        ({"prompt": [user("q")], "completion": [assistant("a")]}, ASKED + "a;"),
        ({"prompt": [user("q")], "completion": "a"}, ASKED + "a;"),
        ({"prompt": "q", "response": "a"}, ASKED + "a;"),
        ({"query": "q", "response": "a"}, ASKED + "a;"),
        ({"input": "q", "output": "a"}, ASKED + "a;"),
        ({"prompt": "q", "answer": 4}, ASKED + "4;"),
        ({"prompt": "q", "answer": -0.5}, ASKED + "-0.5;"),
        (
            {"context": "Ann lives in Oslo.", "question": "Where?", "answer": "Oslo"},
            "|user\nAnn lives in Oslo.\nWhere?;\n|assistant\nOslo;",
        ),
        (
            {
                "instruction": "Sum up.",
                "context": "c",
                "response": "a",
                "category": "x",
            },
            "|user\nSum up.\nc;\n|assistant\na;",
        ),
        (
            {"instruction": "q", "input": "", "output": "a", "history": [["p", "b"]]},
            "|user\np;\n|assistant\nb;\n" + ASKED + "a;",
        ),
        (
            {"instruction": "q", "input": "", "output": "a", "text": "Below is q a"},
            ASKED + "a;",
        ),
        ({"messages": TURNS, "prompt": "q", "prompt_id": "7"}, ASKED + "a;"),
    ],
)
def test_no_field_is_dropped(words, fields, expected):
    assert read(words, fields)[0].startswith(expected)


def test_calls_of_tools_are_learnt(words):
    turns = [user("q"), assistant("", tool_calls=[CALL])]
    turns += [{"role": "tool", "content": "7"}, assistant("a")]
    written = learnt(words, {"messages": turns})
    assert written.startswith("<call>{")
    assert written.endswith("</call>;a;")
    assert "7" not in written


def test_turns_of_a_prompt_are_not_learnt(words):
    before = [user("q1"), assistant("shown"), user("q2")]
    fields = {"prompt": before, "completion": [assistant("a")]}
    assert learnt(words, fields) == "a;"
    item = text.record(fields, "f:1")
    ids = text.prompt(item, words)
    assert words.decode(ids).endswith("assistant\n")
    fields = {"messages": [*before, assistant("a")], "system": "s"}
    assert learnt(words, fields) == "shown;a;"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"messages": [user("q"), assistant("a", weight=0.5)]}, "'weight' is 0.5"),
        (
            {"messages": [user("q", train=True), assistant("a")]},
            "'train' asks to learn",
        ),
        ({"messages": [user("q"), assistant("a", weight=0, train=True)]}, "disagree"),
        ({"messages": TURNS, "weight": 2}, "'weight' is 2: records count alike"),
        ({"messages": TURNS, "loss_mask": [0, 1]}, "'loss_mask' is which turns are l"),
        ({"messages": [user("q"), assistant("a", mask=1)]}, "'mask' is which turns"),
        ({"question": "q", "answer": "a", "choices": ["a"]}, "'choices' is answers to"),
        ({"passage": "p", "question": "q", "answer": "a"}, "expected it as 'context'"),
        (
            {"prompt": "q", "response": "a", "thinking": "x"},
            "'thinking' of a record is",
        ),
        ({"messages": TURNS, "tools": "x"}, "'tools' is .* expected JSON"),
        (
            {"messages": TURNS, "tools": ["x"]},
            "'tools' is .* expected a list of objects",
        ),
        ({"messages": TURNS, "functions": [TOOL]}, "'functions' is tools in their old"),
        ({"messages": TURNS, "images": ["a.png"]}, "'images' is pictures"),
        ({"messages": TURNS, "chosen": "a", "rejected": "b"}, "'chosen' is an answer"),
        ({"messages": TURNS, "documents": [{}]}, "'documents' is documents for retr"),
        (
            {"messages": [{"role": "system", "content": "x"}, *TURNS], "system": "y"},
            "'system' is 'y', but the first turn is of the system",
        ),
        (
            {"messages": [user([{"type": "image_url", "image_url": {}}]), TURNS[1]]},
            "part of type 'image_url'",
        ),
        (
            {
                "messages": [
                    user("q"),
                    assistant([{"type": "text", "text": "a", "weight": 0}]),
                ]
            },
            "turn 1: 'weight' stands in a part of 'content'",
        ),
        ({"messages": [user("q", thinking="x"), TURNS[1]]}, "'thinking' of 'user'"),
        ({"messages": [user("q", images=["x"]), TURNS[1]]}, "'images' is pictures"),
        ({"messages": TURNS, "answer": "b"}, "'answer' is there beside"),
        ({"prompt": "q", "answer": "a", "response": "b"}, "'response' is there beside"),
        ({"prompt": "q", "answer": "a", "input": "x"}, "'input' is there beside"),
        (
            {"prompt": [user("q")], "answer": "a", "context": "x"},
            "'context' stands bes",
        ),
        ({"instruction": "q", "output": "a", "history": ["x"]}, "'history' has 'x'"),
        ({"messages": TURNS, "history": [["p", "b"]]}, "'history' is there beside"),
        ({"conversations": [{"from": "human"}]}, "turn 0: no field 'content'"),
        ({"question": "q", "answer": "a", "text": "about"}, "'text' is there beside"),
        ({"prompt": "q", "answer": {"text": "a"}}, "'answer' is .*expected a string"),
        ({"prompt": "q", "answer": [7]}, r"'answer' is \[7\], expected a string"),
        ({"prompt": [], "answer": "a"}, r"'prompt' is \[\], expected a string"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=f"f:1.*{message}"):
        text.record(fields, "f:1")


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"messages": TURNS, "tools": [TOOL]}, "tools"),
        ({"messages": [user("q"), assistant("a", thinking="x")]}, "reasoning_content"),
        ({"messages": [user("q"), assistant("", tool_calls=[CALL])]}, "tool_calls"),
    ],
)
def test_what_a_template_does_not_show_is_refused(bare, fields, name):
    item = text.record(fields, "f:1")
    simple = tokenizer.load(DATA / "chatml")
    for known in (bare, simple):
        with pytest.raises(ValueError, match=f"f:1: .*{name}.*template"):
            text.encode_one(item, known)
        with pytest.raises(ValueError, match=f"f:1: .*{name}.*template"):
            text.prompt(item, known)


def test_harmless_fields_are_silent_and_unknown_ones_are_named(tmp_path):
    rows = [{"prompt": "q", "answer": "a", "id": 1, "_x": 2, "hue": "red"}]
    rows += [{"messages": [user("q", mood="sad", id=3), assistant("a")], "tone": 1}]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    (note,) = text.read(path).notes
    assert (
        note == f"{path}: fields that are not read, and are in no prompt or answer: "
        "hue, mood, tone."
    )
    path.write_text(json.dumps({"prompt": "q", "answer": "a", "hue": None, "level": 3}))
    assert text.read(path).notes == ()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"messages": None, "prompt": "q", "answer": "a"}, "q"),
        ({"prompt": None, "answer": "a", "question": "q"}, "q"),
        ({"messages": [], "prompt": "", "answer": None, "text": "q"}, ""),
    ],
)
def test_a_form_whose_columns_are_empty_is_not_that_of_a_record(fields, expected):
    item = text.record(fields, "f:1")
    assert (item.messages[0]["content"] if expected else item.text) == "q"


def test_a_field_of_a_part_is_named():
    part = {"type": "text", "text": "q", "hue": "red", "id": 3, "image_url": None}
    item = text.record({"messages": [user([part]), assistant("a")]}, "f:1")
    assert item.unread == ("hue",)


def test_a_turn_in_two_spellings_has_one_that_is_not_read():
    both = user("q") | {"from": "human", "value": "other"}
    item = text.record({"messages": [both, assistant("a")]}, "f:1")
    assert item.unread == ("from", "value")


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["alpaca.json", "alpaca.jsonl"])
def test_an_array_of_records_is_a_file_of_them(tmp_path, indent, name):
    rows = [
        {"instruction": f"{i} + 1?", "input": "", "output": i + 1} for i in range(3)
    ]
    path = tmp_path / name
    path.write_text("\ufeff" + json.dumps(rows, indent=indent), encoding="utf-8")
    read = text.read(path)
    assert [record.answer for record in read.records] == ["1", "2", "3"]
    assert read.records[1].where == f"{path}, record 1"
    assert text.read(tmp_path).records == read.records
    path.write_text(json.dumps([*rows, 7, {"q": 1}]))
    with pytest.raises(ValueError, match="record 3: got 7, expected an object"):
        text.read(path)
    assert text.read(path, skip_bad=True).skipped == 2


def test_prompts_may_be_turns(tmp_path):
    path = tmp_path / "p.jsonl"
    rows = [{"prompt": [{"role": "system", "content": "s"}, user("q")], "id": 3}]
    rows += [
        {"prompt": "q", "response": "a"},
        {"conversations": [{"from": "human", "value": "q"}]},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    read = prompts.read(path)
    assert [record.messages[-1] for record in read] == [user("q")] * 3
    assert len(read[0].messages) == 2


@pytest.mark.parametrize("name", ["messages", "conversation"])
def test_a_prompt_beside_turns_must_say_the_same(tmp_path, name):
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": "q", name: [user("q")]}))
    (read,) = prompts.read(path)
    assert read.messages == (user("q"),)
    path.write_text(json.dumps({"prompt": "other", name: [user("q")]}))
    with pytest.raises(ValueError, match=r"p.jsonl:1: .*'prompt'"):
        prompts.read(path)
