"""Flax collections of one call of a decoder, checked to fit each other."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxlora import lora, route
from jaxlora.lora import Library
from jaxlora.models import sites
from jaxlora.models.decoder import Decoder
from jaxlora.models.inputs import Adapted
from jaxlora.models.moe import refuse_stacked
from jaxlora.tree import Tree


def gate_state(
    model: Decoder, library: Library, *, key: jax.Array | None = None, data: Any = None
) -> Tree:
    """Returns the state of the model's route for a library.

    Args:
      model: a decoder with a route.
      library: [E, ...], as the route uses it (``route.library``).
      key: PRNG key, for gates that draw.
      data: for gates that need some, arrays by path as ``Gate.init`` takes them.

    Raises:
      ValueError: if the model has no route, data are needed and not given, or sites
        of a layer and of a shared MLP would have to share a decision.
    """
    if model.route is None:
        raise ValueError("The model has no route; build it with Decoder(config, route)")
    if model.config.shared_mlp and model.route.per != "site":
        raise ValueError(
            f"The gate decides per {model.route.per}, but shared_mlp has sites without "
            f"an axis of layers; expected a gate per site."
        )
    sizes = {"width": model.config.hidden_size, "period": len(model.config.kinds)}
    return model.route.init(sites.kernels(library), key=key, data=data, **sizes)


def variables(
    model: Decoder,
    base: Tree,
    tokens: jax.Array,
    adapted: Adapted,
    labels: jax.Array | None = None,
) -> dict[str, Any]:
    """The collections that a decoder is applied to: params, lora and gate.

    Flax silently ignores a collection that no module reads, so what does not fit is
    refused here.

    Args:
      model: a decoder.
      base: params tree.
      tokens: [B, T] token ids.
      adapted: an adapter without a route, a library and perhaps its gate with one.
      labels: weights of the oracle, [L, B, T, E], [B, T, E] or [B, E].

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
    if model.route is not None:
        return {"params": base} | _routed(model, base, tokens, adapted, labels)
    if adapted.library is not None or adapted.gate is not None or labels is not None:
        raise ValueError(
            "Got a library, gate or labels, but the model has no route; build it "
            "with Decoder(config, route), or merge the library into one adapter."
        )
    if adapted.adapter is None:
        return {"params": base}
    sites.check(base, adapted.adapter)
    return {"params": base, "lora": adapted.adapter}


def _routed(model: Decoder, base, tokens, adapted: Adapted, labels) -> dict[str, Any]:
    adapter, library, gate = adapted
    if adapter is not None or library is None:
        raise ValueError(
            "The model has a route, so it needs library=..., and no adapter=...; "
            "stack() makes a library of adapters."
        )
    experts = lora.num_experts(library)
    sites.check(base, library, experts)
    refuse_stacked(lora.sites(library), "a route")
    if labels is not None:
        _check_labels(model, tokens, labels, experts)
    if gate is None:
        gate = gate_state(model, library)
    else:
        way: Any = model.route
        route.check(way, gate, sites.kernels(library))
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


def spread(
    model: Decoder, tokens: jax.Array, labels: jax.Array | None
) -> jax.Array | None:
    """Labels of the oracle for every layer and token, [L, B, T, E].

    Args:
      model: a decoder of L layers.
      tokens: [B, T].
      labels: [L, B, T, E], [B, T, E] for the same in all layers, [B, E] for the same
        at all tokens, or None.
    """
    if labels is None:
        return None
    if labels.ndim == 2:
        labels = labels[:, None]
    if labels.ndim == 3:
        labels = labels[None]
    shape = (model.config.num_layers, *tokens.shape, labels.shape[-1])
    return jnp.broadcast_to(labels, shape)
