"""What a routed decoder chose, for every token at every site."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlora import tree as named
from jaxlora.lora import Library
from jaxlora.models.decoder import Decoder
from jaxlora.models.inputs import Adapted, Tokens, inputs_of
from jaxlora.models.mlp import site_of
from jaxlora.models.variables import spread, variables
from jaxlora.tree import Tree


class Routes(NamedTuple):
    """What a route chose in a call."""

    weights: Tree
    """At every site, [P L, B, T, E] float32: P passes, one after another."""
    nonfinite: Tree
    """Wherever weights are computed, [P L, B, T] (or [1, B, T] for the whole model):
    true where a score was no number, and was passed over."""


def routes(
    model: Decoder,
    base: Tree,
    inputs: Tokens,
    *,
    library: Library,
    gate: Tree | None = None,
    labels: jax.Array | None = None,
) -> Routes:
    """Returns the weights that the route gives the experts, for every token.

    Args:
      model: a decoder with a route.
      base: params tree.
      inputs: token ids [B, T], or :class:`Inputs` with a mask, segments or positions.
      library: a library [E, ...].
      gate: the route's state for the library; by default that of :func:`gate_state`.
      labels: weights for the oracle gate only, [L, B, T, E], [B, T, E] or [B, E].

    Raises:
      ValueError: as :func:`apply`, and if the model has no route.
    """
    if model.route is None:
        raise ValueError("The model has no route; build it with Decoder(config, route)")
    inputs = inputs_of(inputs)
    tokens = inputs.tokens
    given = variables(model, base, tokens, Adapted(None, library, gate), labels)
    labels = spread(model, tokens, labels)
    _, sown = model.apply(given, inputs, labels, mutable=["routes"])
    # Flax keeps what is sown as a tuple, of one array [L, N, E] or [L, N] each pass.
    places = named.flatten(sown["routes"], lambda leaf: isinstance(leaf, tuple))
    leaves = {site_of(name): leaf for name, leaf in places.items()}
    weights = {
        name: jnp.concatenate(leaf).reshape(-1, *tokens.shape, leaf[0].shape[-1])
        for name, leaf in leaves.items()
        if name.endswith("kernel")
    }
    nonfinite = {
        name: jnp.concatenate(leaf).reshape(-1, *tokens.shape)
        for name, leaf in leaves.items()
        if not name.endswith("kernel")
    }
    return Routes(named.unflatten(weights), named.unflatten(nonfinite))
