"""What is asked has the tokens that were trained before the answer."""

import pathlib
import shutil
import types

import numpy as np
import pytest

from jaxlora.studies.two_hop.text import codec as codecs
from jaxlora.studies.two_hop.text import resources

DATA = pathlib.Path(__file__).parents[3] / "data" / "tokenizer"
TEXTS = [
    {"prompt": "Where does Ann live?", "answer": "Oslo"},
    {"prompt": "Complete the sentence: Ann lives in", "answer": "Oslo"},
]


@pytest.fixture(params=[("plain", True), ("chatml", True), ("chatml", False)], ids=str)
def codec(request):
    name, chat = request.param
    return codecs.load(DATA / name, chat)


def test_a_question_and_its_answer_are_a_training_example(codec):
    for text in TEXTS:
        rows = codec.rows([text], 96, seed=0)
        prompt, answer = codec.prompt(text["prompt"]), codec.answer(text["answer"])
        whole = prompt + answer
        assert rows.tokens[0, : len(whole)].tolist() == whole
        learnt = np.flatnonzero(rows.weights[0])
        # Targets are the next tokens: the first answer token is learnt one before it.
        assert learnt.tolist() == list(range(len(prompt) - 1, len(whole) - 1))
        assert rows.targets[0, learnt].tolist() == answer
        assert answer[-1] in codec.stop
        codec.check(text["prompt"], ["Oslo", "New Oslo"])


def test_the_template_is_used_only_if_asked():
    chat, plain = (codecs.load(DATA / "chatml", chat) for chat in (True, False))
    assert "<|im_start|>" in chat.tokenizer.decode(chat.prompt("Hi"), False)
    assert "<|im_start|>" not in plain.tokenizer.decode(plain.prompt("Hi"), False)


def test_generated_tokens_become_text(codec):
    ids = codec.answer("Bo Kim")
    assert codec.text(ids).strip() == "Bo Kim"


def test_prompts_are_padded_on_the_left(codec):
    tokens, mask = codec.padded(["Who?", "Who is it?"], 64)
    assert tokens.shape == mask.shape == (2, 64)
    assert mask[:, -1].all()
    assert tokens[0, mask[0]].tolist() == codec.prompt("Who?")


def test_no_fact_is_dropped(codec):
    long = {"prompt": "Where? " * 50, "answer": "Oslo"}
    with pytest.raises(ValueError, match="1 training texts are longer than 96 tokens"):
        codec.rows([*TEXTS, long], 96, seed=0)


def test_a_tokenizer_that_joins_prompt_and_answer_is_refused(codec, monkeypatch):
    real = codecs.PromptCodec._split

    def joined(self, question, answer):
        before, after = real(self, question, answer)
        return (before[:-1], after) if answer == "Oslo" else (before, after)

    monkeypatch.setattr(codecs.PromptCodec, "_split", joined)
    with pytest.raises(ValueError, match=r"together with the answer 'Oslo'"):
        codec.check("Where?", ["Rome", "Oslo"])


def test_the_tokenizer_is_the_one_named_or_what_adapters_bring(tmp_path):
    model = shutil.copytree(DATA / "plain", tmp_path / "model")
    (tmp_path / "ann").mkdir()
    template = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    (tmp_path / "ann" / "chat_template.jinja").write_text(template)

    def shown(**fields):
        config = types.SimpleNamespace(
            **{"model": str(model), "adapter": (), "tokenizer": "", "chat": True}
            | fields
        )
        return resources.words_of(config), resources.codec_of(config)

    source, plain = shown()
    assert source.notes == ()
    assert plain.tokenizer.chat_template is None
    source, brought = shown(adapter=(str(tmp_path / "ann"),))
    assert "ann brings chat_template.jinja" in source.notes[0]
    assert brought.tokenizer.chat_template == template
    source, named = shown(tokenizer=str(tmp_path / "ann"))
    assert source.notes == ()
    assert named.tokenizer.chat_template == template
    with pytest.raises(ValueError, match=r"has none of tokenizer\.json"):
        shown(tokenizer=str(tmp_path))
