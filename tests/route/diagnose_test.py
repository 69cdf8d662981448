"""Diagnostics against loops in NumPy, one token at a time."""

import math

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora import route
from jaxlora.route import diagnose

L, B, T, E = SHAPE = 2, 2, 4, 3
ATOL = 1e-5
WEIGHTS = hnp.arrays(
    np.float32,
    SHAPE,
    elements=st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0, math.nan, math.inf, 1e-30]),
)
MASK = hnp.arrays(bool, (B, T))


@jax.jit
def everything(weights, mask, labels, live):
    return {
        "shares": diagnose.shares(weights),
        "top": diagnose.top(weights),
        "entropy": diagnose.entropy(weights),
        "relative": diagnose.entropy(weights, live=live, relative=True),
        "effective": diagnose.effective(weights),
        "load": diagnose.load(weights, mask),
        "switches": diagnose.switches(weights, mask),
        "matches": diagnose.matches(weights, labels),
        "agreement": diagnose.agreement(weights, labels, mask),
    }


def run(weights, mask=None, labels=None, live=None):
    mask = np.ones((B, T), bool) if mask is None else mask
    labels = np.ones(SHAPE, np.float32) if labels is None else labels
    live = np.ones(E, bool) if live is None else live
    result = everything(*map(jnp.asarray, (weights, mask, labels, live)))
    return jax.tree.map(np.asarray, result)


def shares(row):
    row = [float(w) if math.isfinite(w) and w > 0 else 0.0 for w in row]
    return [w / sum(row) if sum(row) else 0.0 for w in row]


def entropy(row):
    return sum(-p * math.log(p) for p in shares(row) if p > 0)


def top(row):
    row = shares(row)
    return row.index(max(row)) if sum(row) else -1


@settings(max_examples=25, deadline=None)
@given(WEIGHTS, MASK)
def test_every_token_is_as_in_a_loop(weights, mask):
    result = run(weights, mask)
    for at in np.ndindex(L, B, T):
        row = weights[at]
        np.testing.assert_allclose(result["shares"][at], shares(row), atol=ATOL)
        assert result["top"][at] == top(row)
        np.testing.assert_allclose(result["entropy"][at], entropy(row), atol=ATOL)
        want = entropy(row) / math.log(E)
        np.testing.assert_allclose(result["relative"][at], want, atol=ATOL)
        want = math.exp(entropy(row)) if sum(shares(row)) else 0
        np.testing.assert_allclose(result["effective"][at], want, atol=1e-4)
        layer, b, t = at
        both = t > 0 and mask[b, t] and mask[b, t - 1]
        pair = {top(weights[layer, b, t - 1]), top(row)} if both else {0}
        assert result["switches"][at] == (len(pair) == 2 and -1 not in pair)


@settings(max_examples=25, deadline=None)
@given(WEIGHTS, MASK)
def test_load_is_a_mean_over_tokens_that_count(weights, mask):
    result = run(weights, mask)["load"]
    for layer in range(L):
        rows = weights[layer][mask]
        plain = np.where(np.isfinite(rows), rows, 0.0)
        want = plain.sum(0) / max(len(rows), 1)
        np.testing.assert_allclose(result.weight[layer], want, atol=ATOL)
        tops = [top(row) for row in rows]
        want = [tops.count(e) / max(len(rows), 1) for e in range(E)]
        np.testing.assert_allclose(result.top[layer], want, atol=ATOL)


@settings(max_examples=25, deadline=None)
@given(WEIGHTS, MASK, hnp.arrays(np.float32, SHAPE, elements=st.sampled_from([0, 0.5])))
def test_agreement_counts_hits_among_what_is_asked(weights, mask, labels):
    result = run(weights, mask, labels)
    for layer in range(L):
        hits = []
        for b, t in np.ndindex(B, T):
            label, best = labels[layer, b, t], top(weights[layer, b, t])
            asked, hit = label.max() > 0, best >= 0 and label[best] > 0
            assert result["matches"].asked[layer, b, t] == asked
            assert result["matches"].hit[layer, b, t] == (asked and hit)
            hits += [hit] if asked and mask[b, t] else []
        got = result["agreement"][layer]
        if hits:
            np.testing.assert_allclose(got, np.mean(hits), atol=ATOL)
        else:
            assert np.isnan(got)


def test_labels_of_tokens_and_of_sequences_stand_for_all_layers():
    weights = np.random.default_rng(0).random(SHAPE, np.float32)
    tokens = jnp.asarray(route.one_hot([[0, 1, 2, -1], [2, 2, 0, 1]], E))
    rows = jnp.asarray(route.one_hot([1, 2], E))
    agree = jax.jit(diagnose.agreement)
    for labels, complete in (
        (tokens, jnp.broadcast_to(tokens[None], SHAPE)),
        (rows, jnp.broadcast_to(rows[None, :, None], SHAPE)),
    ):
        np.testing.assert_array_equal(agree(weights, labels), agree(weights, complete))
    best = weights.argmax(-1)
    want = (best == np.asarray([1, 2])[None, :, None]).mean((1, 2))
    np.testing.assert_allclose(agree(weights, rows), want, atol=ATOL)


def test_of_live_experts_only():
    weights = np.full(SHAPE, 0.5, np.float32)
    weights[..., 2] = 0.9  # of an expert that is not live: it does not count
    result = run(weights, live=np.asarray([True, True, False]))
    np.testing.assert_allclose(result["relative"], 1.0, atol=ATOL)
    for live in ([True, False, False], [False] * 3):
        assert (run(weights, live=np.asarray(live))["relative"] == 0).all()
    weights[0, ..., 1] = 0.0  # live may differ by layer
    live = jnp.asarray([[1, 0, 1], [1, 1, 0]], bool)[:, None, None]
    result = jax.jit(diagnose.entropy)(weights, live=live)
    two = entropy([0.5, 0.9])
    np.testing.assert_allclose(result[0], two, atol=ATOL)
    np.testing.assert_allclose(result[1], math.log(2), atol=ATOL)


def test_weights_of_any_type_have_an_entropy():
    rough = jnp.full(SHAPE, 100, jnp.bfloat16)
    result = jax.jit(diagnose.entropy)(rough)
    assert result.dtype == jnp.float32
    np.testing.assert_allclose(result, math.log(E), atol=ATOL)


def test_certainty_is_zero_and_not_minus_zero():
    certain = np.zeros(SHAPE, np.float32)
    certain[..., 0] = 1
    result = run(certain)
    assert not np.signbit(result["entropy"]).any()
    assert (result["entropy"] == 0).all()


def test_gradients_are_finite():
    weights = jnp.asarray([[0.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    result = jax.jit(jax.grad(lambda w: diagnose.entropy(w).sum()))(weights)
    assert np.isfinite(result).all()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda w: diagnose.load(w, jnp.ones((T, B), bool)), "a mask [4, 2]"),
        (lambda w: diagnose.load(w[0, 0]), "weights of shape [4, 3] and no mask"),
        (lambda w: diagnose.matches(w, jnp.ones(E)), "oracle labels [3]"),
        (lambda w: diagnose.matches(w, jnp.ones((B, T, 2))), "oracle labels [2, 4, 2]"),
        (lambda w: diagnose.matches(w, jnp.ones((T, E))), "oracle labels [4, 3]"),
    ],
)
def test_what_does_not_fit_is_refused(call, expected):
    with pytest.raises(ValueError, match="expected weights") as error:
        call(jnp.ones(SHAPE))
    assert expected in str(error.value)
