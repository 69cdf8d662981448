"""A base and how its adapters are reused: none, one, a merge of several, or a route.

What is built here is what every call of a decoder takes: a model (with a route, if the
library is routed), the base, and an adapter or a library with its gate.

>>> from jax import numpy as jnp
>>> from jaxlora import models
>>> config = DecoderConfig(vocab_size=16, hidden_size=8, num_layers=2, mlp_size=16,
...                        num_heads=2, num_kv_heads=2, head_dim=4)
>>> model = Decoder(config)
>>> base = jax.jit(models.init, static_argnums=1)(jax.random.key(0), model)
>>> make = lambda i: lora.init(jax.random.key(i), base, lora.LoraConfig(rank=2))
>>> mixed = build(model, base, [make(1), make(2)], merge="sum", weights=[1.0, -0.5])
>>> tokens = jnp.zeros((1, 3), jnp.int32)
>>> run = jax.jit(models.apply, static_argnums=0)
>>> run(mixed.model, mixed.base, tokens, **mixed.arguments()).shape
(1, 3, 16)
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxlora import lora, parallel
from jaxlora import merge as merges
from jaxlora import route as routes
from jaxlora.io import peft
from jaxlora.io.adapter_folders import bases, expand, other_bases
from jaxlora.io.errors import naming
from jaxlora.io.peft import PeftFile
from jaxlora.lora import Adapter, Library
from jaxlora.models import adapters as adapter_trees
from jaxlora.models import pretrained, sites
from jaxlora.models.config import DecoderConfig as DecoderConfig
from jaxlora.models.decoder import Decoder
from jaxlora.models.layer_places import layer_places
from jaxlora.models.pretrained import Dtype
from jaxlora.models.replaced import replace
from jaxlora.models.variables import gate_state
from jaxlora.names import check_several
from jaxlora.reuse import libraries, zeros
from jaxlora.reuse.combination import Combination, check, check_mesh
from jaxlora.tree import Tree

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being read, how much of it is done, and of how much."""


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
    """What a user should know of the adapters, in sentences."""
    mesh: Mesh | None = None
    """What the base is cut over; rows are cut over its ``data`` axis."""

    def rows(self, values: np.ndarray) -> jax.Array:
        """Puts rows [B, ...] where the model runs, cut over the mesh if there is one.

        Args:
          values: of NumPy, B as ``parallel.filled`` gives it; with many processes the
            same in all.
        """
        return parallel.place(values, self.mesh, PartitionSpec(parallel.BATCH))

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
    general: Sequence[Adapter] = (),
    gate: Tree | None = None,
    key: jax.Array | None = None,
    mesh: Mesh | None = None,
    **combining: Any,
) -> Reuse:
    """Makes what a decoder runs with out of adapters.

    No adapter is the base alone; one adapter, without merge or route, is that adapter.
    Adapters may have different ranks and sites: one that does not adapt a site counts
    there as a delta of zero for a merge, and is never chosen there by a route.

    Args:
      model: a decoder without a route.
      base: params tree.
      adapters: on that base.
      general: adapters whose mean a route such as genknowsub takes out of the others;
        by default these others.
      gate: state of a route that needs data.
      key: for merges and gates that draw.
      mesh: what the base is cut over, or None. Experts are cut over its ``expert``, if
        it divides them, whether they are merged or routed: no device holds them all.
      **combining: fields of :class:`Combination`: merge and weights, or route, top_k
        and temperature.

    Raises:
      ValueError: as :func:`check`; also if an adapter does not fit the base, the gate
        was made for other adapters, or one adapter stands where a list is meant.
    """
    for name, given in (("adapters", adapters), ("general", general)):
        if isinstance(given, Mapping):
            raise ValueError(
                f"{name} is one tree with {', '.join(map(repr, given))}, expected a "
                f"list of adapters: [adapter] is one; lora.unstack takes a library "
                f"apart."
            )
    how = _combination(**combining)
    check(how, len(adapters), trained=gate is not None, general=len(general))
    for adapter in (*adapters, *general):
        sites.check(base, adapter)
    adapters, general = (
        [_computed(adapter, model) for adapter in some] for some in (adapters, general)
    )
    if how.merge is not None:
        library = libraries.stacked(adapters, mesh)
        merge = merges.preset(how.merge).at(layer_places(model.config, library))
        adapter = libraries.merged(merge, how.weights, library, key, mesh)
        return _placed(Reuse(model, base, adapter), mesh)
    if how.route is None:
        return _placed(Reuse(model, base, adapters[0] if adapters else None), mesh)
    for adapter in (*adapters, *general):
        sites.check_layers(adapter, "a route")  # gates of any name are made so
    way = how.way().fit(len(adapters))
    library = libraries.routed(way, adapters, general, mesh)
    model = Decoder(model.config, way)
    if gate is None:
        with parallel.using(mesh):
            gate = jax.jit(gate_state, static_argnums=0)(model, library, key=key)
    else:
        routes.check(way, gate, sites.kernels(library))
    routed = Reuse(model, base, library=library, gate=gate)
    return dataclasses.replace(
        _placed(routed, mesh), notes=tuple(libraries.notes(adapters))
    )


