"""What a chat template leaves out is refused or said, and a call is learnt anywhere."""

import dataclasses
import pathlib

import pytest

from jaxlora.models import tokenizer
from jaxlora.tasks import text, text_shown

DATA = pathlib.Path(__file__).parents[1] / "data" / "tokenizer"
START, END = "<|im_start|>", "<|im_end|>"
# Mentions all, and shows nothing but words, as SmolLM3's does with thoughts.
MENTIONS = (
    "{% set enable_thinking = tools is defined and tool_calls is defined %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}"
)
# Of Qwen3: a thought is put before the last answer, and before no earlier one.
LAST = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if loop.last and m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}{% for c in m.tool_calls or [] %}<call>{{ c.function | tojson }}"
    "</call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Of DeepSeek R1: a call is shown if there is no content at all.
NONE = (
    "{% for m in messages %}{% if m.role == 'assistant' and m.content is none %}"
    "<call>{{ m.tool_calls[0].function.name }}</call>{% else %}"
    "{{ m.role }}: {{ m.content }}{% endif %}<|im_end|>{% endfor %}"
)
# Of Mistral's and Phi 3's: the system is dropped, or shown before the last question.
SILENT = (
    "{% for m in messages %}{% if m.role in ('user', 'assistant') %}"
    "{% if loop.last and m.role == 'user' and messages[0].role == 'system' %}"
    "{{ messages[0].content }} {% endif %}"
    "{{ m.role }}: {{ m.content }}<|im_end|>{% endif %}{% endfor %}"
)
CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
ASKED = {"role": "user", "content": "q"}
ANSWERED = {"role": "assistant", "content": "a"}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "seven"}


@pytest.fixture(scope="module")
def chatml():
    return tokenizer.load(DATA / "chatml")


def given(chatml, template):
    return dataclasses.replace(chatml, chat_template=template)


def learnt(words, *turns, **more):
    record = text.record({"messages": [*turns], **more}, "f:1")
    example = text.encode_one(record, words)
    return words.decode(example.tokens[example.answer], skip_special=False)


@pytest.mark.parametrize(
    ("turns", "more", "name"),
    [
        ([ASKED, ANSWERED | {"thinking": "because"}], {}, "reasoning_content"),
        ([ASKED, CALLED, RESULT, ANSWERED], {}, "tool_calls"),
        ([ASKED, ANSWERED], {"tools": [CALL]}, "tools"),
        ([{"role": "system", "content": "s", "tools": "f"}, ASKED, ANSWERED], {}, "to"),
    ],
)
def test_a_field_that_is_only_mentioned_is_refused(chatml, turns, more, name):
    with pytest.raises(ValueError, match=f"f:1: the record has '{name}.*not show"):
        learnt(given(chatml, MENTIONS), *turns, **more)


def test_a_call_before_the_last_turn_is_learnt(chatml):
    written = learnt(given(chatml, LAST), ASKED, CALLED, RESULT, ANSWERED)
    call = '<call>{"name": "f", "arguments": {"x": 1}}</call>'
    assert written == f"{call}{END}<think>\n\n</think>\n\na{END}"
    both = CALLED | {"content": "So:"}
    written = learnt(given(chatml, LAST), ASKED, both, RESULT, ANSWERED)
    assert written.startswith(f"So:{call}{END}<think>")
    both["train"] = False
    written = learnt(given(chatml, LAST), ASKED, both, RESULT, ANSWERED)
    assert written.startswith("<think>")


def test_a_call_without_content_has_none_where_a_template_asks_for_that(chatml):
    words = given(chatml, NONE)
    written = learnt(words, ASKED, CALLED, RESULT, ANSWERED)
    assert written == f"<call>f</call>{END}assistant: a{END}"
    with pytest.raises(ValueError, match="'tool_calls', which the chat template does"):
        learnt(words, ASKED, CALLED | {"content": "words"}, RESULT, ANSWERED)


def test_turns_that_are_left_out_are_said(chatml):
    words = given(chatml, SILENT)
    system = {"role": "system", "content": "Be kind."}
    turns = [system, ASKED, CALLED, RESULT, ANSWERED]
    plain = [text.record({"text": "q"}, "f:2"), text.record({"messages": turns}, "f:1")]
    calling = given(
        chatml, SILENT.replace("{{ m.content", "{{ m.tool_calls }}{{ m.con")
    )
    assert text_shown.left_out(plain, calling) == ("system", "tool")
    item = text.record({"messages": [system, ASKED, ANSWERED]}, "f:1")
    assert text_shown.left_out([item], words) == ("system",)
    assert text_shown.left_out([item], words, asked=True) == ()
    assert text_shown.left_out([item], given(chatml, None)) == ()
    (note,) = text_shown.note(("system",), "a.jsonl")
    assert note.startswith("a.jsonl: the chat template leaves out what is said by sys")
    assert not [*text_shown.note((), "a.jsonl")]


def test_an_error_names_the_record(chatml):
    with pytest.raises(ValueError, match=r"^f:1: .*half of a surrogate pair"):
        learnt(
            given(chatml, LAST.replace("{{ m.con", "{{ tools[0].name }}{{ m.con")),
            ASKED,
            ANSWERED,
            tools=[{"name": "\ud800"}],
        )
