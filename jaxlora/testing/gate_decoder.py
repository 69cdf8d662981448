"""A route in a decoder of two layers: are rows apart, and does decoding route alike?"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.lora import Library
from jaxlora.models import cache, routing
from jaxlora.route import Route
from jaxlora.testing import gate_worlds as worlds
from jaxlora.testing.gate_worlds import apart


class InDecoder:
    """One compiled call of all tokens, and one of a few, for one route."""

    def __init__(self, route: Route, library: Library, data: Any, key: jax.Array):
        self.route, self.library, self.data, self.key = route, library, data, key

    @functools.cached_property
    def world(self) -> tuple[Any, Library, Any]:
        """Base, library as the route uses it, and state."""
        library = jax.jit(self.route.library)(self.library)
        state = worlds.state_of(self.route, library, self.data, self.key)
        return worlds.base_of(), library, state

    @functools.cached_property
    def run(self):
        """A jitted call of all tokens: ``(tokens, segments) -> hidden, weights``."""
        run = jax.jit(worlds.in_decoder, static_argnums=0)
        table = worlds.labels_of(worlds.CONFIG.vocab_size, worlds.E)

        def call(tokens: np.ndarray, segments: np.ndarray):
            labels = table[tokens] if self.route.gate.data == "labels" else None
            words = (jnp.asarray(tokens), jnp.asarray(segments), _places_of(segments))
            return jax.device_get(run(self.route, *self.world, *words, labels))

        return call

    def rows(self) -> float:
        """One text alone, padded left and right, and packed beside others."""
        text, pad, other = [3, 1, 4], [0, 0, 0], [9, 2, 6]
        rows = [(text, pad), (pad, text), (other, text), (text, other)]
        tokens = np.asarray([[*x, *y] for x, y in rows], np.int32)
        segments = np.asarray(
            [[1] * 3 + [0] * 3, [0] * 3 + [1] * 3, *[[1] * 3 + [2] * 3] * 2]
        )
        segments = segments.astype(np.int32)
        run = self.run(tokens, segments)
        alone = {name: x[0, :3] for name, x in run.items()}
        worst = 0.0
        for row, start in ((1, 3), (2, 3), (3, 0)):
            here = {name: x[row, start : start + 3] for name, x in run.items()}
            worst = max(worst, apart(here, alone))
        # Other neighbours, and another use of the padding: the text must not notice.
        changed, odd = tokens.copy(), segments.copy()
        changed[1:] = 10 - tokens[1:]
        changed[0, 3:], odd[1:] = 7, 1
        again = self.run(changed, odd)
        return max(worst, apart({k: x[0, :3] for k, x in again.items()}, alone))

    def steps(self) -> float:
        """Two rows, one padded on the left, in three calls of two tokens."""
        if self.route.gate.data == "labels":
            return float("inf")  # there is no place for labels in a cached call
        tokens = np.asarray([[0, 3, 1, 4, 1, 5], [9, 2, 6, 5, 3, 5]] * 2, np.int32)
        mask = np.ones((4, 6), bool)
        mask[::2, 0] = False
        want = self.run(tokens, mask.astype(np.int32))
        base, library, state = self.world
        pooled = routing.pooled(self.route, worlds.CONFIG, library, 4)
        stored = cache.empty(worlds.CONFIG, 4, 6, pooled)
        run = jax.jit(worlds.in_steps, static_argnums=0)
        parts = []
        for i in (0, 2, 4):
            words = (jnp.asarray(tokens[:, i : i + 2]), stored, mask[:, i : i + 2])
            part, stored = run(self.route, base, library, state, *words)
            parts.append(jax.device_get(part))
        got = {k: np.concatenate([part[k] for part in parts], axis=1) for k in want}
        return apart(*({k: x[mask] for k, x in run.items()} for run in (got, want)))


def _places_of(segments: np.ndarray) -> jax.Array:
    """Positions [B, T] of tokens in their own segment."""
    same = segments[:, :, None] == segments[:, None, :]
    before = np.tril(np.ones(same.shape[1:], bool), -1)
    return jnp.asarray((same & before[None]).sum(-1), jnp.int32)
