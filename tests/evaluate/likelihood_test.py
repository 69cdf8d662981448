"""Log-probabilities of continuations, against one unpadded row at a time in NumPy."""

import dataclasses
import functools
import itertools

import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import decoders
from decoders import TEXT
from jaxlora import models, route
from jaxlora.evaluate import likelihood
from jaxlora.models import Adapted, Decoder, apply
from jaxlora.route import Route

V, E = 53, 3
CONFIG = dataclasses.replace(
    TEXT,
    vocab_size=V,
    local_layers=(True, False),
    window=5,
    final_softcap=8.0,
    max_length=40,
)
MODEL = Decoder(CONFIG)
ROUTED = Decoder(CONFIG, Route(gate=route.arrow, top_k=2))
run = jax.jit(apply, static_argnums=0)
ATOL = 2e-5  # float32 sums of at most 30 terms near 4; measured 4e-6


@pytest.fixture(scope="module")
def base():
    return decoders.fresh(MODEL)


@pytest.fixture(scope="module")
def library(base):
    """[E, ...], of which no part is zero."""
    return decoders.library(base, E)


def expert(library, i):
    return jax.tree.map(lambda x: x[i], library)


@pytest.fixture(scope="module")
def pairs():
    """Lengths in several buckets of both kinds; one has more pairs than rows."""
    rng = np.random.default_rng(1)
    sizes = [(3, 1), (20, 9), (38, 1), (2, 2), (1, 3), (3, 1), (2, 2)]
    draw = lambda n: rng.integers(0, V, n).tolist()  # noqa: E731
    return [(draw(a), draw(b)) for a, b in sizes]


def alone(model, base, pair, **arguments):
    """Log-probability and hits of one pair, from its own logits in float64."""
    context, continuation = pair
    row = jnp.asarray([[*context, *continuation][:-1]], jnp.int32)
    logits = np.asarray(run(model, base, row, **arguments), np.float64)[0]
    logits = logits[len(context) - 1 :]
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    total = log[np.arange(len(continuation)), continuation].sum()
    return total, (logits.argmax(-1) == continuation).all()


def expected(model, base, pairs, **arguments):
    found = [alone(model, base, pair, **arguments) for pair in pairs]
    return tuple(map(np.array, zip(*found, strict=True)))


@pytest.mark.parametrize("reuse", ["base", "adapter", "routed"])
def test_score_is_that_of_each_pair_alone(base, library, pairs, reuse):
    model = ROUTED if reuse == "routed" else MODEL
    arguments = {
        "base": {},
        "adapter": {"adapter": expert(library, 1)},
        "routed": {"library": library},
    }[reuse]
    total, greedy = expected(model, base, pairs, **arguments)
    scores = likelihood.score(model, base, pairs, batch=4, adapted=Adapted(**arguments))
    np.testing.assert_allclose(scores.total, total, atol=ATOL)
    np.testing.assert_array_equal(scores.greedy, greedy)
    np.testing.assert_array_equal(scores.count, [len(c) for _, c in pairs])
    if reuse != "base":  # or a dead adapter would pass
        plain = likelihood.score(MODEL, base, pairs, batch=4).total
        assert np.abs(plain - scores.total).min() > 10 * ATOL


def test_all_experts_at_once_are_each_alone(base, library, pairs):
    scores = likelihood.score(
        MODEL, base, pairs, adapted=Adapted(None, library), batch=4
    )
    assert scores.total.shape == scores.greedy.shape == (E, len(pairs))
    for i in range(E):
        total, greedy = expected(MODEL, base, pairs, adapter=expert(library, i))
        np.testing.assert_allclose(scores.total[i], total, atol=ATOL)
        np.testing.assert_array_equal(scores.greedy[i], greedy)
    np.testing.assert_array_equal(scores.count, [len(c) for _, c in pairs])


def test_a_given_gate_is_used(base, library, pairs):
    gate = ROUTED.route.gate.init(library)
    turned = jax.tree.map(lambda x: x[::-1], gate)
    asked = functools.partial(likelihood.score, ROUTED, base, pairs, batch=4)
    first, same, other = (
        asked(adapted=Adapted(None, library, state)) for state in (None, gate, turned)
    )
    np.testing.assert_array_equal(first.total, same.total)
    assert np.abs(first.total - other.total).max() > 0.01


