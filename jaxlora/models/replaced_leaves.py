"""The leaves of a base while some of its tensors are replaced."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxlora import parallel
from jaxlora import tree as named
from jaxlora.models import names
from jaxlora.models.decoder import Decoder
from jaxlora.models.names import HEAD, Place
from jaxlora.parallel import processes
from jaxlora.tree import Tree

_TABLE, _HEAD = "embed/embedding", "head"


class Leaves:
    """Leaves of a base in which tensors are replaced one after the other.

    On a mesh a leaf that is looked at is gathered, and cut again in the end.
    """

    def __init__(self, model: Decoder, leaves: dict[str, Any], mesh: Mesh | None):
        self._model, self._leaves, self._mesh = model, dict(leaves), mesh
        self._gathered: set[str] = set()
        self._places = names.places(model.config, leaves)
        self.embedding = names.embedding(model.config)

    def holds(self, name: str, values: np.ndarray) -> bool:
        """Is this the table or the head of the base?"""
        name = names.canonical(name)
        if name not in (self.embedding, HEAD):
            return False
        old = self._outside(name)
        return old.shape == values.shape and np.array_equal(
            old, jnp.asarray(values, old.dtype)
        )

    def _outside(self, name: str) -> jax.Array:
        """Table or head as stored, [V, D]."""
        table = name == self.embedding or self._model.config.tie_head
        return self._leaf(_TABLE) if table else self._leaf(_HEAD).T

    def _leaf(self, name: str) -> jax.Array:
        if self._mesh is not None and name not in self._gathered:
            self._gathered.add(name)
            self._leaves[name] = jnp.asarray(processes.host(self._leaves[name]))
        return self._leaves[name]

    def set(self, name: str, values: np.ndarray, *, shared: bool) -> bool:
        """Replaces a tensor; returns whether that changes anything."""
        if name in (self.embedding, HEAD):
            return self._set_outside(name, values, shared)
        if name not in self._places:
            raise ValueError(
                f"The adapter replaces {name!r}, which the base lacks; it is for "
                f"another model, or a head of a classifier."
            )
        place = self._places[name]
        leaf = self._leaf(place.leaf)
        new = _turned(values, place, leaf.dtype)
        old = leaf if not place.index else leaf[place.index]
        _check_shape(name, new.shape, old.shape)
        changed = not np.array_equal(old, new)
        if changed:
            whole_leaf = not place.index
            leaf = new if whole_leaf else leaf.at[place.index].set(new)
            self._leaves[place.leaf] = leaf
        return changed

    def _set_outside(self, name: str, values: np.ndarray, shared: bool) -> bool:
        """Replaces table or head, which may be one, and may grow."""
        tied, old = self._model.config.tie_head, self._outside(name)
        new = jnp.asarray(values, old.dtype)
        if new.ndim != 2 or new.shape[1] != old.shape[1]:
            _check_shape(name, new.shape, old.shape)
        if np.array_equal(old, new):
            return False
        if tied and not shared and new.shape == old.shape:
            self.untie()
        if name == self.embedding or self._model.config.tie_head:
            self._leaves[_TABLE] = new
        else:
            self._leaves[_HEAD] = new.T
        return True

    def set_rows(self, name: str, ids: Sequence[int], rows: np.ndarray) -> None:
        """Replaces rows of the table or of the head, or of both if they are one."""
        table = name == self.embedding or self._model.config.tie_head
        leaf = self._leaf(_TABLE if table else _HEAD)
        size, width = leaf.shape if table else leaf.shape[::-1]
        _check_shape(name, rows.shape[1:], (width,))
        if max(ids, default=0) >= size:
            raise ValueError(
                f"The adapter has a trained token {max(ids)}, expected ids below "
                f"{size}: the base must be resized as it was for training."
            )
        at, new = jnp.asarray(ids), jnp.asarray(rows, leaf.dtype)
        if table:
            self._leaves[_TABLE] = leaf.at[at].set(new)
        else:
            self._leaves[_HEAD] = leaf.at[:, at].set(new.T)

    def untie(self) -> None:
        """Makes the head a leaf of its own, if it is none."""
        if self._model.config.tie_head:
            self._leaf(_TABLE)
            self._gathered.add(_HEAD)
            self._model, self._leaves = _untied(self._model, self._leaves)

    def checked(self) -> tuple[Decoder, Tree]:
        """Returns decoder and params, of one vocabulary."""
        config = self._model.config
        size = self._leaves[_TABLE].shape[0]
        if not config.tie_head and self._leaves[_HEAD].shape[1] != size:
            raise ValueError(
                f"With what the adapter replaces, the embedding has {size} tokens and "
                f"the head {self._leaves[_HEAD].shape[1]}; expected both to be saved "
                f"with a resized vocabulary."
            )
        model = self._model
        if size != config.vocab_size:
            config = dataclasses.replace(config, vocab_size=size)
            model = Decoder(config, model.route)
        return model, named.unflatten(dict(sorted(self._cut().items())))

    def _cut(self) -> dict[str, Any]:
        """The leaves, those that were gathered again cut over the mesh."""
        if self._mesh is None:
            return self._leaves
        where = parallel.shardings(self._mesh, self._leaves)
        new = {name: self._leaves[name] for name in self._gathered}
        return self._leaves | parallel.place(new, self._mesh, where)


def _turned(values: np.ndarray, place: Place, dtype: Any) -> jax.Array:
    return jnp.asarray(values.T if place.turned else values, dtype)


def _check_shape(name: str, got: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if got != expected:
        raise ValueError(
            f"The adapter replaces {name!r} by values of shape {got}, expected "
            f"{expected} by the base; it is for another model."
        )


def untie(model: Decoder, base: Tree) -> tuple[Decoder, Tree]:
    """Makes the head a leaf of its own, if it is the embedding table.

    Args:
      model: a decoder.
      base: its params.
    """
    if not model.config.tie_head:
        return model, base
    model, leaves = _untied(model, named.flatten(base))
    return model, named.unflatten(dict(sorted(leaves.items())))


def _untied(model: Decoder, leaves: Mapping[str, Any]) -> tuple[Decoder, dict]:
    config = dataclasses.replace(model.config, tie_head=False)
    return Decoder(config, model.route), {**leaves, _HEAD: leaves[_TABLE].T}
