"""A sequence in pieces, through a cache, is the sequence at once."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decoders import TINY, WINDOW
from jaxlora.models import Decoder, DecoderConfig, Inputs, apply, extend, unembed
from jaxlora.models.cache import admit, empty

CONFIGS = {"rope and window": WINDOW, "learned": TINY}
TOKENS = jnp.array([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]], jnp.int32)
ATOL = 1e-5  # float32, logits of order 1
run = jax.jit(apply, static_argnums=0)
more = jax.jit(extend, static_argnums=0)


@pytest.fixture(scope="module", params=CONFIGS)
def net(request, make_base):
    model = Decoder(CONFIGS[request.param])
    return model, make_base(model)


def pieces(net, tokens, mask, cuts, slots=9):
    """Logits of consecutive pieces, and the cache after them."""
    model, base = net
    cache, out = empty(model.config, tokens.shape[0], slots), []
    for first, last in zip((0, *cuts), (*cuts, tokens.shape[1]), strict=True):
        part = Inputs(tokens[:, first:last], mask[:, first:last])
        x, cache = more(model, base, part, cache)
        out.append(unembed(model, base, x))
    return np.concatenate(out, axis=1), cache


def test_an_empty_cache_has_the_shapes_and_types_of_its_model():
    cache = empty(DecoderConfig(num_kv_heads=2, dtype="bfloat16"), 3, 5)
    assert cache.keys.shape == cache.values.shape == (4, 3, 2, 5, 32)
    assert cache.keys.dtype == cache.values.dtype == jnp.bfloat16
    assert cache.segments.shape == (3, 5)
    assert not cache.segments.any()
    assert cache.start == 0


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_admitted_tokens_are_counted_in_their_own_row(data):
    row = st.lists(st.booleans(), min_size=6, max_size=6)
    mask = np.array(data.draw(st.lists(row, min_size=2, max_size=2)))
    cut = data.draw(st.integers(1, 5))
    cache = empty(WINDOW, 2, 8)
    found = []
    for part in (mask[:, :cut], mask[:, cut:]):
        cache, positions = admit(cache, jnp.asarray(part))
        found.append(positions)
    counted = [[max(sum(r[: i + 1]) - 1, 0) for i in range(6)] for r in mask.tolist()]
    np.testing.assert_array_equal(np.concatenate(found, axis=1), counted)
    np.testing.assert_array_equal(cache.segments, np.pad(mask, [(0, 0), (0, 2)]))
    assert cache.start == 6


@pytest.mark.parametrize("cuts", [(6,), (2, 4, 6)], ids=str)
def test_pieces_of_a_sequence_equal_the_whole(net, cuts):
    model, base = net
    got, cache = pieces(net, TOKENS, jnp.ones(TOKENS.shape, bool), cuts)
    np.testing.assert_allclose(got, run(model, base, TOKENS), atol=ATOL)
    assert cache.start == 7
    assert not np.asarray(cache.keys)[..., 7:, :].any()
    assert np.asarray(cache.values)[..., :7, :].any((2, 4)).all()


def test_left_padding_is_as_if_it_were_not_there(net):
    model, base = net
    mask = jnp.array([[0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]], bool)
    got, _ = pieces(net, TOKENS, mask, (4, 6))
    short = jnp.pad(TOKENS[:1, 2:], [(0, 1), (0, 2)])
    np.testing.assert_allclose(got[0, 2:], run(model, base, short)[0, :5], atol=ATOL)
    np.testing.assert_allclose(got[1], run(model, base, TOKENS)[1], atol=ATOL)
    other, _ = pieces(net, jnp.where(mask, TOKENS, 12), mask, (4, 6))
    assert (other[np.asarray(mask)] == got[np.asarray(mask)]).all()


def test_a_cache_is_one_argument_of_one_program(make_base):
    base, traces = make_base(Decoder(WINDOW)), []

    @functools.partial(jax.jit, donate_argnums=1)
    def step(token, cache):
        traces.append(1)
        return extend(Decoder(WINDOW), base, token, cache)[1]

    cache = empty(WINDOW, 2, 9)
    for i in range(3):
        cache = step(TOKENS[:, i : i + 1], cache)
    assert len(traces) == 1
    assert cache.start == 3