def test_the_score_of_a_pair_does_not_depend_on_the_others(base, pairs):
    every = likelihood.score(MODEL, base, pairs, batch=4)
    order = np.random.default_rng(2).permutation(len(pairs))
    mixed = likelihood.score(MODEL, base, [pairs[i] for i in order], batch=4)
    np.testing.assert_array_equal(mixed.total, every.total[order])
    for i in (0, 1, 2):
        single = likelihood.score(MODEL, base, [pairs[i]], batch=4)
        assert single.total[0] == every.total[i]


def test_one_compilation_per_bucket(base, monkeypatch):
    model = Decoder(dataclasses.replace(CONFIG, norm_eps=2e-6))  # never compiled before
    seen = []

    def hidden(model, base, tokens, **arguments):
        seen.append(tokens.shape)
        return real(model, base, tokens, **arguments)

    real = models.hidden
    monkeypatch.setattr(models, "hidden", hidden)
    short = [([1] * n, [2] * k) for n in range(1, 9) for k in range(1, 6)]
    likelihood.score(model, base, short, batch=4)
    assert seen == [(4, 16)]
    likelihood.score(model, base, [*short[:3], ([1] * 20, [2])], batch=4)
    assert seen == [(4, 16), (4, 32)]
    model = Decoder(dataclasses.replace(CONFIG, norm_eps=3e-6))
    likelihood.score(model, base, [([1], [2]), ([1] * 20, [2])], batch=4)
    assert seen[2:] == [(4, 32), (4, 16)]  # the one that needs most memory first


def rows_of_logits(jaxpr):
    """Most rows [.., V] that any one operation of a program yields."""
    most = 0
    for eqn in jaxpr.eqns:
        for x in eqn.outvars:
            shape = getattr(x.aval, "shape", ())
            if V in shape:
                most = max(most, int(np.prod(shape)) // V)
        for inner in jex.core.jaxprs_in_params(eqn.params):
            most = max(most, rows_of_logits(inner))
    return most


@pytest.mark.parametrize("chunk", [4, 1000])
def test_only_scored_positions_are_unembedded_and_in_chunks(
    base, library, pairs, monkeypatch, chunk
):
    monkeypatch.setattr(likelihood, "LOGITS", chunk * V * E)
    model = Decoder(dataclasses.replace(CONFIG, norm_eps=1e-6 + 1e-8 * chunk))
    tokens = jnp.ones((4, 32), jnp.int32)
    arguments = (base, None, library, None, tokens, tokens[:, 0], tokens[:, :8])
    traced = jax.make_jaxpr(likelihood._run, static_argnums=0)(model, *arguments)
    # More than the table [V, D] and the head have, which are found too.
    assert rows_of_logits(traced.jaxpr) == E * min(chunk, 4 * 8)
    if chunk < 4 * 8:
        adapted = Adapted(None, library)
        scores = likelihood.score(model, base, pairs[:1], adapted=adapted, batch=4)
        total, _ = alone(MODEL, base, pairs[0], adapter=expert(library, 2))
        np.testing.assert_allclose(scores.total[2], total, atol=ATOL)


def test_greedy_is_what_greedy_decoding_gives(base):
    context = [4, 7, 1]
    tokens = jnp.asarray([context], jnp.int32)
    found = models.generate(MODEL, base, tokens, models.Decoding(9)).tokens[0].tolist()
    changed = [[*found[:i], (found[i] + 1) % V, *found[i + 1 :]] for i in (0, 4, 8)]
    answers = [found, found[:3], *changed]
    scores = likelihood.score(MODEL, base, [(context, a) for a in answers], batch=4)
    assert scores.greedy.tolist() == [True, True, False, False, False]
    assert scores.total[0] > scores.total[4]


def test_nothing_is_greedy_where_the_model_says_nan(base):
    broken = jax.tree.map(lambda x: x * jnp.nan, base)
    scores = likelihood.score(MODEL, broken, [([1], [0]), ([1], [2])], batch=4)
    assert np.isnan(scores.total).all()
    assert not scores.greedy.any()


def test_long_sums_are_not_rounded(base, monkeypatch):
    logs = np.zeros((2, 8), np.float32)
    logs[:, :2] = [-(2.0**24), -1]  # in float32 their sum is the first
    monkeypatch.setattr(likelihood, "_run", lambda *_: (logs, logs < 0))
    scores = likelihood.score(MODEL, base, [([1], [2, 3])] * 2, batch=2)
    assert scores.total.tolist() == [-(2.0**24) - 1] * 2


def test_probabilities_of_all_next_tokens_sum_to_one(base):
    scores = likelihood.score(MODEL, base, [([3, 9], [t]) for t in range(V)], batch=32)
    assert np.exp(scores.total).sum() == pytest.approx(1, abs=1e-5)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(0, V - 1), min_size=3, max_size=20), st.data())
