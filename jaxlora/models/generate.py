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
>>> generate(model, base, Inputs(prompts, mask), Decoding(4)).tokens.shape
(2, 4)
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora import route as routes
from jaxlora.lora import Adapter, Library
from jaxlora.models import sites
from jaxlora.models.cache import Cache
from jaxlora.models.calls import init as init
from jaxlora.models.config import DecoderConfig as DecoderConfig
from jaxlora.models.decoder import Decoder
from jaxlora.models.decoding import Decoding, check, prompts_of
from jaxlora.models.forward import empty, forward, forward_all, spread
from jaxlora.models.inputs import Adapted, Inputs, Tokens
from jaxlora.models.sampling import Sampling, sample, sampling_of
from jaxlora.models.variables import gate_state
from jaxlora.tree import Tree


class Generated(NamedTuple):
    """What came out; with all experts at once, every array has a leading axis E."""

    tokens: jax.Array
    """[B, N] new tokens; after a stop token, padding."""
    lengths: jax.Array
    """[B], tokens before padding, the stop token included."""
    finite: jax.Array
    """[B], were all scores numbers? Else the tokens mean nothing."""


class _Sizes(NamedTuple):
    """What a program is compiled for, besides the shapes of its arguments."""

    steps: int
    """New tokens at most."""
    top_k: int
    sampled: bool
    """Are tokens drawn? Else the most likely is taken, and no key is used."""


class _Loop(NamedTuple):
    step: jax.Array
    cache: Cache
    last: jax.Array
    tokens: jax.Array
    lengths: jax.Array
    finite: jax.Array
    done: jax.Array


