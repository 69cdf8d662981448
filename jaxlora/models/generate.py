"""Generation: one prefill, then one token a step from a key-value cache.

One jitted program per shape: prompts [B, T], padded on the left, and N new tokens. It
serves the base, one adapter, a routed library, or every expert of a library at once;
weights, adapters, keys, temperature and stop tokens are arguments, not constants.

>>> config = DecoderConfig(vocab_size=16, hidden_size=8, num_layers=2, mlp_size=16,
...                        num_heads=2, num_kv_heads=2, head_dim=4, positions="rope")
>>> model = Decoder(config)
>>> base = init(jax.random.key(0), model)
>>> prompts = jnp.array([[0, 3, 4], [5, 6, 7]])
>>> mask = jnp.array([[False, True, True], [True, True, True]])
>>> generate(model, base, prompts, mask, max_new_tokens=4).tokens.shape
(2, 4)
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora import route as routes
from jaxlora.lora import Adapter, Library
from jaxlora.models import cache as caches
from jaxlora.models import routing
from jaxlora.models.cache import Cache
from jaxlora.models.calls import extend, unembed
from jaxlora.models.calls import init as init
from jaxlora.models.config import DecoderConfig as DecoderConfig
from jaxlora.models.decoder import Decoder
from jaxlora.models.inputs import gate_state
from jaxlora.tree import Tree


class Generated(NamedTuple):
    """What came out; with all experts at once, every array has a leading axis E."""

    tokens: jax.Array
    """[B, N] new tokens; after a stop token, padding."""
    lengths: jax.Array
    """[B], tokens before padding, the stop token included."""


class Sampling(NamedTuple):
    """How the next token is chosen; arrays, so that another value compiles nothing."""

    temperature: jax.Array
    top_p: jax.Array
    stop: jax.Array
    pad: jax.Array


class _Loop(NamedTuple):
    step: jax.Array
    cache: Cache
    last: jax.Array
    tokens: jax.Array
    lengths: jax.Array
    done: jax.Array


def generate(
    model: Decoder,
    base: Tree,
    tokens: jax.Array,
    mask: jax.Array | None = None,
    *,
    max_new_tokens: int,
    adapter: Adapter | None = None,
    library: Library | None = None,
    gate: Tree | None = None,
    key: jax.Array | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 1.0,
    stop: tuple[int, ...] = (),
    pad: int = 0,
) -> Generated:
    """Continues prompts, greedily or by sampling.

    Row b draws its token n with the key folded by b and n: a row's text does not
    depend on the other rows' texts.

    Args:
      model: a decoder; with a route, ``library`` is routed at every step.
      base: params tree.
      tokens: [B, T] prompts, padded on the left.
      mask: [B, T], false at padding; by default all true.
      max_new_tokens: N.
      adapter: one adapter.
      library: [E, ...]; without a route all E experts answer, each with a cache of its
        own, in one program.
      gate: gate state of a routed library.
      key: PRNG key; needed if temperature > 0.
      temperature: divides the logits; 0 takes the most likely token.
      top_k: keep the k most likely tokens; 0 keeps all.
      top_p: keep the most likely tokens that together reach this probability.
      stop: ids that end a row.
      pad: id that fills a row after its end.

    Returns:
      Tokens [B, N] and lengths [B], or [E, B, N] and [E, B].

    Raises:
      ValueError: if a number is out of range, no key is given for sampling, a row has
        no token or does not end in one, or the tokens would pass max_length of learned
        positions.
    """
    _check(model, tokens, mask, max_new_tokens, key, temperature, top_k, top_p)
    _check_reuse(model, adapter, library, gate)
    mask = jnp.ones(tokens.shape, bool) if mask is None else mask
    ends = tuple(stop) or (-1,)  # no token has the id -1
    sampling = Sampling(
        jnp.float32(temperature), jnp.float32(top_p), jnp.array(ends), jnp.int32(pad)
    )
    key = jax.random.key(0) if key is None else key
    sizes = (max_new_tokens, top_k, temperature > 0)
    if library is not None and model.route is not None and gate is None:
        gate = jax.jit(gate_state, static_argnums=0)(model, library)
    return _generate(
        model, sizes, base, adapter, library, gate, tokens, mask, key, sampling
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _generate(
    model, sizes, base, adapter, library, gate, tokens, mask, key, sampling: Sampling
) -> Generated:
    steps, top_k, sampled = sizes
    # Unrolled layers help training and slow decoding, by a third on two CPU cores.
    model = Decoder(dataclasses.replace(model.config, unroll=1), model.route)

    def forward(cache: Cache, tokens: jax.Array, mask) -> tuple[jax.Array, Cache]:
        """Logits of the last token, for the adapter or every expert at once."""

        def one(cache, tokens, adapter):
            routed = {} if model.route is None else {"library": library, "gate": gate}
            x, cache = extend(
                model, base, tokens, cache, adapter=adapter, mask=mask, **routed
            )
            return unembed(model, base, x[:, -1]), cache

        if model.route is not None or library is None:
            return one(cache, tokens, adapter)
        # All experts fill the same slots: only their keys and values differ.
        own = Cache(keys=0, values=0, segments=None, start=None)  # pyrefly: ignore
        every = jax.vmap(one, in_axes=(own, 0, 0), out_axes=(0, own))
        return every(cache, tokens, library)

    def choose(scores: jax.Array, step: jax.Array) -> jax.Array:
        if not sampled:
            return jnp.argmax(scores, axis=-1).astype(jnp.int32)
        return _sample(scores, jax.random.fold_in(key, step), sampling, top_k)

    many = library is not None and model.route is None
    lead = (lora.num_experts(library),) if many else ()
    rows, slots = tokens.shape[0], tokens.shape[1] + steps
    pooled = routing.pooled(model.route, model.config, library, rows)
    cache = caches.empty(model.config, rows, slots, pooled)
    cache = dataclasses.replace(
        cache, keys=_spread(cache.keys, lead), values=_spread(cache.values, lead)
    )
    scores, cache = forward(cache, _spread(tokens, lead), mask)

    def body(loop: _Loop) -> _Loop:
        scores, cache = forward(loop.cache, loop.last[..., None], None)
        return _append(loop, choose(scores, loop.step), cache, sampling)

    def going(loop: _Loop) -> jax.Array:
        return (loop.step < steps) & ~jnp.all(loop.done)

    shape = (*lead, tokens.shape[0])
    start = _Loop(
        step=jnp.int32(0),
        cache=cache,
        last=jnp.zeros(shape, jnp.int32),
        tokens=jnp.full((*shape, steps), sampling.pad),
        lengths=jnp.zeros(shape, jnp.int32),
        done=jnp.zeros(shape, bool),
    )
    start = _append(start, choose(scores, start.step), cache, sampling)
    end = jax.lax.while_loop(going, body, start)
    return Generated(end.tokens, end.lengths)


def _append(loop: _Loop, chosen: jax.Array, cache: Cache, sampling: Sampling) -> _Loop:
    chosen = jnp.where(loop.done, sampling.pad, chosen)
    at = (*(0,) * (loop.tokens.ndim - 1), loop.step)
    ended = jnp.isin(chosen, sampling.stop)
    return _Loop(
        step=loop.step + 1,
        cache=cache,
        last=chosen,
        tokens=jax.lax.dynamic_update_slice(loop.tokens, chosen[..., None], at),
        lengths=loop.lengths + (~loop.done).astype(jnp.int32),
        done=loop.done | ended,
    )


def _sample(
    scores: jax.Array, key: jax.Array, sampling: Sampling, top_k: int
) -> jax.Array:
    scores = scores / sampling.temperature
    if top_k:
        least = jax.lax.top_k(scores, min(top_k, scores.shape[-1]))[0][..., -1:]
        scores = jnp.where(scores < least, -jnp.inf, scores)
    scores = _nucleus(scores, sampling.top_p)
    rows = jnp.arange(scores.shape[-2])
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(rows)
    draw = jax.vmap(jax.random.categorical)  # over B; E draws from the same keys
    if scores.ndim == 3:
        draw = jax.vmap(draw, in_axes=(None, 0))
    return draw(keys, scores).astype(jnp.int32)


def _nucleus(scores: jax.Array, top_p: jax.Array) -> jax.Array:
    ranked = -jnp.sort(-scores, axis=-1)
    share = jax.nn.softmax(ranked, axis=-1)
    before = jnp.cumsum(share, axis=-1) - share  # the most likely token always stays
    least = jnp.min(jnp.where(before < top_p, ranked, jnp.inf), axis=-1, keepdims=True)
    return jnp.where(scores < least, -jnp.inf, scores)


def _spread(x: jax.Array, lead: tuple[int, ...]) -> jax.Array:
    return jnp.broadcast_to(x, (*lead, *x.shape))


def _check(model, tokens, mask, steps, key, temperature, top_k, top_p) -> None:
    if tokens.ndim != 2 or 0 in tokens.shape:
        raise ValueError(
            f"Prompts have shape {tokens.shape}, expected [B, T] with one prompt and "
            f"one token at least."
        )
    if mask is not None and mask.shape != tokens.shape:
        raise ValueError(
            f"The mask has shape {mask.shape}, expected that of the prompts, "
            f"{tokens.shape}."
        )
    if steps < 1 or top_k < 0 or not temperature >= 0 or not 0 < top_p <= 1:
        raise ValueError(
            f"max_new_tokens={steps}, temperature={temperature}, top_k={top_k}, "
            f"top_p={top_p}: expected at least one token, temperature >= 0, top_k >= 0 "
            f"and 0 < top_p <= 1."
        )
    if temperature > 0 and key is None:
        raise ValueError(
            f"temperature is {temperature}, but no key was given; sampling needs "
            f"key=jax.random.key(...), and temperature 0 needs none."
        )
    longest, most = tokens.shape[1] + steps, model.config.max_length
    if model.config.positions == "learned" and longest > most:
        raise ValueError(
            f"Prompt and new tokens are {longest} tokens, but the model has learned "
            f"positions for {most}; ask for fewer."
        )
    if mask is not None and not isinstance(mask, jax.core.Tracer):
        _check_padding(np.asarray(mask))


def _check_padding(mask: np.ndarray) -> None:
    if not mask[:, -1].all():
        raise ValueError(
            "A prompt does not end in a token; pad on the left, and leave out empty "
            "prompts."
        )
    if (mask[:, :-1] & ~mask[:, 1:]).any():
        raise ValueError(
            "A prompt's mask has a hole, expected padding on the left and nowhere else."
        )


def _check_reuse(model, adapter, library, gate) -> None:
    if adapter is not None and library is not None:
        raise ValueError("Got an adapter and a library, expected one of them.")
    if gate is not None and model.route is None:
        raise ValueError(
            "Got gate state, but the model has no route; build it with "
            "Decoder(config, route)."
        )
    if gate is not None and library is not None:
        routes.check(model.route, gate, library)