def _computed(adapter: Adapter, model: Decoder) -> Adapter:
    """An adapter in the type in which its model computes, if that is the wider one."""
    return lora.lora_map(lambda w: lora.computed(w, model.config.dtype), adapter)


def _combination(weights: Sequence[float] | None = None, **others: Any) -> Combination:
    """Fields as callers give them; weights as a tuple, so that it is hashable."""
    fixed = None if weights is None else tuple(weights)
    return Combination(weights=fixed, **others)


def load(
    folder: str | os.PathLike[str],
    adapter_folders: Sequence[str | os.PathLike[str]] = (),
    *,
    general_folders: Sequence[str | os.PathLike[str]] = (),
    gate: Tree | None = None,
    key: jax.Array | None = None,
    dtype: Dtype | None = None,
    progress: Progress = lambda *_: None,
    **combining: Any,
) -> Reuse:
    """Reads a checkpoint and its adapters from disk, and combines them.

    Args:
      folder: a Hugging Face checkpoint.
      adapter_folders: PEFT adapters; a folder of several, as `jaxlora train` writes
        it, stands for all of them, in the order of their names.
      general_folders: PEFT adapters whose mean a route such as genknowsub takes out of
        the others; by default these others.
      gate: state of a route that needs data.
      key: for merges and gates that draw.
      dtype: type of params and activations; None is what the checkpoint says.
      progress: called after each tensor of the checkpoint, and before each adapter.
      **combining: fields of :class:`Combination`: merge and weights, or route, top_k
        and temperature; and ``mesh``, which the base is cut over. An adapter of weight
        0 replaces nothing of the base.

    Raises:
      ValueError: as :func:`build`, and if a folder is missing or not what it should be,
        the mesh does not divide the number of adapters, or a path stands where a list
        of folders is meant.
    """
    mesh = combining.pop("mesh", None)
    # A bad request is refused before gigabytes are read.
    check_several("adapter_folders", adapter_folders)
    check_several("general_folders", general_folders)
    folders, common = expand(adapter_folders), expand(general_folders)
    many, general = len(folders), len(common)
    how = _combination(**combining)
    check(how, many, trained=gate is not None, general=general)
    check_mesh(mesh, how, many)
    model, base = pretrained.load(
        Path(folder),
        dtype=dtype,
        param_dtype=dtype,
        mesh=mesh,
        progress=functools.partial(progress, Path(folder).name),
    )
    files = [peft.open_folder(path) for path in (*folders, *common)]
    model, base, replaced = replace(model, base, _weighed(files, how.weights), mesh)
    adapters: list[Adapter] = []
    for i, file in enumerate(files):
        progress(file.folder.name, i, many + general)
        with naming(file.folder):  # of several adapters, say which
            adapter = adapter_trees.from_file(file, base)
            # Over a mesh, all adapters together may be more than one device holds.
            adapters.append(adapter if mesh is None else jax.device_get(adapter))
    given: dict[str, Any] = {"general": adapters[many:], "gate": gate, "key": key}
    built = build(model, base, adapters[:many], mesh=mesh, **given, **combining)
    notes = other_bases(bases((*folders, *common)), folder)
    read = {str(x): adapter for x, adapter in zip(folders, adapters, strict=False)}
    seen = (*folders, *common)
    out = (note for path in seen for note in adapter_trees.left_out(path))
    every = (*notes, *out, *replaced, *built.notes, *zeros.notes(read))
    return dataclasses.replace(built, notes=every)


def _weighed(
    files: Sequence[PeftFile], weights: Sequence[float] | None
) -> list[PeftFile]:
    """Those that count: an adapter of weight 0 is merged as if it were not there."""
    if weights is None:
        return list(files)
    return [file for file, x in zip(files, weights, strict=False) if x]


def _placed(reuse: Reuse, mesh: Mesh | None) -> Reuse:
    """Puts adapter and gate on every device of a mesh."""
    if mesh is None:
        return reuse

    adapter, gate = (libraries.everywhere(x, mesh) for x in (reuse.adapter, reuse.gate))
    return dataclasses.replace(reuse, mesh=mesh, adapter=adapter, gate=gate)
