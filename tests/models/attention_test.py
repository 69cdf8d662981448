"""Who sees whom, and the softmax, against loops in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora.models.attention import attend, near, seen
from jaxlora.models.kernels import flash

B, T, S, H, G, K = 3, 4, 6, 6, 2, 4
ATOL = 1e-5  # float32, outputs of order 1
PACKED = np.array([[1, 1, 2, 2, 2, 0], [0, 0, 1, 1, 1, 1], [3, 3, 3, 3, 3, 3]])
attending = jax.jit(attend, static_argnames=("scale", "softcap"))


def sees(queries, keys, start, window=None):
    """Booleans [B, T, S], one pair of slots at a time."""
    out = np.zeros((*queries.shape, keys.shape[1]), bool)
    for b, t, s in np.ndindex(*out.shape):
        slot = t + start
        ok = queries[b, t] == keys[b, s] != 0 and s <= slot
        out[b, t, s] = ok and (window is None or s > slot - window)
    return out


def reference(q, k, v, allowed, scale, softcap=0.0):
    """Attention in float64, one query and one head at a time."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros(q.shape)
    for b, t, h in np.ndindex(*q.shape[:3]):
        group = h // (q.shape[2] // k.shape[1])
        keys = np.flatnonzero(allowed[b, t])
        if keys.size:
            scores = scale * k[b, group, keys] @ q[b, t, h]
            if softcap:
                scores = softcap * np.tanh(scores / softcap)
            share = np.exp(scores - scores.max())
            out[b, t, h] = share / share.sum() @ v[b, group, keys]
    return out


@pytest.fixture(scope="module")
def qkv():
    draw = np.random.default_rng(0).standard_normal
    shapes = ((B, S, H, K), (B, G, S, K), (B, G, S, K))
    return [jnp.asarray(2 * draw(shape), jnp.float32) for shape in shapes]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_seen_and_near_equal_a_loop(data):
    start = data.draw(st.integers(0, S - T))
    window = data.draw(st.integers(1, S + 1))
    row = st.lists(st.integers(0, 2), min_size=S, max_size=S)
    keys = np.array(data.draw(st.lists(row, min_size=2, max_size=2)))
    queries = keys[:, start : start + T]
    got = seen(jnp.asarray(queries), jnp.asarray(keys), start)
    np.testing.assert_array_equal(got, sees(queries, keys, start))
    got = near(jnp.asarray(queries), jnp.asarray(keys), start, window)
    np.testing.assert_array_equal(got, sees(queries, keys, start, window))


def test_a_padded_query_sees_nobody_and_nobody_sees_a_padded_key():
    rows = jnp.asarray(PACKED)
    got = np.asarray(seen(rows, rows, 0))
    assert not got[0, 5].any()
    assert not got[1, :, :2].any()
    assert got[1, 5].sum() == 4


MASKS = {
    "causal": sees(PACKED * 0 + 1, PACKED * 0 + 1, 0),
    "segments and padding": sees(PACKED, PACKED, 0),
    "window": sees(PACKED, PACKED, 0, 2),
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("scale", "softcap"), [(0.5, 0.0), (0.9, 1.5)])
def test_attention_equals_numpy(qkv, mask, scale, softcap):
    allowed = MASKS[mask]
    got = attending(*qkv, jnp.asarray(allowed), scale=scale, softcap=softcap)
    want = reference(*qkv, allowed, scale, softcap)
    np.testing.assert_allclose(got, want, atol=ATOL)
    assert not np.asarray(got)[~allowed.any(-1)].any()


def test_fewer_queries_than_keys_equal_numpy(qkv):
    q, k, v = qkv
    allowed = sees(PACKED[:, 2:], PACKED, 2)
    got = attending(q[:, 2:], k, v, jnp.asarray(allowed), scale=0.5)
    np.testing.assert_allclose(got, reference(q[:, 2:], k, v, allowed, 0.5), atol=ATOL)


def slopes(fn, qkv, weight):
    return jax.grad(lambda args: jnp.sum(weight * fn(*args)))(qkv)


def test_a_query_without_keys_has_finite_gradients(qkv):
    allowed = jnp.asarray(MASKS["segments and padding"])
    one = functools.partial(attend, allowed=allowed, scale=0.5, softcap=2.0)
    for slope in jax.jit(lambda args: slopes(one, args, 1.0))(qkv):
        assert np.isfinite(slope).all()
    assert not np.asarray(slope)[1, :, :2].any()  # the values of padding


@pytest.mark.parametrize("mask", MASKS)
def test_flash_equals_attention_wherever_a_query_sees_a_key(qkv, mask):
    allowed = jnp.asarray(MASKS[mask])
    given = None if mask == "causal" else allowed
    some = allowed.any(-1)[:, :, None, None].astype(jnp.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def both(fn, qkv):
        return some * fn(*qkv), slopes(fn, qkv, some * jnp.cos(qkv[0]))

    got = both(lambda *x: flash(*x, given, scale=0.7), qkv)
    want = both(lambda *x: attend(*x, allowed, scale=0.7), qkv)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=ATOL), got, want)


def test_bfloat16_stays_bfloat16_and_close(qkv):
    low = [x.astype(jnp.bfloat16) for x in qkv]
    allowed = MASKS["causal"]
    got = attending(*low, jnp.asarray(allowed), scale=0.5)
    assert got.dtype == jnp.bfloat16
    want = reference(*low, allowed, 0.5)
    error = np.abs(got.astype(jnp.float32) - want).max() / np.abs(want).max()
    assert 1e-5 < error < 0.03  # eight bits of mantissa


def test_scores_of_bfloat16_are_not_rounded():
    """257 is no number of bfloat16, and e^1 between two scores is much."""
    q = jnp.asarray([[[[16.0, 1.0]]]], jnp.bfloat16)
    k = jnp.asarray([[[[16.0, 0.0], [16.0, 1.0]]]], jnp.bfloat16)
    v = jnp.asarray([[[[0.0, 0.0], [1.0, 1.0]]]], jnp.bfloat16)
    got = attending(q, k, v, jnp.ones((1, 1, 2), bool), scale=1.0)
    np.testing.assert_allclose(got.astype(jnp.float32), 1 / (1 + np.exp(-1)), rtol=0.01)
