"""What a system is made of, and what it is asked."""

import jax
import numpy as np
import pytest

from jaxlora import lora, merge
from jaxlora.evaluate.schema import Arm, Method
from jaxlora.models import tokenizer
from jaxlora.reuse import decode
from jaxlora.studies.word_problems.text import answer, design, problems, protocol
from jaxlora.studies.word_problems.text.answer import Setting
from jaxlora.studies.word_problems.text.design import Regime
from jaxlora.tasks import text

PLAIN = Regime(("plain",))


@pytest.fixture(scope="module")
def setting(tiny):
    data = problems.prepare(tiny, 0)
    loaded = protocol.load(tiny, lambda *_: None)
    ready = Setting(tiny, *loaded, data.asked, data.shots, 0)
    return ready._replace(
        adapters={
            expert: _adapter(i, loaded.base, tiny)
            for i, expert in enumerate(design.experts(tiny))
        }
    )


def _adapter(number, base, tiny):
    """With a delta: fresh adapters have none."""
    fresh = lora.init(jax.random.key(number), base, tiny.lora)
    key = jax.random.key(100 + number)
    return jax.tree.map(lambda x: x + 0.1 * jax.random.normal(key, x.shape), fresh)


def deltas(adapter):
    return {name: np.asarray(lora.delta(w)) for name, w in lora.sites(adapter).items()}


def test_the_base_runs_without_adapters_and_an_expert_with_its_own(setting):
    base = answer.speaker(setting, PLAIN, Arm.BASE, Method.NONE)
    assert base.arguments() == {}
    expert = answer.speaker(setting, PLAIN, Arm.EXPERT_B, Method.NONE)
    (b,) = design.members(PLAIN, Arm.EXPERT_B)
    for name, delta in deltas(setting.adapters[b]).items():
        np.testing.assert_allclose(deltas(expert.adapter)[name], delta, atol=1e-6)


def test_a_mean_is_the_mean_of_easy_and_medium(setting):
    mixed = deltas(answer.speaker(setting, PLAIN, Arm.PAIR, Method.MEAN).adapter)
    pair = [deltas(setting.adapters[x]) for x in design.members(PLAIN, Arm.PAIR)]
    for name, delta in mixed.items():
        expected = (pair[0][name] + pair[1][name]) / 2
        np.testing.assert_allclose(delta, expected, atol=1e-5)


def test_random_experts_keep_sizes_and_lose_directions(setting):
    random = deltas(answer.speaker(setting, PLAIN, Arm.RANDOM, Method.SUM).adapter)
    same = deltas(answer.speaker(setting, PLAIN, Arm.RANDOM, Method.SUM).adapter)
    mixed = deltas(answer.speaker(setting, PLAIN, Arm.PAIR, Method.SUM).adapter)
    for name, delta in random.items():
        np.testing.assert_array_equal(delta, same[name])
        alike = (delta * mixed[name]).sum()
        alike /= np.linalg.norm(delta) * np.linalg.norm(mixed[name])
        assert abs(alike) < 0.3
        assert 0.3 < np.linalg.norm(delta) / np.linalg.norm(mixed[name]) < 3


def test_a_route_keeps_both_experts(setting):
    routed = answer.speaker(setting, PLAIN, Arm.PAIR, Method.ARROW)
    assert routed.adapter is None
    assert lora.num_experts(routed.library) == 2
    assert set(routed.arguments()) == {"library", "gate"}


def test_adapters_share_a_rank_and_so_a_program(setting):
    who = [
        answer.speaker(setting, PLAIN, Arm.JOINT, Method.NONE),
        answer.speaker(setting, PLAIN, Arm.PAIR, Method.SUM),
        answer.speaker(setting, Regime(("plain", "python")), Arm.PAIR, Method.MEAN),
    ]
    ranks = {w.rank for x in who for w in lora.sites(x.adapter).values()}
    assert ranks == {2 * setting.config.lora.rank}


def test_a_prompt_is_what_stands_before_the_answer_in_training(setting):
    question = setting.asked[0].question
    ids = answer.prompt(setting.tokenizer, question)
    record = text.record({"question": question, "answer": "It is 7."}, "")
    learned, mask = text.encode_one(record, setting.tokenizer)
    assert learned[: len(ids)].tolist() == ids
    assert not mask[: len(ids)].any()
    assert mask[len(ids)]


def test_worked_examples_stand_before_the_question(setting):
    asked = answer.worked(setting.shots, "python", "How many?")
    assert asked.count("Question: ") == asked.count("\nAnswer:") == 3
    assert asked.endswith("\n\nQuestion: How many?\nAnswer:")
    assert asked.index(setting.shots[1].solutions["python"]) > asked.index(
        setting.shots[1].question
    )


def test_texts_are_read_and_kept(setting, monkeypatch):
    right = [x.solutions["plain"] for x in setting.asked]
    texts = [*right[:-1], "#### 99999"]
    prompts = []

    def continuations(who, words, given, how, *, batch):
        prompts.extend(given)
        assert how.max_new_tokens == setting.config.ask.new_tokens
        return [decode.Continuation(x, 5, i > 0) for i, x in enumerate(texts)]

    monkeypatch.setattr(decode, "continuations", continuations)
    outcome = answer.answer(setting, PLAIN, Arm.EXPERT_A, Method.NONE)
    items = outcome.items
    assert tuple(items.columns) == answer.COLUMNS
    assert items["correct"].tolist() == [1] * (len(texts) - 1) + [0]
    assert items["steps"].tolist() == [1] * (len(texts) - 1) + [0]
    assert items["level"].tolist() == [x.level for x in setting.asked]
    assert items["ended"].tolist() == [0] + [1] * (len(texts) - 1)
    assert outcome.notes["texts"] == texts
    words = setting.tokenizer
    assert prompts == [answer.prompt(words, x.question) for x in setting.asked]
    prompts.clear()
    answer.answer(setting, PLAIN, Arm.FEW_SHOT, Method.NONE)
    assert setting.shots[0].question in words.decode(prompts[0])


def test_the_base_is_read_as_any_text(setting, monkeypatch):
    texts = [f"so it is {x.answer}" for x in setting.asked]
    done = [decode.Continuation(x, 5, True) for x in texts]
    monkeypatch.setattr(decode, "continuations", lambda *_, **__: done)
    items = answer.answer(setting, PLAIN, Arm.BASE, Method.NONE).items
    assert set(items["correct"]) == {1}
    assert set(items["form"]) == {"none"}


def test_a_method_that_cannot_combine_says_so(setting, monkeypatch):
    refused = "placed-sum" if "placed-sum" in merge.names() else "slerp"
    monkeypatch.setattr(answer.combine, "obstacle", lambda *_: "No room.")
    outcome = answer.answer(setting, PLAIN, Arm.PAIR, Method(refused))
    assert outcome.notes == {"unavailable": "No room."}
    assert tuple(outcome.items.columns) == answer.COLUMNS


def test_the_tokenizer_of_the_checkpoint_keeps_its_template_unless_told(tiny, folder):
    import dataclasses

    assert tokenizer.load(folder).chat_template
    _, words = protocol.check(dataclasses.replace(tiny, chat=False))
    assert words.chat_template is None
    assert protocol.check(tiny)[1].chat_template
