"""Hugging Face checkpoints read into a decoder.

They are written by :mod:`jaxlora.models.pretrained_out`, whose ``save`` is here too.

Reading streams: each tensor is read, checked, placed in its layer of a stacked leaf
[L, ...] that already has its sharding, and dropped. The host never holds much more than
the largest tensor, whatever the size of the checkpoint.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import jax
import numpy as np
from jax.sharding import Mesh

from jaxlora import tree as named
from jaxlora.io import mixtures, quantised, tensors
from jaxlora.io.tensors import Tensors
from jaxlora.models import (
    architectures,
    division,
    fields,
    kernels,
    mismatch,
    names,
    stream,
)
from jaxlora.models.calls import leaf_shapes
from jaxlora.models.decoder import Decoder
from jaxlora.models.names import HEAD, Place
from jaxlora.models.pretrained_out import save as save
from jaxlora.parallel import rules
from jaxlora.tree import Tree

Dtype: TypeAlias = Literal["float32", "bfloat16"]


def load(
    folder: Path | str,
    *,
    dtype: Dtype | None = None,
    param_dtype: Dtype | None = None,
    mesh: Mesh | None = None,
    progress: stream.Progress | None = None,
) -> tuple[Decoder, Tree]:
    """Reads a checkpoint.

    Args:
      folder: holds config.json and model.safetensors, or shards with their index.
      dtype: of activations; by default that of the parameters.
      param_dtype: of the parameters; by default what config.json says, or else the
        widest type among the tensors. float16 becomes float32.
      mesh: cut the parameters over it as :mod:`jaxlora.parallel.rules` says; by default
        they are on one device. Every process of a mesh reads the whole checkpoint.
      progress: called with (bytes read, bytes in all) after each tensor.

    Returns:
      The decoder, and its parameters.

    Raises:
      ValueError: if the architecture is not supported, a file is missing or damaged,
        config.json and tensors disagree, a tensor is quantised or not finite, or the
        mesh would cut a head.
    """
    folder = Path(folder)
    checkpoint = quantised.opened(tensors.open_folder(folder))
    packed = quantised.packed(checkpoint)
    raw = tensors.read_json(folder / "config.json")
    config = architectures.from_json(raw)
    if fields.may_hold_more(raw):
        checkpoint = mixtures.apart(checkpoint)
    if mesh is not None:
        division.check(config, mesh.shape)
    sources = _sources(checkpoint, more=fields.may_hold_more(raw))
    kept = param_dtype or _param_dtype(raw, checkpoint, sources)
    config = dataclasses.replace(
        config,
        tie_head=config.tie_head and _tie(checkpoint, sources, names.embedding(config)),
        param_dtype=_known(kept),
        dtype=_known(dtype or kept),
    )
    device = mesh.devices.flat[0] if mesh is not None else jax.devices()[0]
    config = kernels.of(config, device)
    model = Decoder(config)
    shapes = leaf_shapes(model)
    places = names.places(config, shapes)
    places = _as_packed(places, sources, packed)
    _check(checkpoint, sources, places, shapes)
    where = rules.shardings(mesh, shapes) if mesh is not None else {}
    return model, named.unflatten(
        stream.fill(checkpoint, sources, places, shapes, where, progress)
    )


def _known(name: str) -> Any:
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"dtype is {name!r}, expected 'float32' or 'bfloat16'.")
    return name


def _sources(checkpoint: Tensors, *, more: bool) -> dict[str, str]:
    """The name that each parameter has in the files, by its canonical name."""
    sources: dict[str, str] = {}
    for name in checkpoint.entries:
        if names.is_ignored(name, more=more):
            continue
        plain = names.canonical(name)
        if plain in sources:
            raise ValueError(
                f"The checkpoint holds {plain!r} twice, as {sources[plain]!r} and as "
                f"{name!r}."
            )
        sources[plain] = name
    return sources


def _param_dtype(
    raw: fields.Raw, checkpoint: Tensors, sources: Mapping[str, str]
) -> str:
    given = architectures.dtype(raw)
    if given is None:
        stored = {checkpoint.entries[name].dtype for name in sources.values()}
        given = "bfloat16" if stored == {"BF16"} else "float32"
    return "float32" if given == "float16" else given


def _tie(checkpoint: Tensors, sources: dict[str, str], embedding: str) -> bool:
    """Are embedding and head one tensor? Leaves the one that counts in ``sources``.

    As in transformers 5: a head that is stored too and differs is used; of two that are
    equal one is dropped; if only the head is stored, it is the embedding.
    """
    if HEAD in sources and embedding in sources:
        first, second = (checkpoint.read(sources[name]) for name in (embedding, HEAD))
        if first.dtype != second.dtype or not np.array_equal(
            first.view(np.uint8), second.view(np.uint8)
        ):
            return False
        del sources[HEAD]
    elif HEAD in sources:
        sources[embedding] = sources.pop(HEAD)
    return True


def _as_packed(
    places: Mapping[str, Place], sources: Mapping[str, str], packed: frozenset[str]
) -> dict[str, Place]:
    """Kernels in 4 or 8 bits are stored as [out, in], those of GPT-2 (Conv1D) too."""
    return {
        name: place._replace(turned=True)
        if sources.get(name) in packed and place.leaf.endswith("/kernel")
        else place
        for name, place in places.items()
    }


def _check(
    checkpoint: Tensors,
    sources: Mapping[str, str],
    places: Mapping[str, Place],
    shapes: Mapping[str, jax.ShapeDtypeStruct],
) -> None:
    lacks = [name for name in places if name not in sources]
    odd = mismatch.extra(sources, places, checkpoint.entries)
    if lacks or odd:
        files = {*checkpoint.files.values()}
        raise ValueError(mismatch.reason(lacks, odd, len(places), files))
    for name in places:
        tensors.check_dtype(sources[name], checkpoint.entries[sources[name]])
    for name, place in places.items():
        got, expected = (
            checkpoint.entries[sources[name]].shape,
            stream.shape_of(place, shapes),
        )
        if got != expected:
            raise ValueError(
                f"Tensor {sources[name]!r} has the shape {got}, expected {expected} by "
                f"config.json; weights and config are of different models."
            )
