"""Ranking and text against a loop without a cache, for every kind of speaker."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

import decoders
from decoders import MIXED
from jaxlora import lora, models, route
from jaxlora.lora import LoraConfig
from jaxlora.models import Decoder, DecoderConfig
from jaxlora.models.padding import pad_left
from jaxlora.reuse import Reuse
from jaxlora.studies.two_hop.text import score
from jaxlora.studies.two_hop.text.score import Prompts

CONFIG = DecoderConfig(
    vocab_size=32,
    hidden_size=16,
    num_layers=2,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    mlp_size=32,
    positions="rope",
)
PROMPTS = [[3, 4, 5, 6], [7], [8, 9]]
ANSWERS = [[10], [11, 12, 13], [14, 15]]
LENGTH = 9
TOLERANCE = 1e-5  # float32 sums in another order
MIXED_TOLERANCE = 1e-4  # an ulp of each weight moves the logits by 2e-5


@pytest.fixture(scope="module")
def base():
    return jax.jit(models.init, static_argnums=1)(jax.random.key(0), Decoder(CONFIG))


@pytest.fixture(scope="module")
def library(base):
    made = [lora.init(jax.random.key(i), base, LoraConfig(rank=2)) for i in (1, 2)]
    loud = [
        lora.lora_map(
            lambda w, i=i: w.replace(
                b=jax.random.normal(jax.random.key(i), w.b.shape, w.b.dtype)
            ),
            adapter,
        )
        for i, adapter in enumerate(made)
    ]
    return lora.stack(loud)


@pytest.fixture(scope="module", params=["base", "adapter", "routed"])
def speaker(request, base, library):
    if request.param == "base":
        return Reuse(Decoder(CONFIG), base)
    if request.param == "adapter":
        return Reuse(Decoder(CONFIG), base, lora.unstack(library)[0])
    model = Decoder(CONFIG, route.Route(gate=route.arrow))
    state = model.route.gate.init(library)
    return Reuse(model, base, library=library, gate=state)


@functools.partial(jax.jit, static_argnums=(0,))
def _apply(model, base, arguments, tokens):
    return models.apply(model, base, tokens, **arguments)


def logits(speaker, sequences):
    """Of whole sequences, without a cache; nothing sees the padding on the right."""
    rows = [ids + [0] * (LENGTH - len(ids)) for ids in sequences]
    tokens = jnp.asarray(rows + [[0] * LENGTH] * (9 - len(rows)), jnp.int32)
    return np.asarray(
        _apply(speaker.model, speaker.base, speaker.arguments(), tokens), np.float64
    )


def reference(speaker, prompts=PROMPTS):
    pairs = [(prompt, answer) for prompt in prompts for answer in ANSWERS]
    found = log_softmax(logits(speaker, [p + a for p, a in pairs]), axis=-1)
    out = []
    for said, (prompt, answer) in zip(found, pairs, strict=True):
        places = len(prompt) - 1 + np.arange(len(answer))
        out.append(said[places, answer].sum())
    return np.reshape(out, (len(prompts), len(ANSWERS)))


def test_ranking_is_that_of_whole_sequences(speaker):
    prompts, answers = Prompts(*pad_left(PROMPTS, 0, 6)), score.right(ANSWERS, 4, 0)
    found = score.ranking(speaker, prompts, answers, 2, 2)
    np.testing.assert_allclose(found, reference(speaker), atol=TOLERANCE)


@pytest.mark.parametrize("shared", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_beside_linear_attention_each_answer_is_a_text(shared):
    """Whose state is of one text, begun by what all prompts begin with or not."""
    model = Decoder(dataclasses.replace(MIXED, vocab_size=32))
    speaker = Reuse(model, shaken := decoders.shaken(model), decoders.adapter(shaken))
    begun = [[20, 21, *prompt] for prompt in PROMPTS]
    prompts, answers = Prompts(*pad_left(begun, 0, 8)), score.right(ANSWERS, 4, 0)
    got = score.ranking(speaker, prompts, answers, 2, 2, shared=shared)
    want = reference(speaker, begun)
    np.testing.assert_allclose(got, want, atol=MIXED_TOLERANCE)
    assert abs(want - want[:1]).max() > 0.1


def test_what_prompts_begin_with_is_read_once(speaker):
    begun = [[20, 21, *prompt] for prompt in PROMPTS]
    prompts, answers = Prompts(*pad_left(begun, 0, 8)), score.right(ANSWERS, 4, 0)
    alone = score.ranking(speaker, prompts, answers, 2, 2)
    for shared in (1, 2, 5):  # 5: more than they do share
        once = score.ranking(speaker, prompts, answers, 2, 2, shared=shared)
        np.testing.assert_allclose(once, alone, atol=TOLERANCE)


def test_trees_are_refused_where_a_window_would_cut_them(base):
    """Slots of a tree are further apart than the tokens of one answer."""
    local = dataclasses.replace(CONFIG, local_layers=(True, False), window=21)
    prompts, answers = Prompts(*pad_left(PROMPTS, 0, 6)), score.right(ANSWERS, 4, 0)
    with pytest.raises(ValueError, match="22 tokens side by side, expected no more"):
        score.ranking(Reuse(Decoder(local), base), prompts, answers, 2, 2)


def test_per_token_scores_are_means(base):
    speaker = Reuse(Decoder(CONFIG), base)
    prompts, answers = Prompts(*pad_left(PROMPTS, 0, 6)), score.right(ANSWERS, 4, 0)
    found = score.ranking(speaker, prompts, answers, 2, 2, per_token=True)
    wanted = reference(speaker) / np.array([[1, 3, 2]])
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


def test_text_is_the_argmax_of_whole_sequences(speaker):
    prompts = Prompts(*pad_left(PROMPTS, 0, 6))
    found = score.text(speaker, prompts, 2, 3, (), 0)
    whole = logits(speaker, [p + said for p, said in zip(PROMPTS, found, strict=True)])
    for prompt, said, scores in zip(PROMPTS, found, whole, strict=False):
        places = len(prompt) - 1 + np.arange(3)
        assert said == scores[places].argmax(-1).tolist()


def test_a_stop_token_ends_the_text_and_is_left_out(base):
    speaker = Reuse(Decoder(CONFIG), base)
    prompts = Prompts(*pad_left(PROMPTS, 0, 6))
    whole = score.text(speaker, prompts, 2, 3, (), 0)
    stopped = score.text(speaker, prompts, 2, 3, (whole[0][1],), 0)
    assert stopped[0] == whole[0][: whole[0].index(whole[0][1])]
