"""Decoding with a cache against the argmax of whole forward passes."""

import dataclasses
import importlib
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import decoders
from decoders import TINY, WINDOW
from jaxlora import lora, route
from jaxlora.models import (
    Decoder,
    Decoding,
    Inputs,
    apply,
    gate_state,
    generate,
)
from jaxlora.route import Route

# E == L == B: nothing may be guessed from shapes.
E = L = B = 3
V, N, PAD = 13, 6, 12
CONFIG = dataclasses.replace(
    WINDOW,
    num_layers=L,
    local_layers=(True, False, True),
    post_norms=True,
    norm_plus_one=True,
    qk_norm=True,
)
MODEL = Decoder(CONFIG)
ARROW = Decoder(CONFIG, Route(gate=route.arrow, top_k=2, temperature=0.5))
PROMPTS = ((3, 1, 4, 1, 5, 9, 2), (6, 5), (3, 5, 8, 9))
LENGTHS = [len(prompt) for prompt in PROMPTS]
run = jax.jit(apply, static_argnums=0)


def left(prompts, length=7):
    """Tokens and mask [B, T], padded on the left."""
    tokens = np.zeros((len(prompts), length), np.int32)
    for row, prompt in zip(tokens, prompts, strict=True):
        row[length - len(prompt) :] = prompt
    used = np.array([len(prompt) for prompt in prompts])[:, None]
    return Inputs(jnp.asarray(tokens), jnp.arange(length)[None] >= length - used)


def argmaxes(model, base, prompts=PROMPTS, steps=N, **given):
    """Greedy tokens [B, N] by whole forward passes, rows padded on the right."""
    at = np.array([len(prompt) for prompt in prompts])
    row, tokens = np.arange(len(prompts)), np.zeros((len(prompts), 7 + N), np.int32)
    for line, prompt in zip(tokens, prompts, strict=True):
        line[: len(prompt)] = prompt
    out = []
    for _ in range(steps):
        scores = np.asarray(run(model, base, jnp.asarray(tokens), **given))[row, at - 1]
        best = np.sort(scores, axis=-1)
        assert (best[:, -1] - best[:, -2]).min() > 1e-4  # no matter of rounding
        out.append(scores.argmax(-1))
        tokens[row, at] = out[-1]
        at = at + 1
    return np.stack(out, axis=1)


def decode(model, base, prompts=PROMPTS, **given):
    """Continues prompts; keywords of Decoding and of generate."""
    fields = {field.name for field in dataclasses.fields(Decoding)} & set(given)
    how = Decoding(
        **{"max_new_tokens": N, **{name: given.pop(name) for name in fields}}
    )
    return generate(model, base, left(prompts), how, **given)


@pytest.fixture(scope="module")
def base(make_base):
    return make_base(MODEL)


@pytest.fixture(scope="module")
def library(base):
    return decoders.library(base, E)


@pytest.fixture(scope="module")
def gate(library):
    return jax.jit(route.arrow.init)(library)


@pytest.fixture(scope="module")
def greedy(base):
    return argmaxes(MODEL, base)


def test_rows_of_unequal_length_equal_whole_forward_passes(base, greedy):
    got = decode(MODEL, base)
    np.testing.assert_array_equal(got.tokens, greedy)
    np.testing.assert_array_equal(got.lengths, [N] * B)
    assert len({tuple(row) for row in greedy}) == B


def test_a_row_alone_without_a_mask(base, greedy):
    tokens = jnp.asarray([PROMPTS[2]])
    alone = generate(MODEL, base, tokens, Decoding(N))
    np.testing.assert_array_equal(alone.tokens, greedy[2:])


def test_what_padding_holds_does_not_matter(base, greedy):
    tokens, mask = left(PROMPTS)[:2]
    changed = Inputs(jnp.where(mask, tokens, 7), mask)
    other = generate(MODEL, base, changed, Decoding(N))
    np.testing.assert_array_equal(other.tokens, greedy)


