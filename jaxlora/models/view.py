"""What all layers of one call share: positions, who sees whom, whose mean is taken."""

import jax
import jax.numpy as jnp

from jaxlora.models import cache as caches
from jaxlora.models.attention import View, near, seen
from jaxlora.models.cache import Cache
from jaxlora.models.config import DecoderConfig
from jaxlora.models.delta import runs_of
from jaxlora.models.inputs import Inputs
from jaxlora.route import Pool, Route


def view_of(
    c: DecoderConfig, route: Route | None, inputs: Inputs, cache: Cache | None
) -> tuple[Cache | None, View]:
    """The view of a call, and the cache with the mask of its tokens entered.

    Args:
      c: of the decoder.
      route: of the decoder.
      inputs: tokens [B, T], and their mask, segments or positions.
      cache: of earlier calls, or None.
    """
    tokens, mask, segments, positions, tree = inputs
    b, t = tokens.shape
    causal = cache is None and mask is None and segments is None and tree is None
    if segments is None:  # a mask hides keys; a padded query still sees the others
        queries = jnp.ones((b, t), jnp.int32)
        keys = queries if mask is None else mask.astype(jnp.int32)
    else:
        queries = keys = segments
    start, counted = None, jnp.broadcast_to(jnp.arange(t)[None], (b, t))
    if cache is not None:
        start = cache.start
        cache, counted = caches.admit(cache, keys > 0)
        keys = cache.segments
    first, local = 0 if start is None else start, any(c.local_layers)
    positions = counted if positions is None else positions
    allowed = seen(queries, keys, first)
    close = near(queries, keys, first, c.window) if local else None
    if tree is not None:
        among = jnp.ones((t, keys.shape[1]), bool)
        among = jax.lax.dynamic_update_slice(among, tree, (0, first))[None]
        allowed, close = allowed & among, close if close is None else close & among
    return cache, View(
        positions=positions,
        seen=None if causal and not local else allowed,
        near=close,
        start=start,
        pool=_pool(route, queries, keys, start),
        segments=(queries, keys) if start is None else None,
        length=_length(c, positions),
        runs=runs_of(c, inputs),
    )


def _length(c: DecoderConfig, positions: jax.Array):
    """Tokens of the longest sequence so far, for frequencies that depend on them."""
    if c.rope_scaling is None or not c.rope_scaling.by_length:
        return None
    return jnp.max(positions) + 1


def _pool(route: Route | None, queries, keys, start) -> Pool | None:
    """Which tokens of this call a route by sequence takes the mean of."""
    if route is None or route.granularity != "sequence":
        return None
    if start is None:
        return Pool(seen(queries, keys, 0).astype(jnp.float32))
    new = jax.lax.dynamic_slice_in_dim(keys, start, queries.shape[1], axis=1)
    before = jnp.sum(keys, axis=1, keepdims=True) - jnp.sum(new, axis=1, keepdims=True)
    within = seen(queries, new, 0).astype(jnp.float32)
    return Pool(within, before.astype(jnp.float32))
