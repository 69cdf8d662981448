"""Text up to a string, against a decoder run anew for every token."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import pytest
from jaxlora.integrations.writing import Writing

from jaxlora import models
from jaxlora.integrations import writing
from jaxlora.models import reuse as reuses
from jaxlora.models import tokenizer as tokenizers

N = 12
PROMPTS = ["A heron", "To be", "The ferry leaves at nine"]
run = jax.jit(models.apply, static_argnums=0)


@pytest.fixture(scope="module")
def reuse(checkpoint, adapters):
    return reuses.load(checkpoint, adapters[:1])


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return tokenizers.load(checkpoint)


@pytest.fixture(scope="module")
def prompts(tokenizer):
    """Of two padded lengths."""
    return [tokenizer.encode(text) for text in PROMPTS]


@pytest.fixture(scope="module")
def expected(reuse, prompts):
    """N greedy tokens after each prompt; one padded row, run again for every token."""
    found = []
    for prompt in prompts:
        row = list(prompt)
        for _ in range(N):
            padded = jnp.asarray([row + [0] * (64 - len(row))], jnp.int32)
            logits = run(reuse.model, reuse.base, padded, **reuse.arguments())
            row.append(int(jnp.argmax(logits[0, len(row) - 1])))
        found.append(row[len(prompt) :])
    return found


def written(reuse, tokenizer, prompts, batch=2, key=None, **how):
    how = Writing(max_new_tokens=N, **how)
    found = dict(writing.write(reuse, tokenizer, prompts, how, batch=batch, key=key))
    assert sorted(found) == list(range(len(prompts)))
    return [found[i] for i in range(len(prompts))]


@pytest.mark.parametrize("batch", [1, 2])
def test_text_is_that_of_greedy_tokens(reuse, tokenizer, prompts, expected, batch):
    found = written(reuse, tokenizer, prompts, batch)
    assert found == [tokenizer.decode(ids) for ids in expected]
    assert len(set(found)) == len(found)


def test_text_ends_before_the_first_of_its_strings(reuse, tokenizer, prompts, expected):
    whole = [tokenizer.decode(ids) for ids in expected]
    inner = whole[0][len(whole[0]) // 2]  # in some token
    spanning = _between_tokens(tokenizer, expected[1])
    for until in [(inner,), (spanning,), (spanning, inner), ("no such text",)]:
        found = written(reuse, tokenizer, prompts, until=until)
        ends = [min([t.find(s) for s in until if s in t], default=None) for t in whole]
        assert found == [t[:end] for t, end in zip(whole, ends, strict=True)]
    assert spanning in whole[1]


def _between_tokens(tokenizer, ids):
    """Two characters that stand next to each other in the text, but in no token."""
    texts = [tokenizer.decode([i]) for i in ids]
    every = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    pairs = [a[-1] + b[0] for a, b in itertools.pairwise(texts)]
    return next(pair for pair in pairs if not any(pair in t for t in every))


def test_a_token_that_holds_the_string_ends_the_row(
    reuse, tokenizer, prompts, expected, monkeypatch
):
    lengths = []

    def generate(*args, **kwargs):
        made = real(*args, **kwargs)
        lengths.extend(made.lengths.tolist())
        return made

    real = models.generate
    monkeypatch.setattr(models, "generate", generate)
    third = tokenizer.decode([expected[0][2]])
    written(reuse, tokenizer, prompts[:1], batch=1, until=(third,))
    assert lengths[0] <= 3
    # A thinking model may write it before its answer.
    written(reuse, tokenizer, prompts[:1], batch=1, until=(third,), thought="@@")
    assert lengths[1] == N


def test_stops_are_the_tokens_with_a_string_in_them(tokenizer):
    found = writing.stops(tokenizer, Writing(max_new_tokens=1, until=("he", "<eos>")))
    texts = {i: tokenizer.decode([i], False) for i in range(tokenizer.vocab_size)}
    assert set(found) == {i for i, t in texts.items() if "he" in t or t == "<eos>"}
    assert len(found) > 1
    assert writing.stops(tokenizer, Writing(max_new_tokens=1)) == ()


def test_an_end_token_ends_the_text_and_is_not_in_it(
    reuse, tokenizer, prompts, expected
):
    ends = dataclasses.replace(tokenizer, eos_ids=(expected[0][4],))
    first = expected[0].index(expected[0][4])
    assert written(reuse, ends, prompts)[0] == tokenizer.decode(expected[0][:first])


def test_thoughts_are_dropped_and_strings_in_them_do_not_count(
    reuse, tokenizer, prompts, expected
):
    whole = tokenizer.decode(expected[0])
    thought = next(c for c in whole[3:] if c.strip())
    answer = whole[whole.rindex(thought) + 1 :].lstrip()
    assert len(answer) < len(whole) - 3
    found = written(reuse, tokenizer, prompts, thought=thought, until=(whole[0],))
    assert found[0] == answer.split(whole[0])[0]


def test_rows_are_filled_up_to_one_shape_for_each_length(
    reuse, tokenizer, prompts, monkeypatch
):
    shapes = []

    def generate(model, base, inputs, *args, **kwargs):
        shapes.append(inputs.tokens.shape)
        return real(model, base, inputs, *args, **kwargs)

    real = models.generate
    monkeypatch.setattr(models, "generate", generate)
    written(reuse, tokenizer, [*prompts, *prompts[:1]], batch=2)
    assert shapes == [(2, 32), (2, 16), (2, 16)]


def test_sampling_follows_its_key(reuse, tokenizer, prompts):
    four = prompts[:1] * 4
    asked = {"batch": 2, "temperature": 1.5}
    first, same, other = (
        written(reuse, tokenizer, four, key=jax.random.key(i), **asked)
        for i in (0, 0, 1)
    )
    assert first == same != other
    assert len(set(first)) == 4  # a repeated prompt gets another sample
    only = written(reuse, tokenizer, four, key=jax.random.key(0), top_k=1, **asked)
    assert only == written(reuse, tokenizer, four)


def test_a_prompt_without_room_is_refused(reuse, tokenizer):
    how = Writing(max_new_tokens=120)
    fits, longer = [3] * 8, [3] * 9
    assert dict(writing.write(reuse, tokenizer, [fits], how, batch=1))
    with pytest.raises(ValueError, match="9 tokens, expected at most 8: of the 128"):
        list(writing.write(reuse, tokenizer, [fits, longer], how, batch=1))


def test_settings_of_tasks():
    assert writing.settings({}) == Writing(max_new_tokens=256)
    given = {"until": ["\n", ""], "max_gen_toks": 3, "max_tokens": 9}
    assert writing.settings(given) == Writing(max_new_tokens=3, until=("\n",))
    assert writing.settings({"max_tokens": 9}).max_new_tokens == 9
    assert writing.settings({}, 7, "x") == Writing(max_new_tokens=7, thought="x")
    given = {"top_k": 5, "top_p": 0.9, "temperature": 0.7, "num_beams": 1}
    assert writing.settings(given, 1) == Writing(
        max_new_tokens=1, top_k=5, top_p=0.9, temperature=0.7
    )
    assert writing.settings({"top_k": -1}).top_k == 0


@pytest.mark.parametrize(
    ("given", "temperature"),
    [
        ({}, 0),
        ({"do_sample": True}, 1),
        ({"do_sample": False, "temperature": 0.7}, 0),
        ({"do_sample": True, "temperature": 0.7}, 0.7),
        ({"temperature": 0.7}, 0.7),
    ],
)
def test_temperature_of_tasks(given, temperature):
    assert writing.settings(given).temperature == temperature


def test_options_that_would_be_ignored_are_refused():
    with pytest.raises(ValueError, match=r"\{'num_beams': 4\}.*not supported"):
        writing.settings({"num_beams": 4, "until": "x"})


def test_the_cut_is_at_the_first_string_whatever_their_order():
    assert writing.cut("a b c", ("c", "b")) == writing.cut("a b c", ("b", "c")) == "a "
    assert writing.cut("abc", ()) == writing.cut("abc", ("x",)) == "abc"