def generate(
    model: Decoder,
    base: Tree,
    inputs: Tokens,
    decoding: Decoding,
    *,
    adapter: Adapter | None = None,
    library: Library | None = None,
    gate: Tree | None = None,
    key: jax.Array | None = None,
) -> Generated:
    """Continues prompts, greedily or by sampling.

    Row b draws its token n with the key folded by b and n: a row's text does not
    depend on the other rows' texts.

    Args:
      model: a decoder; with a route, ``library`` is routed at every step.
      base: params tree.
      inputs: prompts [B, T], or :class:`Inputs` with a mask of those padded on the
        left.
      decoding: how many tokens, how they are chosen, and what ends a row.
      adapter: one adapter.
      library: [E, ...]; without a route all E experts answer, each with a cache of its
        own, in one program.
      gate: gate state of a routed library.
      key: PRNG key; needed if temperature > 0.

    Returns:
      Tokens [B, N] and lengths [B], or [E, B, N] and [E, B].

    Raises:
      ValueError: if no key is given for sampling, a row has no token or does not end in
        one, or the tokens would pass max_length of learned positions.
    """
    inputs, adapted = prompts_of(inputs), Adapted(adapter, library, gate)
    check(model, inputs.tokens, decoding, key)
    _check_adapted(model, adapted)
    sampling = sampling_of(decoding)
    sampled = decoding.temperature > 0
    sizes = _Sizes(decoding.max_new_tokens, decoding.top_k, sampled)
    key = jax.random.key(0) if key is None else key
    if library is not None and model.route is not None and gate is None:
        gate = jax.jit(gate_state, static_argnums=0)(model, library)
        adapted = adapted._replace(gate=gate)
    return _generate(model, sizes, base, adapted, inputs, key, sampling)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _generate(
    model: Decoder,
    sizes: _Sizes,
    base: Tree,
    adapted: Adapted,
    inputs: Inputs,
    key: jax.Array,
    sampling: Sampling,
) -> Generated:
    # Unrolled layers help training and slow decoding, by a third on two CPU cores.
    model = Decoder(dataclasses.replace(model.config, unroll=1), model.route)
    every = adapted.library is not None and model.route is None
    lead = (lora.num_experts(adapted.library),) if every else ()
    run = forward_all if every else forward
    trained = _trained(model.config)
    (rows, width), mask = inputs.tokens.shape, inputs.mask
    assert mask is not None  # prompts_of

    def choose(scores: jax.Array, step: jax.Array) -> jax.Array:
        if not sizes.sampled:
            return jnp.argmax(scores, axis=-1).astype(jnp.int32)
        return sample(scores, jax.random.fold_in(key, step), sampling, sizes.top_k)

    def body(loop: _Loop) -> _Loop:
        last = Inputs(loop.last[..., None])
        scores, cache = run(model, base, adapted, last, loop.cache)
        loop = _checked(loop, scores)
        return _append(loop, choose(scores, loop.step), cache, sampling)

    def again(loop: _Loop) -> _Loop:
        """As body, after all keys of the text so far are made anew."""
        written = jnp.broadcast_to(
            jnp.arange(sizes.steps) < loop.step, (rows, sizes.steps)
        )
        text = Inputs(
            jnp.concatenate([prompts.tokens, loop.tokens], axis=-1),
            mask=jnp.concatenate([mask, written], axis=-1),
        )
        end = width + loop.step
        fresh = empty(model, adapted, (rows, width), sizes.steps, lead)
        scores, cache = run(model, base, adapted, text, fresh, end - 1)
        cache = dataclasses.replace(cache, start=end)
        loop = _checked(loop, scores)
        return _append(loop, choose(scores, loop.step), cache, sampling)

    def going(loop: _Loop) -> jax.Array:
        return (loop.step < sizes.steps) & ~jnp.all(loop.done)

    cache = empty(model, adapted, (rows, width), sizes.steps, lead)
    prompts = inputs._replace(tokens=spread(inputs.tokens, lead))
    scores, cache = run(model, base, adapted, prompts, cache)
    loop = _start((*lead, rows), sizes.steps, cache, sampling)
    loop = _checked(loop, scores)
    loop = _append(loop, choose(scores, loop.step), cache, sampling)
    if trained is not None:
        # Other frequencies from here on: keys that were rotated by the old ones would
        # not meet the queries.
        room = trained - jnp.max(jnp.sum(mask, axis=1))
        loop = jax.lax.while_loop(lambda x: going(x) & (x.step <= room), body, loop)
        crosses = going(loop) & (room >= 0)
        loop = jax.lax.cond(crosses, again, lambda x: x, loop)
    end = jax.lax.while_loop(going, body, loop)
    return Generated(end.tokens, end.lengths, end.finite)


def _trained(config: DecoderConfig) -> int | None:
    """Tokens after which all rotary frequencies become others at once (longrope)."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind != "longrope" or config.delta is not None:
        return None
    return scaling.original_length


def _start(
    shape: tuple[int, ...], steps: int, cache: Cache, sampling: Sampling
) -> _Loop:
    """Rows [B] or [E, B] before their first new token."""
    return _Loop(
        step=jnp.int32(0),
        cache=cache,
        last=jnp.zeros(shape, jnp.int32),
        tokens=jnp.full((*shape, steps), sampling.pad),
        lengths=jnp.zeros(shape, jnp.int32),
        finite=jnp.ones(shape, bool),
        done=jnp.zeros(shape, bool),
    )


def _checked(loop: _Loop, scores: jax.Array) -> _Loop:
    """Notes rows that go on with scores that are no numbers."""
    finite = jnp.isfinite(scores).all(axis=-1)
    return loop._replace(finite=loop.finite & (finite | loop.done))


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
        finite=loop.finite,
        done=loop.done | ended,
    )


def _check_adapted(model: Decoder, adapted: Adapted) -> None:
    adapter, library, gate = adapted
    if adapter is not None and library is not None:
        raise ValueError("Got an adapter and a library, expected one of them.")
    if gate is None:
        return
    if model.route is None:
        raise ValueError(
            "Got gate state, but the model has no route; build it with "
            "Decoder(config, route)."
        )
    if library is not None:
        routes.check(model.route, gate, sites.kernels(library))
