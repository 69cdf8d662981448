"""What is asked has the tokens that were trained before the answer."""

import pathlib

import numpy as np
import pytest

from jaxlora.studies.two_hop_text import talk

DATA = pathlib.Path(__file__).parents[2] / "data" / "tokenizer"
TEXTS = [
    {"prompt": "Where does Ann live?", "answer": "Oslo"},
    {"prompt": "Complete the sentence: Ann lives in", "answer": "Oslo"},
]


@pytest.fixture(params=[("plain", True), ("chatml", True), ("chatml", False)], ids=str)
def spoken(request):
    name, chat = request.param
    return talk.load(DATA / name, chat)


def test_a_question_and_its_answer_are_a_training_example(spoken):
    for text in TEXTS:
        rows = spoken.rows([text], 96, seed=0)
        prompt, answer = spoken.prompt(text["prompt"]), spoken.answer(text["answer"])
        whole = prompt + answer
        assert rows.tokens[0, : len(whole)].tolist() == whole
        learnt = np.flatnonzero(rows.weights[0])
        # Targets are the next tokens: the first answer token is learnt one before it.
        assert learnt.tolist() == list(range(len(prompt) - 1, len(whole) - 1))
        assert rows.targets[0, learnt].tolist() == answer
        assert answer[-1] in spoken.stop
        spoken.check(text["prompt"], ["Oslo", "New Oslo"])


def test_the_template_is_used_only_if_asked():
    chat, plain = (talk.load(DATA / "chatml", chat) for chat in (True, False))
    assert "<|im_start|>" in chat.tokenizer.decode(chat.prompt("Hi"), False)
    assert "<|im_start|>" not in plain.tokenizer.decode(plain.prompt("Hi"), False)


def test_generated_tokens_become_text(spoken):
    ids = spoken.answer("Bo Kim")
    assert spoken.text(ids).strip() == "Bo Kim"


def test_prompts_are_padded_on_the_left(spoken):
    tokens, mask = spoken.padded(["Who?", "Who is it?"], 64)
    assert tokens.shape == mask.shape == (2, 64)
    assert mask[:, -1].all()
    assert tokens[0, mask[0]].tolist() == spoken.prompt("Who?")


def test_no_fact_is_dropped(spoken):
    long = {"prompt": "Where? " * 50, "answer": "Oslo"}
    with pytest.raises(ValueError, match="1 training texts are longer than 96 tokens"):
        spoken.rows([*TEXTS, long], 96, seed=0)


def test_a_tokenizer_that_joins_prompt_and_answer_is_refused(spoken, monkeypatch):
    real = talk.Talk._split

    def joined(self, asked, said):
        before, after = real(self, asked, said)
        return (before[:-1], after) if said == "Oslo" else (before, after)

    monkeypatch.setattr(talk.Talk, "_split", joined)
    with pytest.raises(ValueError, match=r"together with the answer 'Oslo'"):
        spoken.check("Where?", ["Rome", "Oslo"])
