"""What goes into a decoder: tokens with their padding, and what adapts the base."""

from typing import NamedTuple, TypeAlias

import jax

from jaxlora.lora import Adapter, Library
from jaxlora.tree import Tree


class Inputs(NamedTuple):
    """Tokens of a batch, and what else a decoder must know of them.

    >>> Inputs([[3, 1, 4]]).mask is None
    True
    """

    tokens: jax.Array
    """[B, T] token ids; T <= max_length for learned positions."""
    mask: jax.Array | None = None
    """[B, T], true where a token may be attended to; padding is false."""
    segments: jax.Array | None = None
    """[B, T] in place of a mask, for several examples in a row: a token sees its own
    segment only, and 0 is padding."""
    positions: jax.Array | None = None
    """[B, T] for rotary angles or learned positions; by default 0 to T - 1."""
    tree: jax.Array | None = None
    """[T, T], true where a token may attend to another of this call, for several
    continuations side by side; by default to all earlier ones."""


Tokens: TypeAlias = jax.Array | Inputs
"""What callers may give: token ids [B, T] alone, or :class:`Inputs`."""


class Adapted(NamedTuple):
    """What changes the base: nothing, one adapter, or a library and its gate."""

    adapter: Adapter | None = None
    """One adapter, for a model without a route."""
    library: Library | None = None
    """[E, ...], for a model with a route."""
    gate: Tree | None = None
    """State of the route's gate for the library."""


def inputs_of(given: Tokens) -> Inputs:
    """Returns the inputs of a call, checked.

    Args:
      given: token ids [B, T] alone, or :class:`Inputs`.

    Raises:
      ValueError: if there are both a mask and segments, or one of them has another
        shape than the tokens.
    """
    inputs = given if isinstance(given, Inputs) else Inputs(given)
    tokens, mask, segments = inputs[:3]
    if mask is not None and segments is not None:
        raise ValueError("Got both mask and segments; segments say both, 0 is padding.")
    attended = mask if segments is None else segments
    if attended is not None and attended.shape != tokens.shape:
        raise ValueError(
            f"mask or segments have shape {attended.shape}, expected that of the "
            f"tokens, {tokens.shape}."
        )
    return inputs
