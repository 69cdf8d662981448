"""A base and how its adapters are reused: none, one, a merge of several, or a route.

What is built here is what every call of a decoder takes: a model (with a route, if the
library is routed), the base, and an adapter or a library with its gate.

>>> from jaxlora import models
>>> config = DecoderConfig(vocab_size=16, hidden_size=8, num_layers=2, mlp_size=16,
...                        num_heads=2, num_kv_heads=2, head_dim=4)
>>> model = Decoder(config)
>>> base = jax.jit(models.init, static_argnums=1)(jax.random.key(0), model)
>>> make = lambda i: lora.init(jax.random.key(i), base, lora.LoraConfig(rank=2))
>>> found = build(model, base, [make(1), make(2)], merge="sum", weights=[1.0, -0.5])
>>> tokens = jnp.zeros((1, 3), jnp.int32)
>>> run = jax.jit(models.apply, static_argnums=0)
>>> run(found.model, found.base, tokens, **found.arguments()).shape
(1, 3, 16)
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora import merge as merges
from jaxlora import route as routes
from jaxlora import tree as named
from jaxlora.lora import Adapter, Library, LoraWeight
from jaxlora.merge.compose import unknown
from jaxlora.models import adapters as peft
from jaxlora.models import pretrained
from jaxlora.models.config import DecoderConfig as DecoderConfig
from jaxlora.models.decoder import Decoder
from jaxlora.models.pretrained import Dtype
from jaxlora.tree import Tree

Tell: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


COMMON = ("mean", "sum", "ties", "svd")
"""Merges that messages name; there are many more."""

MORE = " (`jaxlora merge --list` shows every merge)"


@dataclasses.dataclass(frozen=True)
class Reuse:
    """A model, its base, and the adapter or routed library that it runs with."""

    model: Decoder
    """With a route if, and only if, there is a library."""
    base: Tree
    """Params tree."""
    adapter: Adapter | None = None
    """One adapter: given, or merged from several."""
    library: Library | None = None
    """[E, ...], to be routed."""
    gate: Tree | None = None
    """State of the route's gate for that library."""

    def arguments(self) -> dict[str, Tree]:
        """Keyword arguments of ``models.apply``, ``hidden``, ``extend``, ``generate``.

        >>> Reuse(Decoder(DecoderConfig()), {}).arguments()
        {}
        """
        every = {"adapter": self.adapter, "library": self.library, "gate": self.gate}
        return {name: tree for name, tree in every.items() if tree is not None}


def route_names() -> tuple[str, ...]:
    """Names of the routes that need no labels.

    >>> "oracle" in route_names()
    False
    """
    return tuple(name for name in routes.names() if name != routes.oracle.name)


def check(
    adapters: int,
    *,
    merge: str | None = None,
    route: str | None = None,
    weights: Sequence[float] | None = None,
    top_k: int = 0,
    temperature: float = 1.0,
) -> None:
    """Refuses what :func:`build` cannot do, before anything is read.

    Args:
      adapters: how many there are.
      merge: these are arguments of :func:`build`.
      route: see there.
      weights: see there.
      top_k: see there.
      temperature: see there.

    Raises:
      ValueError: naming what is wrong and what exists.
    """
    if merge is not None and route is not None:
        raise ValueError(
            f"Got the merge {merge!r} and the route {route!r}, expected one of them: a "
            f"merge leaves one adapter, and nothing to route."
        )
    if merge is not None:
        _check_merge(merge, adapters, weights)
    elif weights is not None:
        raise ValueError(
            f"Got {len(weights)} weights but no merge that uses them; the merge 'sum' "
            f"scales each adapter by its weight{MORE}."
        )
    if route is not None:
        _check_route(route, adapters, top_k, temperature)
    elif top_k or temperature != 1:
        raise ValueError(
            f"Got top_k {top_k} and a temperature of {temperature:g}, which say how a "
            f"route chooses, but no route; there are {', '.join(route_names())}."
        )
    if adapters > 1 and merge is None and route is None:
        raise ValueError(
            f"Got {adapters} adapters, but nothing that combines them; name a merge, "
            f"such as {', '.join(COMMON)}{MORE}, or a route "
            f"({', '.join(route_names())})."
        )


def build(
    model: Decoder,
    base: Tree,
    adapters: Sequence[Adapter],
    *,
    merge: str | None = None,
    route: str | None = None,
    weights: Sequence[float] | None = None,
    top_k: int = 0,
    temperature: float = 1.0,
    key: jax.Array | None = None,
) -> Reuse:
    """Makes what a decoder runs with out of adapters.

    No adapter is the base alone; one adapter, without merge or route, is that adapter.
    A merge takes adapters of different ranks and sites: one that does not adapt a site
    leaves it as it is, and counts there as a delta of zero.

    Args:
      model: a decoder without a route.
      base: params tree.
      adapters: on that base.
      merge: a name of ``jaxlora.merge.names()``, or ``module:attribute`` of your own;
        of those that see no data.
      route: a name of :func:`route_names`.
      weights: one number for each adapter, of any sign; for a merge only.
      top_k: experts a route keeps for each token and site; 0 keeps all.
      temperature: divides a route's scores before the softmax.
      key: for merges that draw.

    Raises:
      ValueError: as :func:`check`; also if an adapter does not fit the base, or routed
        adapters adapt different sites.
    """
    check(
        len(adapters),
        merge=merge,
        route=route,
        weights=weights,
        top_k=top_k,
        temperature=temperature,
    )
    for adapter in adapters:
        lora.check(base, adapter)
    if merge is not None:
        library = lora.stack(_same_sites(adapters))
        combine = functools.partial(merges.preset(merge), weights=weights)
        return Reuse(model, base, jax.jit(combine)(library, key=key))
    if route is not None:
        chosen = routes.Route(
            gate=routes.gate(route), top_k=top_k, temperature=temperature
        )
        library = _stack(adapters)
        routed = Decoder(model.config, chosen)
        return Reuse(
            routed, base, library=library, gate=jax.jit(chosen.gate.init)(library)
        )
    return Reuse(model, base, adapters[0] if adapters else None)


