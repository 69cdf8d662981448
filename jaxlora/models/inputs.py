"""Checked inputs of a decoder: collections that fit each other, masks and labels."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxlora import lora, route
from jaxlora.lora import Library
from jaxlora.models.decoder import Decoder
from jaxlora.tree import Tree


def gate_state(
    model: Decoder, library: Library, *, key: jax.Array | None = None, data: Any = None
) -> Tree:
    """Returns the state of the model's route for a library.

    Args:
      model: a decoder with a route.
      library: [E, ...], as the route uses it (``route.library``).
      key: PRNG key, for gates that draw.
      data: for gates that need some, see ``Gate.init``.

    Raises:
      ValueError: if the model has no route, or data are needed and not given.
    """
    if model.route is None:
        raise ValueError("The model has no route; build it with Decoder(config, route)")
    width = model.config.hidden_size
    return model.route.init(library, key=key, data=data, width=width)


def check_mask(tokens, mask, segments) -> None:
    """Refuses a mask beside segments, or one of another shape than the tokens."""
    if mask is not None and segments is not None:
        raise ValueError("Got both mask and segments; segments say both, 0 is padding.")
    given = mask if segments is None else segments
    if given is not None and given.shape != tokens.shape:
        raise ValueError(
            f"mask or segments have shape {given.shape}, expected that of the tokens, "
            f"{tokens.shape}."
        )


def variables(
    model: Decoder, base: Tree, tokens, adapter, library, gate, labels
) -> dict[str, Any]:
    """The collections that a decoder is applied to; arguments as in ``models.apply``.

    Raises:
      ValueError: if adapter, library, gate or labels do not fit the base, each other or
        the model's route, or the sequence is too long.
    """
    c = model.config
    if c.positions == "learned" and tokens.shape[1] > c.max_length:
        raise ValueError(
            f"Sequences have {tokens.shape[1]} tokens, but the model has learned "
            f"positions for {c.max_length}; raise max_length or shorten the input."
        )
    given: dict[str, Any] = {"params": base}
    if model.route is None:
        if library is not None or gate is not None or labels is not None:
            raise ValueError(
                "Got a library, gate or labels, but the model has no route; build it "
                "with Decoder(config, route), or merge the library into one adapter."
            )
        if adapter is not None:
            lora.check(base, adapter)
            given["lora"] = adapter
    else:
        given |= _routed(model, base, tokens, adapter, library, gate, labels)
    return given


def _routed(model: Decoder, base, tokens, adapter, library, gate, labels):
    if adapter is not None or library is None:
        raise ValueError(
            "The model has a route, so it needs library=..., and no adapter=...; "
            "stack() makes a library of adapters."
        )
    experts = lora.num_experts(library)
    lora.check(base, library, experts)
    if labels is not None:
        _check_labels(model, tokens, labels, experts)
    if gate is None:
        gate = gate_state(model, library)
    else:
        way: Any = model.route
        route.check(way, gate, library)
    return {"lora": library, "gate": gate}


def _check_labels(model: Decoder, tokens, labels, experts: int) -> None:
    wanted = (model.config.num_layers, *tokens.shape, experts)
    shapes = (wanted, wanted[1:], (wanted[1], experts))
    if labels.shape not in shapes:
        raise ValueError(
            f"Oracle labels have shape {labels.shape}, expected [L, B, T, E] = "
            f"{wanted}, [B, T, E] or [B, E]."
        )
    if model.route is not None and model.route.gate.data != "labels":
        raise ValueError(
            f"Got labels, but the gate {model.route.gate!r} makes its own weights; "
            f"labels are for route.oracle."
        )


def spread(model: Decoder, tokens, labels: jax.Array | None) -> jax.Array | None:
    """Labels as [L, B, T, E], whatever was left out."""
    if labels is None:
        return None
    if labels.ndim == 2:
        labels = labels[:, None]
    if labels.ndim == 3:
        labels = labels[None]
    shape = (model.config.num_layers, *tokens.shape, labels.shape[-1])
    return jnp.broadcast_to(labels, shape)
