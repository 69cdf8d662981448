"""Learnt are the answers and the tokens that end them, whatever the template does."""

import dataclasses
import pathlib

import hypothesis
import numpy as np
import pytest
import tokenizers
from hypothesis import strategies as st

from jaxlora.models import chat
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.tasks import text
from jaxlora.tasks.text import Record

DATA = pathlib.Path(__file__).parents[1] / "data" / "tokenizer"
SUM = Record(
    messages=(
        {"role": "user", "content": "Ann has 3 pens and 4. How many?"},
        {"role": "assistant", "content": "3 + 4 = 7\n#### 7"},
    ),
    where="sums.jsonl:1",
)
LONG = Record(
    messages=(
        {"role": "system", "content": "You add."},
        {"role": "user", "content": "1 + 1"},
        {"role": "assistant", "content": "<think>one</think>It is 2."},
        {"role": "user", "content": "It is 2."},
        {"role": "assistant", "content": "<think>two</think>It is 2."},
    )
)
TURN = "{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
THINK = (
    "{% for m in messages %}{% if m.role == 'assistant' and not loop.last %}"
    "{{ '<|im_start|>assistant\n' + m.content.split('</think>')[-1] + '<|im_end|>\n' }}"
    "{% else %}" + TURN + "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
"""Drops the reasoning of earlier turns; its generation prompt opens a thought."""
BARE = (
    "{% for m in messages %}{{ '### ' + m.role + ':\n' + m.content + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '### assistant:\n' }}{% endif %}"
)
"""Has no end token."""


def _learnt(item, tokenizer):
    example = text.encode_one(item, tokenizer)
    return tokenizer.decode(example.tokens[example.answer], skip_special=False)


def _whole(item, tokenizer):
    tokens = text.encode_one(item, tokenizer).tokens
    return tokenizer.decode(tokens, skip_special=False)


def test_a_pair_without_a_template(plain):
    assert _learnt(SUM, plain) == "3 + 4 = 7\n#### 7<eos>"
    asked = "<bos>Ann has 3 pens and 4. How many?\n"
    assert _whole(SUM, plain) == asked + "3 + 4 = 7\n#### 7<eos>"
    assert plain.decode(text.prompt(SUM, plain), skip_special=False) == asked


def test_a_completion_follows_its_prompt_at_once(plain):
    item = text.record({"prompt": "2 + 2 =", "completion": " 4"}, "f:1")
    assert _whole(item, plain) == "<bos>2 + 2 = 4<eos>"
    assert _learnt(item, plain) == " 4<eos>"
    ended = text.record({"prompt": "2 + 2 = ", "answer": "4"}, "f:1")
    assert _whole(ended, plain) == "<bos>2 + 2 = 4<eos>"


def test_a_system_turn_without_a_template(plain):
    item = Record(messages=({"role": "system", "content": "Add."}, *SUM.messages))
    assert _whole(item, plain).startswith("<bos>Add.\nAnn has")


def test_of_plain_text_all_is_learnt_but_the_first_token(plain, chatml):
    item = Record(text="Ann has é.")
    assert _learnt(item, plain) == "Ann has é.<eos>"
    example = text.encode_one(item, chatml)
    assert example.answer.tolist() == [False] + [True] * (len(example.tokens) - 1)
    assert _whole(item, chatml) == "Ann has é.<|im_end|>"


def test_a_pair_by_the_template(chatml):
    assert _learnt(SUM, chatml) == "3 + 4 = 7\n#### 7<|im_end|>"
    rendered = chatml.render(SUM.messages, add_generation_prompt=False)
    assert _whole(SUM, chatml) == rendered.removesuffix("\n")


def test_what_is_before_the_answer_is_the_prompt(plain, chatml):
    for one in (plain, chatml):
        ids = text.prompt(SUM, one)
        example = text.encode_one(SUM, one)
        np.testing.assert_array_equal(example.tokens[: len(ids)], ids)
        assert example.answer.tolist() == [
            i >= len(ids) for i in range(len(example.tokens))
        ]


def test_every_turn_of_the_assistant_is_learnt(chatml):
    said = [m["content"] + "<|im_end|>" for m in LONG.messages[2::2]]
    assert _learnt(LONG, chatml) == "".join(said)
    asked = Record(messages=(*LONG.messages, {"role": "user", "content": "Why?"}))
    assert _learnt(asked, chatml) == "".join(said)
    assert "Why" not in _whole(asked, chatml)


def test_a_template_that_changes_earlier_turns(chatml):
    """The words of the answer are also the user's: they must not be learnt there."""
    one = dataclasses.replace(chatml, chat_template=THINK)
    first = dataclasses.replace(LONG, messages=LONG.messages[:3])
    # What the generation prompt gives, <think>, the model need not learn to say.
    assert _learnt(first, one) == "one</think>It is 2.<|im_end|>"
    example = text.encode_one(LONG, one)
    assert _learnt(LONG, one) == "two</think>It is 2.<|im_end|>"
    whole = one.decode(example.tokens, skip_special=False)
    assert "one" not in whole
    kept = ({"role": "assistant", "content": "It is 2."},)
    plain_first = (*LONG.messages[:2], *kept, *LONG.messages[3:])
    said = "It is 2.<|im_end|>two</think>It is 2.<|im_end|>"
    assert _learnt(Record(messages=plain_first), one) == said


@pytest.mark.parametrize("source", [THINK, THINK.replace("<think>\n", "")])
def test_words_that_are_also_in_the_name_of_a_role(chatml, source):
    # No part is rendered as the start of the whole: words are looked for.
    one = dataclasses.replace(chatml, chat_template="{{ messages|length }}" + source)
    said = ("a", "assistant", "user")
    turns = [
        turn
        for word in said
        for turn in (
            {"role": "user", "content": "Which?"},
            {"role": "assistant", "content": word},
        )
    ]
    expected = "".join(f"{word}<|im_end|>" for word in said)
    assert _learnt(Record(messages=tuple(turns)), one) == expected


def test_a_generation_prompt_that_opens_a_thought(chatml):
    one = dataclasses.replace(chatml, chat_template=THINK)
    assert _learnt(SUM, one) == "3 + 4 = 7\n#### 7<|im_end|>"


def test_a_template_that_counts_its_turns(chatml):
    """No part of the conversation is rendered as the start of the whole."""
    count = "{{ messages|length }} {{ 'turn' * messages|length }}\n"
    one = dataclasses.replace(chatml, chat_template=count + chatml.chat_template)
    assert _learnt(SUM, one) == "3 + 4 = 7\n#### 7<|im_end|>"


def test_a_template_that_trims(chatml):
    source = THINK.replace("m.content +", "m.content|trim +")
    one = dataclasses.replace(chatml, chat_template=source)
    said = {"role": "assistant", "content": "  7 \n"}
    item = Record(messages=(SUM.messages[0], said))
    assert _learnt(item, one) == "7<|im_end|>"


def test_a_template_without_an_end_token_gets_one(chatml):
    one = dataclasses.replace(chatml, chat_template=BARE)
    assert _learnt(SUM, one) == "3 + 4 = 7\n#### 7\n<|im_end|>"
    assert _whole(SUM, one).startswith("### user:\nAnn")


def test_an_assistant_that_speaks_first(chatml):
    first = {"role": "assistant", "content": "Hello!"}
    item = Record(messages=(first, *SUM.messages))
    assert _learnt(item, chatml) == "Hello!<|im_end|>3 + 4 = 7\n#### 7<|im_end|>"


def test_an_end_token_around_the_text_is_not_doubled(plain):
    backend = tokenizers.Tokenizer.from_file(str(DATA / "plain" / "tokenizer.json"))
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    one = dataclasses.replace(plain, backend=backend)
    same, expected = text.encode_one(SUM, one), text.encode_one(SUM, plain)
    np.testing.assert_array_equal(same.tokens, expected.tokens)
    np.testing.assert_array_equal(same.answer, expected.answer)
    assert text.prompt(SUM, one) == text.prompt(SUM, plain)
    ends = text.record({"prompt": "a<eos>", "completion": "b"}, "f:1")
    assert text.prompt(ends, plain)[-1] == 2


def test_a_token_across_the_border_is_learnt():
    """Merges know nothing of prompts: here the border is inside a token."""
    vocab = {"<eos>": 0, "a": 1, "b": 2, "c": 3, "bc": 4}
    model = tokenizers.models.BPE(vocab, [("b", "c")])
    one = Tokenizer(
        backend=tokenizers.Tokenizer(model),
        vocab_size=5,
        bos_id=None,
        eos_ids=(0,),
        pad_id=0,
    )
    item = text.record({"prompt": "ab", "completion": "ca"}, "f:1")
    example = text.encode_one(item, one)
    assert example.tokens.tolist() == [1, 4, 1, 0]
    assert example.answer.tolist() == [False, True, True, True]


def test_text_of_which_no_character_is_known_has_no_answer():
    model = tokenizers.models.BPE({"<eos>": 0, "a": 1}, [])
    one = Tokenizer(
        backend=tokenizers.Tokenizer(model),
        vocab_size=2,
        bos_id=None,
        eos_ids=(0,),
        pad_id=0,
    )
    with pytest.raises(ValueError, match="1 have no answer"):
        text.encode([Record(text="xyz")], one, 8)


WORDS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=9)


