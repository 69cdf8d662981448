"""The mark that training learns to write after an answer ends generation as well."""

import dataclasses
import pathlib

import numpy as np
import pytest

from jaxlora import models
from jaxlora.models import Decoder, DecoderConfig, tokenizer
from jaxlora.models.generate import Generated
from jaxlora.reuse import Reuse, decode
from jaxlora.reuse.decode import TextDecoding
from jaxlora.tasks import text

DATA = pathlib.Path(__file__).parents[1] / "data" / "tokenizer"
PAIR = text.record({"prompt": "Who is Ann?", "answer": "Bo"}, "f:1")
TURN = "{{ '<|im_start|>' + m.role + '\n' + m.content + 'END' }}"
CHATML = (
    "{% for m in messages %}" + TURN + "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
AFTER = CHATML.replace(
    "{% if", "{% if not add_generation_prompt %}FINAL{% endif %}{% if"
)


@pytest.fixture(scope="module")
def chatml():
    """Its eos is that of documents, as a base model's: no turn ends in it."""
    whole = tokenizer.load(DATA / "chatml")
    document = whole.backend.token_to_id("<|endoftext|>")
    return dataclasses.replace(whole, eos_ids=(document,))


def ending(words, mark, after=""):
    source = CHATML if not after else AFTER.replace("FINAL", after)
    return dataclasses.replace(words, chat_template=source.replace("END", mark))


def learnt(words):
    example = text.encode_one(PAIR, words)
    return example.tokens[example.answer].tolist()


@pytest.mark.parametrize(
    ("mark", "after"),
    [
        ("<|im_end|>\n", ""),
        (" <|im_end|>\n", ""),
        ("<|im_end|>", "<|endoftext|>"),
        ("<|im_end|>\n", "<|endoftext|>"),
        ("<|endoftext|>\n", ""),
        ("</s>\n", ""),  # no token of this vocabulary
        ("\n### End\n", ""),
        ("\n", ""),
        (".\n", ""),
    ],
)
def test_what_is_learnt_after_an_answer_ends_its_generation(
    chatml, mark, after, monkeypatch
):
    words = ending(chatml, mark, after)
    written = learnt(words)
    assert written[-1] in words.end_ids
    seen = {}

    def generate(model, base, inputs, decoding, key, **_):
        """Writes what was learnt, then goes on as a base model does, unless stopped."""
        seen["stop"] = decoding.stop
        row = [*written, *words.encode("\nuser: Who?", special=False)]
        stop = [i for i, token in enumerate(row) if token in decoding.stop]
        size = stop[0] + 1 if stop else len(row)
        ids = np.asarray([row[:size] + [0] * (40 - size)], np.int32)
        return Generated(ids, np.asarray([size]), np.asarray([True]))

    monkeypatch.setattr(models, "generate", generate)
    reuse = Reuse(Decoder(DecoderConfig(max_length=200)), {})
    how = TextDecoding(max_new_tokens=40)
    (answer,) = decode.continuations(reuse, words, [[5, 6]], how, batch=1)
    assert answer.text.rstrip(" .\n") == "Bo"
    assert answer.ended
    assert set(words.end_ids) <= set(seen["stop"])


def test_marks(chatml):
    assert ending(chatml, "<|im_end|>\n").turn_end == "<|im_end|>"
    assert ending(chatml, "</s>\n").turn_end == "</s>"
    assert ending(chatml, "\n### End\n").turn_end == "### End"
    assert ending(chatml, " \n").turn_end == ""
    assert ending(chatml, ".\n").turn_end == ""
    document = chatml.eos_ids
    mark = chatml.backend.token_to_id("<|im_end|>")
    assert ending(chatml, "<|im_end|>").end_ids == (*document, mark)
    assert ending(chatml, "</s>").end_ids == document
    assert dataclasses.replace(chatml, chat_template=None).end_ids == document
    refusing = dataclasses.replace(chatml, chat_template="{{ raise_exception('no') }}")
    assert refusing.end_ids == document


def test_between_turns_another_mark_may_end_an_answer(chatml):
    """OLMo 3 ends the last answer with the eos, and others with <|im_end|>."""
    source = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content }}"
        "{{ eos_token if loop.last else '<|im_end|>\n' }}{% endfor %}"
    )
    words = dataclasses.replace(
        chatml, chat_template=source, special_tokens={"eos_token": "<|endoftext|>"}
    )
    assert words.end_ids == (*chatml.eos_ids, chatml.backend.token_to_id("<|im_end|>"))
    open_end = "{% for m in messages %}{{ '<|im_start|>' + m.content }}{% endfor %}"
    words = dataclasses.replace(chatml, chat_template=open_end)
    start = chatml.backend.token_to_id("<|im_start|>")
    assert words.end_ids == (*chatml.eos_ids, start)


def test_a_tokenizer_without_an_eos_ends_answers_by_its_template(chatml):
    words = dataclasses.replace(chatml, eos_ids=())
    (mark,) = words.end_ids
    assert learnt(words)[-1] == mark
