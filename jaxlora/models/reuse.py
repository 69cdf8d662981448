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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora import merge as merges
from jaxlora import route as routes
from jaxlora import tree as named
from jaxlora.lora import Adapter, Library, LoraWeight
from jaxlora.models import adapters as peft
from jaxlora.models import pretrained
from jaxlora.models.config import DecoderConfig as DecoderConfig
from jaxlora.models.decoder import Decoder
from jaxlora.models.pretrained import Dtype
from jaxlora.models.reuse_check import COMMON as COMMON
from jaxlora.models.reuse_check import MORE as MORE
from jaxlora.models.reuse_check import check as check
from jaxlora.models.reuse_check import chosen
from jaxlora.models.reuse_check import route_names as route_names
from jaxlora.models.variables import gate_state
from jaxlora.tree import Tree

Tell: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and of how much."""


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
    notes: tuple[str, ...] = ()
    """What a user should be told, in sentences."""

    def arguments(self) -> dict[str, Tree]:
        """Keyword arguments of ``models.apply``, ``hidden``, ``extend``, ``generate``.

        >>> Reuse(Decoder(DecoderConfig()), {}).arguments()
        {}
        """
        every = {"adapter": self.adapter, "library": self.library, "gate": self.gate}
        return {name: tree for name, tree in every.items() if tree is not None}


def build(
    model: Decoder,
    base: Tree,
    adapters: Sequence[Adapter],
    *,
    merge: str | None = None,
    route: str | None = None,
    weights: Sequence[float] | None = None,
    top_k: int | None = None,
    temperature: float | None = None,
    general: Sequence[Adapter] = (),
    gate: Tree | None = None,
    key: jax.Array | None = None,
) -> Reuse:
    """Makes what a decoder runs with out of adapters.

    No adapter is the base alone; one adapter, without merge or route, is that adapter.
    Adapters may have different ranks and sites: one that does not adapt a site counts
    there as a delta of zero for a merge, and is never chosen there by a route.

    Args:
      model: a decoder without a route.
      base: params tree.
      adapters: on that base.
      merge: a name of ``jaxlora.merge.names()``, or ``module:attribute`` of your own;
        of those that see no data.
      route: a name of ``jaxlora.route.names()``, or ``module:attribute`` of your own;
        one that needs data takes a ``gate``.
      weights: one number for each adapter, of any sign; for a merge only.
      top_k: experts a route keeps for each token and site; by default as the route
        says.
      temperature: divides a route's scores; by default as the route says.
      general: adapters whose mean a route such as genknowsub takes out of the others;
        by default these others.
      gate: state of a route that needs data.
      key: for merges and gates that draw.

    Raises:
      ValueError: as :func:`check`; also if an adapter does not fit the base, or the
        gate was made for other adapters.
    """
    check(
        len(adapters),
        merge=merge,
        route=route,
        weights=weights,
        top_k=top_k,
        temperature=temperature,
        trained=gate is not None,
        general=len(general),
    )
    for adapter in (*adapters, *general):
        lora.check(base, adapter)
    if merge is not None:
        library = lora.stack(_same_sites(adapters))
        combine = functools.partial(merges.preset(merge), weights=weights)
        return Reuse(model, base, jax.jit(combine)(library, key=key))
    if route is not None:
        how = chosen(route, top_k, temperature).fit(len(adapters))
        return _routed(model, base, adapters, general, how, gate, key)
    return Reuse(model, base, adapters[0] if adapters else None)


def _routed(
    model: Decoder,
    base: Tree,
    adapters: Sequence[Adapter],
    general: Sequence[Adapter],
    how: routes.Route,
    gate: Tree | None,
    key: jax.Array | None,
) -> Reuse:
    library = lora.stack(_same_sites(adapters))
    common = lora.stack(_same_sites(general)) if general else None
    library = jax.jit(how.library)(library, common)
    routed = Decoder(model.config, how)
    if gate is None:
        gate = jax.jit(gate_state, static_argnums=0)(routed, library, key=key)
    else:
        routes.check(how, gate, library)
    notes = tuple(_partial(adapters))
    return Reuse(routed, base, library=library, gate=gate, notes=notes)


def _partial(adapters: Sequence[Adapter]) -> Iterator[str]:
    """Says which routed adapters lack sites that others have."""
    own = [set(lora.sites(adapter)) for adapter in adapters]
    every = set().union(*own)
    for i, sites in enumerate(own):
        if sites != every:
            lacks = sorted(every - sites)
            more = f" and {len(lacks) - 2} more" if len(lacks) > 2 else ""
            yield (
                f"Adapter {i + 1} of {len(adapters)} does not adapt "
                f"{', '.join(lacks[:2])}{more}; there the route chooses among the "
                f"others."
            )


def load(
    folder: str | os.PathLike[str],
    adapter_folders: Sequence[str | os.PathLike[str]] = (),
    *,
    key: jax.Array | None = None,
    dtype: Dtype | None = None,
    general_folders: Sequence[str | os.PathLike[str]] = (),
    tell: Tell = lambda *_: None,
    **combining: Any,
) -> Reuse:
    """Reads a checkpoint and its adapters from disk, and combines them.

    Args:
      folder: a Hugging Face checkpoint.
      adapter_folders: PEFT adapters.
      key: for merges that draw.
      dtype: type of params and activations; None is what the checkpoint says.
      general_folders: PEFT adapters, the ``general`` of :func:`build`.
      tell: called after each tensor of the checkpoint, and before each adapter.
      **combining: merge, route, weights, top_k, temperature and gate of
        :func:`build`.

    Raises:
      ValueError: as :func:`build`, and if a folder is missing or not what it should be.
    """
    asked = {name: value for name, value in combining.items() if name != "gate"}
    trained = combining.get("gate") is not None
    many = len(general_folders)
    check(len(adapter_folders), trained=trained, general=many, **asked)
    reading = functools.partial(tell, Path(folder).name)
    model, base = pretrained.load(
        Path(folder), dtype=dtype, param_dtype=dtype, tell=reading
    )
    folders, found = (*adapter_folders, *general_folders), []
    for i, path in enumerate(folders):
        tell(Path(path).name, i, len(folders))
        found.append(_adapter(Path(path), base))
    own, general = found[: len(adapter_folders)], found[len(adapter_folders) :]
    return build(model, base, own, general=general, key=key, **combining)


def _adapter(path: Path, base: Tree) -> Adapter:
    try:
        return peft.load(path, base)
    except ValueError as error:  # of several adapters, say which
        text = str(error)
        raise ValueError(text if str(path) in text else f"{path}: {text}") from None


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
