"""What a routed decoder chose, for every token at every site."""

from typing import NamedTuple

import jax

from jaxlora import tree as named
from jaxlora.lora import Library
from jaxlora.models.decoder import Decoder
from jaxlora.models.inputs import check_mask, spread, variables
from jaxlora.tree import Tree


class Routes(NamedTuple):
    """What a route chose in a call."""

    weights: Tree
    """At every site, [L, B, T, E] float32."""
    nonfinite: Tree
    """Wherever weights are computed, [L, B, T] (or [1, B, T] for the whole model):
    true where a score was no number, and was passed over."""


def routes(
    model: Decoder,
    base: Tree,
    tokens: jax.Array,
    *,
    library: Library,
    gate: Tree | None = None,
    mask: jax.Array | None = None,
    segments: jax.Array | None = None,
    labels: jax.Array | None = None,
) -> Routes:
    """Returns the weights that the route gives the experts, for every token.

    Arguments are those of :func:`apply`.

    Raises:
      ValueError: as ``apply``, and if the model has no route.
    """
    if model.route is None:
        raise ValueError("The model has no route; build it with Decoder(config, route)")
    given = variables(model, base, tokens, None, library, gate, labels)
    check_mask(tokens, mask, segments)
    labels = spread(model, tokens, labels)
    _, found = model.apply(given, tokens, mask, labels, segments, mutable=["routes"])
    # Flax keeps what is sown as a tuple, here of one array [L, N, E] or [L, N].
    sown = named.flatten(found["routes"], lambda leaf: isinstance(leaf, tuple))
    weights = {
        name: leaf[0].reshape(-1, *tokens.shape, leaf[0].shape[-1])
        for name, leaf in sown.items()
        if name.endswith("kernel")
    }
    strayed = {
        name: leaf[0].reshape(-1, *tokens.shape)
        for name, leaf in sown.items()
        if not name.endswith("kernel")
    }
    return Routes(named.unflatten(weights), named.unflatten(strayed))