def test_chain_rule(base, text, data):
    i = data.draw(st.integers(1, len(text) - 2))
    j = data.draw(st.integers(i + 1, len(text) - 1))
    whole, left, right = likelihood.score(
        MODEL,
        base,
        [(text[:i], text[i:]), (text[:i], text[i:j]), (text[:j], text[j:])],
        batch=4,
    ).total
    assert whole == pytest.approx(left + right, abs=ATOL)


def test_bfloat16_is_near_float32(base, pairs):
    config = dataclasses.replace(CONFIG, dtype="bfloat16", param_dtype="bfloat16")
    small = jax.tree.map(lambda x: x.astype(jnp.bfloat16), base)
    exact = likelihood.score(MODEL, base, pairs[:1], batch=4)
    scores = likelihood.score(Decoder(config), small, pairs[:1], batch=4)
    np.testing.assert_allclose(scores.per_token, exact.per_token, atol=0.1)
    assert scores.total.dtype == np.float64


def test_long_contexts_lose_their_start_only_if_asked(base):
    rng = np.random.default_rng(3)
    context, answer = rng.integers(0, V, 20).tolist(), [5, 6, 7]
    fits = (context[-6:], answer)  # 8 tokens in, the last one out
    arguments = {"max_length": 8, "batch": 4}
    kept = likelihood.score(MODEL, base, [fits], **arguments)
    np.testing.assert_allclose(kept.total, alone(MODEL, base, fits)[0], atol=ATOL)
    with pytest.raises(ValueError, match=r"Pair 1 has 7 tokens .* sees 8 at once"):
        likelihood.score(MODEL, base, [fits, (context[-7:], answer)], **arguments)
    cut = likelihood.score(MODEL, base, [(context, answer)], truncate=True, **arguments)
    np.testing.assert_array_equal(cut.total, kept.total)
    with pytest.raises(ValueError, match=r"2 tokens of context and 9 to score"):
        likelihood.score(MODEL, base, [([1, 2], [3] * 9)], truncate=True, **arguments)


def test_the_length_is_by_default_that_of_the_config(base):
    likelihood.score(MODEL, base, [([1] * 40, [2])], batch=4)
    with pytest.raises(ValueError, match="sees 40 at once"):
        likelihood.score(MODEL, base, [([1] * 41, [2])])


def test_learned_positions_are_never_exceeded_by_padding():
    config = dataclasses.replace(CONFIG, positions="learned", max_length=10)
    model = Decoder(config)
    base = jax.jit(models.init, static_argnums=1)(jax.random.key(0), model)
    pair = ([1, 2], [3, 4, 5])
    scores = likelihood.score(model, base, [pair])
    np.testing.assert_allclose(scores.total, alone(model, base, pair)[0], atol=ATOL)


def test_progress_counts_pairs(base, pairs):
    calls = []
    progress = lambda *at: calls.append(at)  # noqa: E731
    likelihood.score(MODEL, base, pairs, batch=4, progress=progress)
    assert [total for _, total in calls] == [len(pairs)] * len(calls)
    done = [0, *(n for n, _ in calls)]
    assert done[-1] == len(pairs)
    assert all(0 < b - a <= 4 for a, b in itertools.pairwise(done))


