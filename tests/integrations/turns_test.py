"""Conversations with a closed or an open last turn."""

import dataclasses
import logging

import pytest

from jaxlora.integrations import turns
from jaxlora.models import tokenizer as tokenizers

USER = {"role": "user", "content": "How many?"}
SYSTEM = {"role": "system", "content": "Count."}
OPENED = {"role": "assistant", "content": "The answer is"}
STRICT = (
    "{% for m in messages %}{% if m.role == 'system' %}"
    "{{ raise_exception('no system') }}{% endif %}"
    "<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer(chatting):
    return tokenizers.load(chatting)


@pytest.fixture
def strict(tokenizer):
    return dataclasses.replace(tokenizer, chat_template=STRICT)


def test_a_closed_conversation_asks_for_an_answer(tokenizer):
    text = turns.text(tokenizer, [SYSTEM, USER], closed=True)
    assert text == tokenizer.render([SYSTEM, USER])
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_an_open_turn_ends_where_its_content_does(tokenizer):
    text = turns.text(tokenizer, [USER, OPENED], closed=False)
    assert text.endswith("<|im_start|>assistant\nThe answer is")
    spaced = {**OPENED, "content": "The answer is: "}
    text = turns.text(tokenizer, [USER, spaced], closed=False)
    assert text.endswith("The answer is: ")


def test_an_open_turn_that_the_template_trims_has_no_space_at_its_end(strict):
    spaced = {**OPENED, "content": "The answer is: "}
    text = turns.text(strict, [USER, spaced], closed=False)
    assert text == "<user>How many?</><assistant>The answer is:"


def test_a_refused_system_turn_is_left_out_and_said(strict, caplog):
    with caplog.at_level(logging.WARNING):
        text = turns.text(strict, [SYSTEM, USER], closed=True)
    assert text == "<user>How many?</><assistant>"
    assert "Left out the system turn" in caplog.text
    assert "no system" in caplog.text


def test_other_refusals_stay_refusals(tokenizer):
    never = dataclasses.replace(
        tokenizer, chat_template="{{ raise_exception('never') }}"
    )
    for messages in ([USER], [SYSTEM, USER]):
        with pytest.raises(ValueError, match="never"):
            turns.text(never, messages, closed=True)
    without = dataclasses.replace(tokenizer, chat_template=None)
    with pytest.raises(ValueError, match="no chat template"):
        turns.text(without, [SYSTEM, USER], closed=True)


def test_a_template_that_hides_the_last_turn_cannot_continue_it(tokenizer):
    deaf = dataclasses.replace(tokenizer, chat_template="{{ messages[0].content }}")
    with pytest.raises(ValueError, match="does not show the assistant turn"):
        turns.text(deaf, [USER, OPENED], closed=False)
