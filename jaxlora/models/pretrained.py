"""Hugging Face checkpoints read into a decoder, and written from one.

Reading streams: each tensor is read, checked, placed in its layer of a stacked leaf
[L, ...] that already has its sharding, and dropped. The host never holds much more than
the largest tensor, whatever the size of the checkpoint.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxlora import lora
from jaxlora import tree as named
from jaxlora.files import write_text
from jaxlora.io import mixtures, origin, quantised, shards, tensors
from jaxlora.io.tensors import Tensors
from jaxlora.lora import Adapter, LoraWeight
from jaxlora.models import (
    architectures,
    beside,
    config_out,
    division,
    fields,
    kernels,
    mismatch,
    names,
    sites,
    stream,
)
from jaxlora.models.calls import init
from jaxlora.models.config import DecoderConfig
from jaxlora.models.decoder import Decoder
from jaxlora.models.names import HEAD, Place
from jaxlora.models.replaced_leaves import untie
from jaxlora.parallel import processes, rules
from jaxlora.tree import Tree

Dtype: TypeAlias = Literal["float32", "bfloat16"]

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
    shapes = _shapes(model)
    places = names.places(config, shapes)
    _check(checkpoint, sources, places, shapes)
    where = rules.shardings(mesh, shapes) if mesh is not None else {}
    return model, named.unflatten(
        stream.fill(checkpoint, sources, places, shapes, where, progress)
    )


def _shapes(model: Decoder) -> dict[str, jax.ShapeDtypeStruct]:
    return dict(_traced_shapes(model.config))


@functools.lru_cache(maxsize=64)
def _traced_shapes(config: DecoderConfig) -> Mapping[str, jax.ShapeDtypeStruct]:
    """Traced once for a config: often several folders of one shape are read."""
    key = jax.random.key(0)
    return named.flatten(jax.eval_shape(lambda: init(key, Decoder(config))))


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
    shapes = _shapes(model)
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

    def read(name: str) -> np.ndarray:
        if name not in places and held is not None:
            return held.read(name)
        place = places[name]
        part = _of_layer(leaves[place.leaf], place)
        if processes.count() > 1:
            part = processes.host(part)
        updates = sites.of_leaf(place.leaf, adapted)
        if updates:
            part = _fused(name, part, place.leaf, _of_layer(updates, place))
        part = np.asarray(part)
        return part.T if place.turned else part

    if not processes.first():
        for name in shards.order(entries, max_shard_bytes):
            if name in places:
                read(name)
        return
    with shards.new_folder(Path(folder)) as new:
        shards.write_folder(new, entries, read, max_shard_bytes=max_shard_bytes)
        text = json.dumps(raw, indent=2, sort_keys=True) + "\n"
        write_text(new / "config.json", text)
        for file in COPIED:
            if like is not None and (Path(like) / file).is_file():
                shutil.copyfile(Path(like) / file, new / file)


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