@hypothesis.given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3))
@hypothesis.settings(max_examples=30, deadline=None)
def test_learnt_is_what_the_assistant_says(chatml, turns):
    roles = ("user", "assistant")
    made = [dict(role=r, content=c) for t in turns for r, c in zip(roles, t)]  # noqa
    said = "".join(answer + "<|im_end|>" for _, answer in turns)
    assert _learnt(Record(messages=tuple(made)), chatml) == said


def test_more_turns_without_a_template_say_what_to_do(plain):
    with pytest.raises(ValueError, match=r"^f:2: a conversation of 5 turns.*PLAIN"):
        text.encode_one(dataclasses.replace(LONG, where="f:2"), plain)
    one = dataclasses.replace(plain, chat_template=chat.PLAIN)
    said = [" " + m["content"] + "<eos>" for m in LONG.messages[2::2]]
    assert _learnt(LONG, one) == "".join(said)


def test_no_end_token_and_no_prompt_are_said(plain):
    with pytest.raises(ValueError, match="names no eos_token"):
        text.encode_one(SUM, dataclasses.replace(plain, eos_ids=()))
    with pytest.raises(ValueError, match="f:3: plain text has no prompt"):
        text.prompt(Record(text="a", where="f:3"), plain)


def test_what_does_not_fit_is_dropped_or_cut_and_counted(plain):
    short, long = Record(text="Ann has"), Record(text="Ann has " * 30)
    silent = Record(messages=SUM.messages[:1])
    found = text.encode([short, long, silent, short], plain, length=30)
    assert len(found.examples) == 2
    assert (found.too_long, found.truncated, found.no_answer) == (1, 0, 1)
    cut = text.encode([short, long, silent], plain, length=30, truncate=True)
    assert [len(e.tokens) for e in cut.examples][1:] == [30]
    assert (cut.too_long, cut.truncated, cut.no_answer) == (0, 1, 1)
    np.testing.assert_array_equal(
        cut.examples[1].tokens, text.encode_one(long, plain).tokens[:30]
    )