def test_no_pairs_have_no_scores(base):
    assert likelihood.score(MODEL, base, []).total.shape == (0,)
    assert likelihood.rolling(MODEL, base, [], prefix=1).total.shape == (0,)


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        (([], [1]), "Pair 0 has 0 tokens of context"),
        (([1], []), "and 0 to score"),
        (([1], [V]), f"ids 1 to {V}, expected 0 to {V - 1}"),
        (([-1], [1]), "ids -1 to 1"),
    ],
)
def test_a_bad_pair_is_named(base, pair, message):
    with pytest.raises(ValueError, match=message):
        likelihood.score(MODEL, base, [pair])


def test_bad_arguments_are_refused(base, library):
    with pytest.raises(ValueError, match="batch is 0"):
        likelihood.score(MODEL, base, [([1], [1])], batch=0)
    with pytest.raises(ValueError, match="an adapter and a library"):
        likelihood.score(
            MODEL, base, [([1], [1])], adapted=Adapted(expert(library, 0), library)
        )


def test_windows_of_a_long_text():
    found = list(likelihood.windows(list(range(10)), prefix=-1, length=4))
    assert found == [([-1], [0, 1, 2, 3]), ([3], [4, 5, 6, 7]), ([5, 6, 7], [8, 9])]


@given(st.integers(1, 60), st.integers(1, 12), st.data())
def test_windows_score_each_token_once_after_what_came_before(n, length, data):
    overlap = data.draw(st.integers(1, length))
    text = list(range(n))
    found = list(
        likelihood.windows(text, prefix=-1, length=length, overlap=overlap),
    )
    assert [t for _, scored in found for t in scored] == text
    assert found[0][0] == [-1]
    for context, scored in found[1:]:
        assert len(context) + len(scored) == length + 1  # full, the last one too
        assert [*context, *scored] == list(range(context[0], scored[-1] + 1))
        assert len(context) >= overlap


@pytest.mark.parametrize("bad", [{"length": 0}, {"overlap": 0}, {"overlap": 5}])
def test_windows_of_impossible_sizes_are_refused(bad):
    arguments = {"prefix": 0, "length": 4, **bad}
    with pytest.raises(ValueError, match="overlap"):
        list(likelihood.windows([1, 2], **arguments))
    with pytest.raises(ValueError, match="text of 0 tokens"):
        list(likelihood.windows([], prefix=0, length=4))


def test_rolling_is_the_sum_over_windows(base, library):
    rng = np.random.default_rng(4)
    texts = [rng.integers(0, V, n).tolist() for n in (5, 30, 8, 17)]
    arguments = {"max_length": 8, "adapted": Adapted(None, library), "batch": 4}
    scores = likelihood.rolling(MODEL, base, texts, prefix=1, **arguments)
    assert scores.count.tolist() == [5, 30, 8, 17]
    for i, text in enumerate(texts):
        cut = list(likelihood.windows(text, prefix=1, length=8))
        for e in range(E):
            total, _ = expected(MODEL, base, cut, adapter=expert(library, e))
            assert scores.total[e, i] == pytest.approx(total.sum(), abs=ATOL)


def test_rolling_over_a_text_that_fits_is_one_pair(base):
    text = list(range(1, 31))
    whole = likelihood.score(MODEL, base, [([0], text)], batch=4)
    scores = likelihood.rolling(MODEL, base, [text], prefix=0, batch=4)
    np.testing.assert_array_equal(scores.total, whole.total)
    wider = likelihood.rolling(
        MODEL, base, [text], prefix=0, batch=4, overlap=4, max_length=8
    )
    narrow = likelihood.rolling(MODEL, base, [text], prefix=0, batch=4, max_length=8)
    assert wider.total[0] != narrow.total[0]


def test_rolling_is_greedy_only_if_every_window_is(base):
    tokens = jnp.asarray([[0]], jnp.int32)
    text = models.generate(MODEL, base, tokens, models.Decoding(4)).tokens[0].tolist()
    assert likelihood.rolling(
        MODEL, base, [text], prefix=0, batch=4, max_length=4
    ).greedy[0]
    longer = [*text, *[(text[-1] + 1) % V] * 8]
    scores = likelihood.rolling(MODEL, base, [longer], prefix=0, batch=4, max_length=4)
    assert not scores.greedy[0]
