"""The gated delta rule: a mixer of tokens whose memory is one matrix a head.

Yang, Kautz and Hatamizadeh, Gated Delta Networks (arXiv 2412.06464): of a query q, key
k, value v, decay exp(g) and rate beta of each token, a head keeps S [K, V],

    S = exp(g) S;  S = S + beta k (v - k S);  y = q S

Tokens are taken by chunks, within which the updates are the solution of a triangular
system (Yang et al., arXiv 2406.06484), so that only chunks follow one another in a
loop. All of this is in float32, at full precision.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

CHUNK = 64
"""Tokens of a chunk."""
_EPS = 1e-6
_EXACT = jax.lax.Precision.HIGHEST


class Tokens(NamedTuple):
    """What a rule reads, G key heads of which each serves R value heads."""

    q: jax.Array
    """Queries [B, T, G, K]."""
    k: jax.Array
    """Keys [B, T, G, K]."""
    v: jax.Array
    """Values [B, T, G, R, V]."""
    g: jax.Array
    """Logarithms of the decay [B, T, G, R], 0 at most."""
    beta: jax.Array
    """Rates [B, T, G, R], 0 to 1."""


def gated_delta_rule(
    tokens: Tokens,
    state: jax.Array,
    segments: jax.Array | None = None,
    *,
    chunk: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Applies the rule to tokens one after the other.

    Queries and keys are divided by their norms here. A token of g = beta = 0 leaves the
    state as it is.

    Args:
      tokens: of T steps.
      state: S before the first, [B, G, R, K, V].
      segments: [B, T], the tokens of each side by side; each begins at a state of
        zero. None for one that goes on from ``state``.
      chunk: tokens of a chunk, which only moves work; None for ``CHUNK``.

    Returns:
      y [B, T, G, R, V], and S after the last token; float32.

    >>> ones = jnp.ones((1, 3, 1, 1))  # three tokens that write 1 at a rate of 1/2
    >>> tokens = Tokens(ones, ones, ones[..., None], 0 * ones, ones / 2)
    >>> y, _ = gated_delta_rule(tokens, jnp.zeros((1, 1, 1, 1, 1)))
    >>> [f"{x:.3f}" for x in y.ravel()]
    ['0.500', '0.750', '0.875']
    """
    length = tokens.v.shape[1]
    size = min(chunk or CHUNK, length)
    cut = _cut(tokens, size)
    parts = None
    if segments is not None:
        more = jnp.pad(segments, ((0, 0), (0, -length % size)), mode="edge")
        parts, state = _chunked(more, size), jnp.zeros_like(state)
    y, state = _loop(_prepared(cut, parts), state.astype(jnp.float32))
    y = jnp.moveaxis(y, (0, -2), (1, 2))  # [B, N, C, G, R, V]
    return y.reshape(y.shape[0], -1, *y.shape[3:])[:, :length], state


def _cut(tokens: Tokens, size: int) -> Tokens:
    """Chunks [N, B, G, R, C, ...] in float32, of normed queries and keys."""
    q, k, v, g, beta = (x.astype(jnp.float32) for x in tokens)
    q, k = _normed(q) * q.shape[-1] ** -0.5, _normed(k)
    more = -g.shape[1] % size
    if more:  # of zeros: they change nothing
        q, k, v, g, beta = (
            jnp.pad(x, ((0, 0), (0, more), *((0, 0),) * (x.ndim - 2)))
            for x in (q, k, v, g, beta)
        )
    q, k = (jnp.moveaxis(_chunked(x, size), 2, 3) for x in (q, k))
    v, g, beta = (jnp.moveaxis(_chunked(x, size), 2, 4) for x in (v, g, beta))
    return Tokens(q, k, v, g, beta)


def _chunked(x: jax.Array, size: int) -> jax.Array:
    """[N, B, C, ...] of [B, T, ...]."""
    return jnp.moveaxis(x.reshape(x.shape[0], -1, size, *x.shape[2:]), 1, 0)


def _normed(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + _EPS)


class _Chunks(NamedTuple):
    """All that is known of chunks [N, B, G, R, ...] before any state is."""

    read: jax.Array
    """[C, K], queries as they read the state before the chunk."""
    attend: jax.Array
    """[C, C], what of each earlier update a query reads."""
    new: jax.Array
    """[C, V], updates if that state were zero."""
    old: jax.Array
    """[C, K], what it takes away from them."""
    write: jax.Array
    """[C, K], keys as they write the state after the chunk."""
    keep: jax.Array
    """[1, 1], what is left of the state before."""