def test_an_example_of_just_the_length_fits(plain):
    size = len(text.encode_one(SUM, plain).tokens)
    assert len(text.encode([SUM], plain, size).examples[0].tokens) == size
    with pytest.raises(ValueError, match=rf"1 are longer than {size - 1} tokens"):
        text.encode([SUM], plain, size - 1)


def test_a_cut_answer_is_no_answer(plain):
    asked = len(text.prompt(SUM, plain))
    with pytest.raises(ValueError, match="1 have no answer"):
        text.encode([SUM], plain, asked, truncate=True)
    assert text.encode([SUM], plain, asked + 1, truncate=True).examples


def test_refusals_of_the_template_stop_or_are_counted(chatml):
    source = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}"
    one = dataclasses.replace(chatml, chat_template=source + "{% endif %}" + BARE)
    bad = dataclasses.replace(LONG, where="f:9")
    with pytest.raises(ValueError, match=r"^f:9: The chat template refuses.*no system"):
        text.encode([SUM, bad], one, 400)
    found = text.encode([SUM, bad], one, 400, skip_bad=True)
    assert (len(found.examples), found.refused) == (1, 1)
    assert found.first_error.startswith("f:9: ")
    with pytest.raises(ValueError, match=r"1 are refused by.*f:9"):
        text.encode([bad], one, 400, skip_bad=True)