def test_learned_positions_count_tokens_not_slots(make_base):
    model = Decoder(TINY)
    base = make_base(model)
    want = argmaxes(model, base)
    np.testing.assert_array_equal(decode(model, base).tokens, want)


@pytest.mark.slow
def test_every_expert_at_once_is_every_expert_alone(base, library, greedy):
    got = decode(MODEL, base, library=library)
    assert got.tokens.shape == (E, B, N)
    assert got.lengths.shape == (E, B)
    for e, adapter in enumerate(lora.unstack(library)):
        want = argmaxes(MODEL, base, adapter=adapter)
        np.testing.assert_array_equal(got.tokens[e], want)
        alone = decode(MODEL, base, adapter=adapter)
        np.testing.assert_array_equal(alone.tokens, want)
        assert (want != greedy).any()


def test_a_routed_library_is_routed_at_every_step(base, library, gate):
    want = argmaxes(ARROW, base, library=library, gate=gate)
    np.testing.assert_array_equal(decode(ARROW, base, library=library).tokens, want)
    turned = jax.tree.map(
        lambda state: dataclasses.replace(state, keys=jnp.roll(state.keys, 1, axis=0)),
        gate,
        is_leaf=route.is_state,
    )
    other = argmaxes(ARROW, base, library=library, gate=turned)
    got = decode(ARROW, base, library=library, gate=turned)
    np.testing.assert_array_equal(got.tokens, other)
    assert (want != other).any()


def cut(tokens, stop, pad):
    """What rows [N] become when they end at the first stop token, and the lengths."""
    tokens, lengths = np.array(tokens), []
    for row in tokens:
        ends = [i + 1 for i, token in enumerate(row) if token in stop]
        lengths.append(ends[0] if ends else len(row))
        row[lengths[-1] :] = pad
    return tokens, lengths


def test_stop_tokens_end_their_rows(base, greedy):
    for stop in ({int(greedy[0, 2])}, {int(greedy[1, 0]), int(greedy[2, 3])}):
        got = decode(MODEL, base, stop=tuple(stop), pad=PAD)
        tokens, lengths = cut(greedy, stop, PAD)
        np.testing.assert_array_equal(got.tokens, tokens)
        np.testing.assert_array_equal(got.lengths, lengths)
        assert min(lengths) < N


def test_experts_stop_one_by_one(base, library):
    free = decode(MODEL, base, library=library).tokens
    stop = {int(free[1, 0, 1])}
    got = decode(MODEL, base, library=library, stop=tuple(stop), pad=PAD)
    for e in range(E):
        tokens, lengths = cut(free[e], stop, PAD)
        np.testing.assert_array_equal(got.tokens[e], tokens)
        np.testing.assert_array_equal(got.lengths[e], lengths)
    assert len(np.unique(got.lengths)) > 1


