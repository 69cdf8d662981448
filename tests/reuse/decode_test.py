"""Text up to a string, against a decoder run anew for every token."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import checkpoints
from jaxlora import models, parallel
from jaxlora import reuse as reuses
from jaxlora.reuse import calls, decode
from jaxlora.reuse.decode import Batching, TextDecoding
from jaxlora.tasks.text import Record

N = 12
PROMPTS = ["A heron", "To be", "The ferry leaves at nine"]
run = jax.jit(models.apply, static_argnums=0)


@pytest.fixture(scope="module")
def reuse(checkpoint):
    return reuses.load(checkpoint, checkpoints.ADAPTERS[:1])


@pytest.fixture(scope="module")
def tokenizer(checkpoint, reuse):
    return decode.load_tokenizer(checkpoint, reuse)


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
    """Texts in batches of one length each, as an evaluation harness asks for them."""
    how, batching = TextDecoding(max_new_tokens=N, **how), Batching(batch, fixed=True)
    done = {}
    for part in decode.in_batches(reuse, tokenizer, prompts, how, batching, key=key):
        done |= part
    assert sorted(done) == list(range(len(prompts)))
    return [done[i].text for i in range(len(prompts))]


@pytest.mark.parametrize("batch", [1, 2])
def test_text_is_that_of_greedy_tokens(reuse, tokenizer, prompts, expected, batch):
    found = written(reuse, tokenizer, prompts, batch)
    assert found == [tokenizer.decode(ids) for ids in expected]
    assert len(set(found)) == len(found)


def test_prompts_that_fill_no_mesh_are_filled_up(
    reuse, tokenizer, prompts, monkeypatch
):
    sizes = []

    def generate(_, padded, *__):
        sizes.append(len(padded[0]))
        return np.zeros((sizes[-1], N), int), np.zeros(sizes[-1], int)

    monkeypatch.setattr(decode, "_generate", generate)
    cut = dataclasses.replace(reuse, mesh=parallel.mesh(data=4, fsdp=2))
    for some, batching in ((1, Batching(8)), (3, Batching(16)), (3, Batching(8))):
        list(
            decode.in_batches(
                cut, tokenizer, prompts[:some], TextDecoding(max_new_tokens=N), batching
            )
        )
    assert set(sizes) == {8}


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
    found = decode.stops(
        tokenizer, TextDecoding(max_new_tokens=1, until=("he", "<eos>"))
    )
    texts = {i: tokenizer.decode([i], False) for i in range(tokenizer.vocab_size)}
    assert set(found) == {i for i, t in texts.items() if "he" in t or t == "<eos>"}
    assert len(found) > 1
    assert decode.stops(tokenizer, TextDecoding(max_new_tokens=1)) == ()


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


def test_padding_stays_within_the_context(reuse, tokenizer, monkeypatch):
    shapes = []

    def generate(model, base, inputs, *args, **kwargs):
        shapes.append(inputs.tokens.shape)
        return real(model, base, inputs, *args, **kwargs)

    real = models.generate
    monkeypatch.setattr(models, "generate", generate)
    how = TextDecoding(max_new_tokens=120)
    assert len(
        list(decode.in_batches(reuse, tokenizer, [[3] * 8], how, Batching(1, True)))
    )
    assert shapes == [(1, 8)]


def test_a_prompt_without_room_is_refused(reuse, tokenizer):
    how = TextDecoding(max_new_tokens=1)
    context = reuse.model.config.max_length
    for wrong in ([], [3] * context):
        with pytest.raises(
            ValueError, match=rf"{len(wrong)} tokens, expected 1 to 127"
        ):
            decode.continuations(reuse, tokenizer, [[3], wrong], how, batch=1)
    assert decode.room(reuse, [3] * context) == 0


def test_the_cut_is_at_the_first_string_whatever_their_order():
    assert decode.cut("a b c", ("c", "b")) == decode.cut("a b c", ("b", "c")) == "a "
    assert decode.cut("abc", ()) == decode.cut("abc", ("x",)) == "abc"


def continued(reuse, tokenizer, prompts, batch=2, **options):
    how = TextDecoding(max_new_tokens=6)
    return decode.continuations(reuse, tokenizer, prompts, how, batch=batch, **options)


def test_order_and_batch_do_not_matter(reuse, tokenizer, prompts):
    every = continued(reuse, tokenizer, prompts)
    assert len({answer.text for answer in every}) > 1
    for i in (0, 1):
        assert continued(reuse, tokenizer, [prompts[i]]) == [every[i]]
    assert continued(reuse, tokenizer, prompts[::-1]) == every[::-1]


def test_progress_is_the_number_that_is_done(reuse, tokenizer, prompts):
    seen = []
    continued(reuse, tokenizer, prompts, progress=seen.append)
    assert seen == [2, 3]


def test_scores_that_are_no_numbers_are_refused(reuse, tokenizer, prompts):
    norm = jax.tree.map(lambda x: x * jnp.nan, reuse.base["final_norm"])
    odd = dataclasses.replace(reuse, base=reuse.base | {"final_norm": norm})
    with pytest.raises(ValueError, match="NaN or infinite in 1 of 1 rows"):
        written(odd, tokenizer, prompts[:1], batch=1)
    with pytest.raises(ValueError, match="NaN or infinite in 2 of 2 rows"):
        list(calls.logits(odd, np.ones((2, 3), int), 2))


def test_a_row_ends_at_the_context(reuse, tokenizer):
    context = reuse.model.config.max_length
    rows = continued(reuse, tokenizer, [[3] * (context - 2), [4] * (context - 5)])
    assert [row.tokens for row in rows] == [2, 5]
    assert not any(row.ended for row in rows)


def test_an_error_of_a_record_says_where_it_is(tokenizer):
    odd = Record(messages=({"role": "robot", "content": "x"},) * 2, where="a.jsonl:3")
    with pytest.raises(ValueError, match=r"^a.jsonl:3: .*chat"):
        decode.encode(odd, tokenizer)