def _prepared(tokens: Tokens, segments: jax.Array | None) -> _Chunks:
    q, k, v, g, beta = tokens
    size = g.shape[-1]
    total = jnp.cumsum(g, axis=-1)
    sees = jnp.tril(jnp.ones((size, size), bool))[None, None, None, None]
    enters = stays = jnp.ones((1, 1, 1, 1, 1), bool)
    if segments is not None:
        # The state before a chunk is of the last token of the chunk before it.
        first = segments[:1, :, :1]  # where that state is zero
        before = jnp.concatenate([first, segments[:-1, :, -1:]])
        sees = sees & (segments[..., None] == segments[..., None, :])[:, :, None, None]
        enters = (segments == before)[:, :, None, None]
        stays = (segments == segments[..., -1:])[:, :, None, None]
    # Masked before the exponential, which is beyond float32 in the other half.
    between = total[..., :, None] - total[..., None, :]
    decay = jnp.exp(jnp.where(sees, between, -jnp.inf))
    since = jnp.where(enters, jnp.exp(total), 0.0)[..., None]
    until = jnp.where(stays, jnp.exp(total[..., -1:] - total), 0.0)[..., None]
    attend = _pairs(q, k)[:, :, :, None] * decay
    system = _pairs(k, k)[:, :, :, None] * decay * beta[..., None]
    q, k = q[:, :, :, None], k[:, :, :, None]
    right = beta[..., None] * jnp.concatenate([v, since * k], axis=-1)
    right = jnp.matmul(_inverse(system), right, precision=_EXACT)
    new, old = jnp.split(right, (v.shape[-1],), axis=-1)
    return _Chunks(since * q, attend, new, old, until * k, since[..., -1:, :])


def _inverse(lower: jax.Array) -> jax.Array:
    """Inverses [..., C, C] of matrices of ones on the diagonal and ``lower`` below it.

    Blocks of 1, 2, 4 and so on are joined. For triangular systems on CPUs JAX 0.10
    calls LAPACK, which waits in the threads that its work needs: two devices on two
    cores may wait for ever.
    """
    size = lower.shape[-1]
    full, lead = 1 << (size - 1).bit_length(), lower.shape[:-2]
    more = (0, full - size)
    lower = jnp.pad(lower, (*((0, 0),) * len(lead), more, more))
    out, width = jnp.ones((*lead, full, 1, 1), lower.dtype), 1
    while width < full:
        count = full // (2 * width)
        blocks = lower.reshape(*lead, count, 2 * width, count, 2 * width)
        below = jnp.einsum("...iaib->...iab", blocks)[..., width:, :width]
        first, second = jnp.moveaxis(out.reshape(*lead, count, 2, width, width), -3, 0)
        corner = jnp.matmul(below, first, precision=_EXACT)
        corner = -jnp.matmul(second, corner, precision=_EXACT)
        upper = jnp.concatenate([first, jnp.zeros_like(first)], axis=-1)
        under = jnp.concatenate([corner, second], axis=-1)
        out, width = jnp.concatenate([upper, under], axis=-2), 2 * width
    return out[..., 0, :size, :size]


def _pairs(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum("nbgik,nbgjk->nbgij", x, y, precision=_EXACT)


def _loop(chunks: _Chunks, state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Outputs [N, B, G, R, C, V] of one chunk after the other, and the last state."""

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.matmul(x, y, precision=_EXACT)

    def step(state: jax.Array, chunk: _Chunks) -> tuple[jax.Array, jax.Array]:
        update = chunk.new - product(chunk.old, state)
        y = product(chunk.read, state) + product(chunk.attend, update)
        write = product(jnp.swapaxes(chunk.write, -1, -2), update)
        return state * chunk.keep + write, y

    if chunks.new.shape[0] == 1:
        state, y = step(state, jax.tree.map(lambda x: x[0], chunks))
        return y[None], state
    state, y = jax.lax.scan(step, state, chunks)
    return y, state


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    before: jax.Array,
    segments: jax.Array | None = None,
) -> jax.Array:
    """A causal convolution of each channel alone, in float32.

    Args:
      x: [B, T, C].
      kernel: [W, C]; its last row is of the token itself.
      before: [B, W - 1, C], what came before x, zeros for nothing.
      segments: [B, T]; a token sees those of its own segment, and ``before`` is none.

    >>> x, kernel = jnp.array([[[1.0], [2.0], [4.0]]]), jnp.array([[10.0], [1.0]])
    >>> convolve(x, kernel, jnp.zeros((1, 1, 1))).ravel().tolist()
    [1.0, 12.0, 24.0]
    """
    length, taps = x.shape[1], kernel.shape[0]
    kernel = kernel.astype(jnp.float32)[:, None, None]
    x = jnp.concatenate([before.astype(x.dtype), x], axis=1).astype(jnp.float32)
    sums = x[:, taps - 1 :] * kernel[-1]
    for back in range(1, taps):
        first = taps - 1 - back
        shifted = x[:, first : first + length]
        if segments is not None:
            same = segments[:, back:] == segments[:, :-back]
            same = jnp.pad(same, ((0, 0), (min(back, length), 0)))
            shifted = jnp.where(same[:, :length, None], shifted, 0.0)
        sums = sums + shifted * kernel[first]
    return sums