def test_it_ends_when_every_row_has_ended(base, greedy, monkeypatch):
    plain = jax.lax.while_loop

    def counted(going, body, start):
        """As ``while_loop``, and brings out how often it went around in lengths."""
        end, times = plain(
            lambda pair: going(pair[0]),
            lambda pair: (body(pair[0]), pair[1] + 1),
            (start, jnp.int32(0)),
        )
        return end._replace(lengths=end.lengths + 100 * times)

    # No other test asks for N - 1 tokens, and meets the program that is traced here.
    monkeypatch.setattr(jax.lax, "while_loop", counted)
    for stop, steps in ((), N - 1), ({int(token) for token in greedy[:, 1]}, 2):
        got = decode(MODEL, base, max_new_tokens=N - 1, stop=tuple(stop))
        tokens, lengths = cut(greedy[:, :-1], stop, 0)
        np.testing.assert_array_equal(got.tokens, tokens)
        np.testing.assert_array_equal(got.lengths % 100, lengths)
        assert max(lengths) == steps
        assert (got.lengths // 100 == steps - 1).all()  # the prefill gives the first


def test_a_gate_of_another_library_is_refused(base, library, gate):
    other = jax.tree.map(lambda x: x[::-1], gate)
    with pytest.raises(ValueError, match="was made for another library"):
        decode(ARROW, base, library=library, gate=other)


def test_other_values_do_not_compile_again(base, library):
    program = importlib.import_module("jaxlora.models.generate")._generate
    adapters, sizes = lora.unstack(library), []
    for i in range(2):  # other prompts, adapters, keys and numbers
        prompts, scale = PROMPTS[:: 1 - 2 * i], 1.0 + i
        more = {"stop": (i, 5), "pad": i}
        decode(MODEL, base, prompts, adapter=adapters[i], **more)
        more |= {"key": jax.random.key(i), "temperature": 0.5 + i, "top_p": 0.9 - i / 9}
        decode(MODEL, base, prompts, **more)
        scaled = lora.lora_map(lambda w, s=scale: w.replace(scale=w.scale * s), library)
        decode(MODEL, base, library=scaled, stop=(i,))
        of_scaled = gate_state(ARROW, scaled)
        decode(ARROW, base, library=scaled, gate=of_scaled)
        sizes.append(program._cache_size())
    assert sizes[0] == sizes[1] > 0


SAMPLING = {"temperature": 0.7, "key": jax.random.key(3)}


@pytest.fixture(scope="module")
def sampled(base):
    return decode(MODEL, base, **SAMPLING).tokens


def test_the_key_decides_the_sample(base, sampled, greedy):
    again = decode(MODEL, base, **SAMPLING)
    np.testing.assert_array_equal(again.tokens, sampled)
    other = decode(MODEL, base, **{**SAMPLING, "key": jax.random.key(4)})
    assert (np.asarray(other.tokens) != sampled).mean() > 0.3
    assert (np.asarray(sampled) != greedy).mean() > 0.3


def test_a_row_is_sampled_whatever_the_other_rows_say(base, sampled):
    got = decode(MODEL, base, ((1, 2), PROMPTS[1], (9, 9, 9)), **SAMPLING).tokens
    np.testing.assert_array_equal(got[1], sampled[1])
    assert (np.asarray(got) != sampled)[::2].any()
    stop = (int(sampled[0, 0]),)  # nor when they end
    got = decode(MODEL, base, stop=stop, **SAMPLING).tokens
    np.testing.assert_array_equal(got, cut(sampled, stop, 0)[0])


@pytest.mark.slow
def test_experts_sample_as_they_do_alone(base, library):
    got = decode(MODEL, base, library=library, **SAMPLING).tokens
    alone = decode(MODEL, base, adapter=lora.unstack(library)[2], **SAMPLING).tokens
    np.testing.assert_array_equal(got[2], alone)


@pytest.mark.parametrize("few", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}])
def test_the_narrowest_sampling_is_greedy(base, greedy, few):
    got = decode(MODEL, base, **{**SAMPLING, **few})
    np.testing.assert_array_equal(got.tokens, greedy)


ROWS = 4096


def shares(base, **given):
    """How often each token follows one prompt, of many rows."""
    tokens = jnp.full((ROWS, 1), 4)
    how, key = Decoding(1, **given), jax.random.key(11)
    drawn = generate(MODEL, base, tokens, how, key=key).tokens[:, 0]
    return np.bincount(drawn, minlength=V)


def chi_square(count, share):
    """The statistic over tokens that can come; a thousandth beyond 33 at 12 degrees."""
    want = count.sum() * share
    assert not count[share == 0].any()
    return float((((count - want) ** 2)[share > 0] / want[share > 0]).sum())


@pytest.fixture(scope="module")
def scores(base):
    return np.asarray(run(MODEL, base, jnp.full((1, 1), 4)), np.float64)[0, 0]


def softmax(scores):
    return np.exp(scores - scores.max()) / np.exp(scores - scores.max()).sum()


