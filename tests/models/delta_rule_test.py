"""The gated delta rule by chunks: the recurrence, one token at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlora.models.delta_rule import Tokens, _inverse, convolve, gated_delta_rule

B, T, G, R, K, V = 2, 11, 2, 2, 3, 4
SEGMENTS = np.array(
    [[1, 1, 2, 2, 2, 2, 2, 2, 3, 0, 0], [1, 1, 1, 1, 2, 3, 3, 3, 3, 3, 4]], np.int32
)
ATOL = 1e-5  # float32, values of order 1
rule = jax.jit(gated_delta_rule, static_argnames="chunk")


def drawn(seed=0):
    """Tokens whose decays are slow and quick, and a state."""
    rng = np.random.default_rng(seed)

    def draw(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    q, k, v, g, beta = (
        *(draw(B, T, G, K), draw(B, T, G, K), draw(B, T, G, R, V)),
        *(-np.exp(2 * draw(B, T, G, R)), 1 / (1 + np.exp(-draw(B, T, G, R)))),
    )
    return Tokens(q, k, v, g, beta), draw(B, G, R, K, V)


def by_token(tokens, state, segments=None):
    """The recurrence as its authors write it, in float64."""
    q, k, v, g, beta = (np.asarray(x, np.float64) for x in tokens)
    q, k = (x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-6) for x in (q, k))
    state, out = np.array(state, np.float64), np.zeros(v.shape)
    for b, t, i, j in np.ndindex(v.shape[:4]):
        begins = segments is not None and (
            t == 0 or segments[b, t] != segments[b, t - 1]
        )
        s = 0 * state[b, i, j] if begins else state[b, i, j]
        s = np.exp(g[b, t, i, j]) * s
        miss = v[b, t, i, j] - k[b, t, i] @ s
        s = s + beta[b, t, i, j] * np.outer(k[b, t, i], miss)
        state[b, i, j], out[b, t, i, j] = s, q[b, t, i] @ s / np.sqrt(K)
    return out, state


@pytest.mark.parametrize("segments", [None, SEGMENTS])
@pytest.mark.parametrize("chunk", [4, 64])
def test_chunks_are_one_token_after_the_other(segments, chunk):
    tokens, state = drawn()
    got = rule(tokens, state, segments, chunk=chunk)
    for ours, want in zip(got, by_token(tokens, state, segments), strict=True):
        np.testing.assert_allclose(ours, want, atol=ATOL)


def test_a_token_at_a_time_carries_the_state():
    tokens, state = drawn(1)
    want, last = by_token(tokens, state)
    for t in range(T):
        now = jax.tree.map(lambda x, t=t: x[:, t : t + 1], tokens)
        y, state = rule(now, state)
        np.testing.assert_allclose(y[:, 0], want[:, t], atol=ATOL)
    np.testing.assert_allclose(state, last, atol=ATOL)


def test_a_token_of_no_decay_and_no_rate_leaves_the_state():
    tokens, state = drawn()
    still = tokens._replace(g=0 * tokens.g, beta=0 * tokens.beta)
    _, last = rule(still, state, None, chunk=4)
    np.testing.assert_array_equal(last, state)


def test_gradients_are_those_of_finite_differences():
    tokens, state = drawn(2)
    weights = np.random.default_rng(3).standard_normal((B, T, G, R, V))

    @jax.jit
    @jax.grad
    def slope(tokens):
        y, _ = gated_delta_rule(tokens, state, SEGMENTS, chunk=4)
        return jnp.sum(y * jnp.asarray(weights, jnp.float32))

    slopes = slope(tokens)
    # Decays beyond float32, too, have finite gradients.
    assert all(np.isfinite(x).all() for x in slope(tokens._replace(g=1e3 * tokens.g)))
    rng = np.random.default_rng(4)
    for i, x in enumerate(tokens):
        step = rng.standard_normal(x.shape)
        parts = [list(map(np.float64, tokens)) for _ in range(2)]
        for sign, part in zip((1e-6, -1e-6), parts, strict=True):
            part[i] = part[i] + sign * step
        up, down = (np.sum(weights * by_token(p, state, SEGMENTS)[0]) for p in parts)
        np.testing.assert_allclose(
            np.sum(np.asarray(slopes[i]) * step), (up - down) / 2e-6, rtol=1e-4
        )


@pytest.mark.parametrize("segments", [None, SEGMENTS])
def test_a_convolution_sees_its_own_segment(segments):
    rng = np.random.default_rng(5)
    x, kernel = rng.standard_normal((B, T, 5)), rng.standard_normal((4, 5))
    before = rng.standard_normal((B, 3, 5)) * (segments is None)
    every = np.concatenate([before, x], axis=1)
    want = np.zeros(x.shape)
    for b, t, tap in np.ndindex(B, T, 4):
        back = 3 - tap
        if segments is None or (t >= back and segments[b, t] == segments[b, t - back]):
            want[b, t] += kernel[tap] * every[b, t + tap]
    given = (jnp.asarray(y, jnp.float32) for y in (x, kernel, before))
    got = convolve(*given, None if segments is None else jnp.asarray(segments))
    np.testing.assert_allclose(got, want, atol=ATOL)
    short = convolve(*(jnp.asarray(y, jnp.float32) for y in (x[:, :1], kernel, before)))
    if segments is None:
        np.testing.assert_allclose(short, want[:, :1], atol=ATOL)


@pytest.mark.parametrize("size", [1, 2, 3, 37, 64])
def test_triangular_systems_are_inverted_by_blocks(size):
    rng = np.random.default_rng(size)
    below = np.tril(rng.normal(size=(2, 3, size, size)), -1) / 2
    above = np.triu(rng.normal(size=below.shape))  # is not read
    got = _inverse(jnp.asarray(below + above, jnp.float32))
    expected = np.linalg.inv(below + np.eye(size))
    np.testing.assert_allclose(got, expected, atol=2e-6 * np.abs(expected).max())


def test_no_library_is_called_that_waits_for_its_own_threads():
    """Two devices on two cores waited for ever in LAPACK's triangular systems."""
    assert "custom_call" not in rule.lower(*drawn()).as_text()