def load(
    folder: str | os.PathLike[str],
    adapter_folders: Sequence[str | os.PathLike[str]] = (),
    *,
    key: jax.Array | None = None,
    dtype: Dtype | None = None,
    tell: Tell = lambda *_: None,
    **combining: Any,
) -> Reuse:
    """Reads a checkpoint and its adapters from disk, and combines them.

    Args:
      folder: a Hugging Face checkpoint.
      adapter_folders: PEFT adapters.
      key: for merges that draw.
      dtype: type of params and activations; None is what the checkpoint says.
      tell: called after each tensor of the checkpoint, and before each adapter.
      **combining: merge, route, weights, top_k and temperature of :func:`build`.

    Raises:
      ValueError: as :func:`build`, and if a folder is missing or not what it should be.
    """
    check(len(adapter_folders), **combining)
    reading = functools.partial(tell, Path(folder).name)
    model, base = pretrained.load(
        Path(folder), dtype=dtype, param_dtype=dtype, tell=reading
    )
    found = []
    for i, path in enumerate(adapter_folders):
        tell(Path(path).name, i, len(adapter_folders))
        found.append(_adapter(Path(path), base))
    return build(model, base, found, key=key, **combining)


def _adapter(path: Path, base: Tree) -> Adapter:
    try:
        return peft.load(path, base)
    except ValueError as error:  # of several adapters, say which
        text = str(error)
        raise ValueError(text if str(path) in text else f"{path}: {text}") from None


def _check_merge(merge: str, adapters: int, weights: Sequence[float] | None) -> None:
    if merge in route_names():
        raise ValueError(_unknown("merge", merge, (), route_names()))
    found = merges.preset(merge)
    if found.data != "free":
        raise ValueError(
            f"The merge {merge!r} needs data of its own, which there is no place for "
            f"here; `jaxlora merge --method {merge} --data FILE` writes an adapter."
        )
    if not adapters:
        raise ValueError(f"Got the merge {merge!r} but no adapter to merge.")
    if weights is not None and len(weights) != adapters:
        raise ValueError(
            f"Got {len(weights)} weights for {adapters} adapters, expected one for "
            f"each, in the same order."
        )


def _check_route(route: str, adapters: int, top_k: int, temperature: float) -> None:
    if route == routes.oracle.name:
        raise ValueError(
            f"The route 'oracle' is told which expert each token needs, and nothing "
            f"tells it here; there are {', '.join(route_names())}."
        )
    if route not in route_names():
        raise ValueError(_unknown("route", route, route_names(), merges.names()))
    if not adapters:
        raise ValueError(f"Got the route {route!r} but no adapter to route to.")
    routes.Route(gate=routes.gate(route), top_k=top_k, temperature=temperature)
    if top_k > adapters:
        raise ValueError(
            f"Got top_k {top_k} for {adapters} adapters, expected 0 (all) to "
            f"{adapters}: a route cannot keep more than there are."
        )


def _unknown(kind: str, name: str, known: Sequence[str], others: Sequence[str]) -> str:
    if name in others:
        other = "route" if kind == "merge" else "merge"
        return f"{name!r} is a {other}, not a {kind}; give it as the {other}."
    return unknown(kind, name, known)


def _stack(adapters: Sequence[Adapter]) -> Library:
    try:
        return lora.stack(adapters)
    except ValueError as error:
        raise ValueError(
            f"{error} A route weighs all of them at every site; a merge takes adapters "
            f"of different sites."
        ) from None


def _same_sites(adapters: Sequence[Adapter]) -> list[Adapter]:
    """Gives every adapter the sites of all, with a delta of zero where it had none."""
    every: dict[str, LoraWeight] = {}
    for adapter in adapters:
        every |= lora.sites(adapter)
    return [_widen(adapter, every) for adapter in adapters]


def _widen(adapter: Adapter, every: dict[str, LoraWeight]) -> Adapter:
    own = lora.sites(adapter)
    absent = {name: _zero(w) for name, w in every.items() if name not in own}
    return named.unflatten(own | absent) if absent else adapter


def _zero(like: LoraWeight) -> LoraWeight:
    a, b = jnp.zeros_like(like.a[..., :1]), jnp.zeros_like(like.b[..., :1, :])
    return LoraWeight(a, b, jnp.ones_like(like.scale))