def test_temperature_divides_the_logits(base, scores):
    for temperature in (0.8, 2.0):
        count = shares(base, temperature=temperature)
        assert chi_square(count, softmax(scores / temperature)) < 33
        assert chi_square(count, softmax(scores / temperature / 1.5)) > 100


def test_only_the_most_likely_k_tokens_come(base, scores):
    least = np.sort(scores)[-3]
    share = softmax(np.where(scores < least, -np.inf, scores / 1.5))
    assert (share > 0).sum() == 3
    assert chi_square(shares(base, temperature=1.5, top_k=3), share) < 14


@pytest.mark.parametrize("top_p", [0.5, 0.9])
def test_only_the_nucleus_comes(base, scores, top_p):
    share = softmax(scores / 1.5)
    order = np.argsort(-share)
    size = int(np.searchsorted(np.cumsum(share[order]), top_p)) + 1
    assert 1 < size < V
    kept = np.zeros(V)
    kept[order[:size]] = share[order[:size]]
    count = shares(base, temperature=1.5, top_p=top_p)
    assert chi_square(count, kept / kept.sum()) < 33
    assert (count[order[:size]] > 0).all()


def test_rows_and_steps_are_drawn_independently(base):
    # So hot that all tokens are equally likely: pairs of draws are, too.
    # The top_k most likely of fewer tokens are all of them.
    how = Decoding(3, temperature=1e5, top_k=V + 5)
    prompts = jnp.full((ROWS, 1), 4)
    tokens = generate(MODEL, base, prompts, how, key=jax.random.key(5)).tokens
    tokens = np.asarray(tokens)
    for one, two in ((tokens[1:], tokens[:-1]), (tokens[:, 1:], tokens[:, :-1])):
        count = np.bincount((one * V + two).ravel(), minlength=V * V)
        assert chi_square(count, np.full(V * V, V**-2.0)) < 231  # a thousandth


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens=0, .* at least one token"),
        ({"temperature": -1.0}, "temperature=-1.0, .* temperature >= 0"),
        ({"top_k": -1}, "top_k=-1, .* top_k >= 0"),
        ({"top_p": 0.0}, "top_p=0.0: .* 0 < top_p <= 1"),
        ({"top_p": 1.1}, "top_p=1.1: .* 0 < top_p <= 1"),
        ({"temperature": 0.7}, "temperature is 0.7, but no key was given"),
    ],
)
def test_numbers_out_of_range_are_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        decode(MODEL, None, **given)


def test_prompts_that_cannot_be_continued_are_refused(base, library):
    prompts = left(PROMPTS)
    tokens, mask, *_ = prompts
    for wrong in (mask[:, ::-1], mask.at[1].set(False)):
        with pytest.raises(
            ValueError, match="A prompt does not end in a token; pad on"
        ):
            generate(MODEL, base, Inputs(tokens, wrong), Decoding(1))
    with pytest.raises(ValueError, match=r"14 tokens, but .* positions for 13"):
        generate(Decoder(TINY), base, prompts, Decoding(7))
    with pytest.raises(ValueError, match="it needs library="):
        generate(ARROW, base, prompts, Decoding(1))
    with pytest.raises(ValueError, match="has a, b, scale of shapes"):
        generate(MODEL, base, prompts, Decoding(1), adapter=library)


HF = pathlib.Path(__file__).parents[1] / "data" / "hf"
FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text")


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_continues_the_same_way(family):
    from jaxlora.models import adapters, pretrained

    model, base = pretrained.load(HF / family / "base")
    plain = adapters.load(HF / family / "plain", base)
    still = lora.lora_map(lambda w: w.replace(scale=0 * w.scale), plain)
    told = json.loads((HF / family / "reference.json").read_text())
    prompts = told["input_ids"]
    both = lora.stack([still, plain])
    got = generate(model, base, left(prompts, 11), Decoding(8), library=both)
    want = [told["greedy"]["base"], told["greedy"]["plain"]]
    np.testing.assert_array_equal(got.tokens, want)
