"""Hugging Face checkpoints written from a decoder, tensor by tensor."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.files import write_text
from jaxlora.io import origin, shards, tensors
from jaxlora.lora import Adapter, LoraWeight
from jaxlora.models import (
    architectures,
    beside,
    config_out,
    fields,
    names,
    sites,
    stream,
)
from jaxlora.models.calls import leaf_shapes
from jaxlora.models.config import DecoderConfig
from jaxlora.models.decoder import Decoder
from jaxlora.models.names import Place
from jaxlora.models.replaced_leaves import untie
from jaxlora.parallel import processes
from jaxlora.tree import Tree

COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
)
"""Files that a written checkpoint takes over from the one it is like."""


def save(
    folder: Path | str,
    model: Decoder,
    base: Tree,
    *,
    adapter: Adapter | None = None,
    like: Path | str | None = None,
    max_shard_bytes: int = shards.MAX_SHARD_BYTES,
) -> None:
    """Writes a checkpoint that transformers loads, in the types of ``base``.

    Args:
      folder: new, or empty.
      model: the decoder.
      base: its parameters; those of many processes are gathered tensor by tensor, and
        the first one writes.
      adapter: to be fused into them, as ``lora.fuse`` does, when each is written: the
        sum is never in memory as a whole.
      like: the checkpoint that ``model`` was read from: its config.json, tokenizer and
        generation settings are taken over, and so is what it holds beside a language
        model (:mod:`jaxlora.models.beside`).
      max_shard_bytes: bytes of one file at most.

    Raises:
      ValueError: if the folder holds something, no Hugging Face architecture computes
        what the decoder does, the parameters, the adapter or ``like`` do not fit the
        decoder, or a sum is not finite.
    """
    adapted = {} if adapter is None else lora.sites(adapter)
    if adapter is not None:
        sites.check(base, adapter)
        if sites.outside(adapter):  # of a tied head and its table, one changes
            model, base = untie(model, base)
    leaves = named.flatten(base)
    shapes = leaf_shapes(model)
    _check_base(leaves, shapes)
    _check_biases(leaves, adapted)
    raw = _config(model.config, leaves["embed/embedding"], like)
    places = names.places(model.config, shapes)
    entries = {
        name: dataclasses.replace(
            shards.entry_of(leaves[place.leaf]), shape=stream.shape_of(place, shapes)
        )
        for name, place in places.items()
    }

    held = beside.read(like)
    if held is not None:
        places = {held.name_of(name): place for name, place in places.items()}
        entries = {held.name_of(name): entry for name, entry in entries.items()}
        entries |= held.entries

    parts = _Parts(leaves, adapted, places, held)
    if not processes.first():
        # What the first process writes is gathered from all, one after the other.
        for name in shards.order(entries, max_shard_bytes):
            if name in places:
                parts.read(name)
        return
    with shards.new_folder(Path(folder)) as new:
        shards.write_folder(new, entries, parts.read, max_shard_bytes=max_shard_bytes)
        _write_beside(new, raw, like)


class _Parts(NamedTuple):
    """What is written, tensor by tensor."""

    leaves: Mapping[str, Any]
    adapted: Mapping[str, LoraWeight]
    places: Mapping[str, Place]
    """Of the tensors of the decoder, by their names in the files."""
    held: beside.Beside | None
    """The others."""

    def read(self, name: str) -> np.ndarray:
        """Returns one tensor as it is written."""
        if name not in self.places and self.held is not None:
            return self.held.read(name)
        place = self.places[name]
        part = _of_layer(self.leaves[place.leaf], place)
        if processes.count() > 1:
            part = processes.host(part)
        updates = sites.of_leaf(place.leaf, self.adapted)
        if updates:
            part = _fused(name, part, place.leaf, _of_layer(updates, place))
        part = np.asarray(part)
        return part.T if place.turned else part


def _write_beside(folder: Path, raw: fields.Raw, like: Path | str | None) -> None:
    """Writes config.json, and copies what belongs to a tokenizer."""
    text = json.dumps(raw, indent=2, sort_keys=True) + "\n"
    write_text(folder / "config.json", text)
    for file in COPIED:
        if like is not None and (Path(like) / file).is_file():
            shutil.copyfile(Path(like) / file, folder / file)


def _of_layer(tree: Tree, place: Place) -> Tree:
    return jax.tree.map(lambda x: x[place.index], tree) if place.index else tree


def _check_biases(leaves: Mapping[str, Any], adapted: Mapping[str, LoraWeight]) -> None:
    """A checkpoint has no place for biases that its architecture lacks."""
    for site in adapted:
        if site.endswith(f"/{sites.BIAS}") and site not in leaves:
            raise ValueError(
                f"The adapter has a bias (lora_bias) at {site!r}, and the model has "
                f"none to add it to, nor a place for one in its checkpoint; use the "
                f"adapter beside the model, unfused."
            )


def _fused(
    name: str, leaf: jax.Array, site: str, updates: Mapping[str, LoraWeight]
) -> jax.Array:
    total = sites.fused(leaf, site, updates)
    if not jnp.isfinite(total).all():
        raise ValueError(
            f"The sum of {name!r} and its update is beyond {total.dtype} and is not "
            f"written; expected an adapter of smaller scale or weight."
        )
    return total


def _check_base(leaves: Mapping[str, Any], shapes: Mapping[str, Any]) -> None:
    if set(leaves) != set(shapes):
        odd = sorted(set(leaves) ^ set(shapes))
        raise ValueError(
            f"The parameters are not of this decoder: they differ in "
            f"{', '.join(odd[:4])}."
        )
    for name, leaf in leaves.items():
        if tuple(leaf.shape) != tuple(shapes[name].shape):
            raise ValueError(
                f"Leaf {name!r} has the shape {tuple(leaf.shape)}, expected "
                f"{tuple(shapes[name].shape)} by the decoder's config."
            )


def _config(config: DecoderConfig, embedding: Any, like: Path | str | None):
    dtype = str(embedding.dtype)
    if like is None:
        config = dataclasses.replace(config, param_dtype=cast(Any, dtype))
        return config_out.to_json(config)
    raw = fields.language(tensors.read_json(Path(like) / "config.json"))
    raw = origin.dequantised(raw, like)
    # A checkpoint may store a head although its config ties it; see _tie.
    raw["tie_word_embeddings"] = config.tie_head
    raw["vocab_size"] = config.vocab_size  # an adapter may have resized it
    odd = config_out.differences(config, architectures.from_json(raw))
    if odd:
        raise ValueError(
            f"The decoder is not like {like}; they differ in (decoder, {like}) "
            f"{'; '.join(odd)}."
        )
    outer = tensors.read_json(Path(like) / "config.json")
    if fields.is_wrapper(outer) and beside.read(like) is not None:
        outer = origin.dequantised(outer, like)
        tied, size = config.tie_head, config.vocab_size
        return beside.config(outer, dtype, tied=tied, vocab_size=size)
    keys = [key for key in ("dtype", "torch_dtype") if key in raw] or ["dtype"]
    return raw | dict.fromkeys(keys, dtype)
