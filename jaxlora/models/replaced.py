"""A base with the tensors that adapters replace: modules saved, tokens trained.

PEFT saves such tensors beside the low-rank updates: ``modules_to_save``, the rows of
``trainable_token_indices``, trained biases, and table and head if the vocabulary was
resized. They are no updates, and adapters that are used together must agree on them.

Where the head is the table (tied), PEFT makes a saved module of either its own copy:
the other one stays. Trained tokens, and a resized table, are of both.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import tree as named
from jaxlora.io.errors import naming
from jaxlora.io.peft import PeftFile
from jaxlora.models import names
from jaxlora.models.decoder import Decoder
from jaxlora.models.names import HEAD, Place
from jaxlora.names import few
from jaxlora.tree import Tree

_TABLE, _HEAD = "embed/embedding", "head"


def replace(
    model: Decoder, base: Tree, files: Sequence[PeftFile]
) -> tuple[Decoder, Tree, tuple[str, ...]]:
    """Puts what adapters replace into a base.

    Args:
      model: a decoder.
      base: its params.
      files: opened adapters, used together.

    Returns:
      The decoder, whose head may no longer be tied or whose vocabulary may have grown;
      its params, which share all other leaves with ``base``; and what was done, in
      sentences.

    Raises:
      ValueError: if the base has no such tensor, a shape differs, or two adapters
        replace it by different values.
    """
    new = _Base(model, named.flatten(base))
    changed: dict[tuple[str, ...], list[str]] = {}
    for name, owners in _owners(files, new.holds).items():
        values = _agreed(name, owners)
        if new.set(name, values, shared=_shared(name, owners)):
            which = tuple(file.folder.name for file, _ in owners)
            changed.setdefault(which, []).append(name)
    notes = [_note(owners, tensors, files) for owners, tensors in changed.items()]
    notes += _set_rows(new, files)
    return (*new.checked(), tuple(notes))


def _owners(
    files: Sequence[PeftFile], holds: Callable[[str, np.ndarray], bool]
) -> dict[str, list[tuple[PeftFile, str]]]:
    """Files and keys by tensor of the base, in its plain spelling.

    A copy that the base holds as well replaces nothing; nor does one of what training
    left of the base once it had taken factors out, which are put back instead.
    """
    owners: dict[str, list[tuple[PeftFile, str]]] = {}
    for file in files:
        starts = {path for path, x in file.modules.items() if x.start is not None}
        copies = {
            f"{path}.weight": key
            for path, key in file.copies.items()
            if path not in starts
        }
        copies = {x: y for x, y in copies.items() if not holds(x, file.tensor(y))}
        for name, key in (*copies.items(), *file.replaced.items()):
            owners.setdefault(names.canonical(name), []).append((file, key))
    return owners


def _shared(name: str, owners: Sequence[tuple[PeftFile, str]]) -> bool:
    """Is it of table and head, where these are one?"""
    file, key = owners[0]
    return file.tied or key in file.copies.values()


def _agreed(name: str, owners: Sequence[tuple[PeftFile, str]]) -> np.ndarray:
    (first, key), *others = owners
    values = first.tensor(key)
    for file, other in others:
        if not np.array_equal(values, file.tensor(other)):
            raise ValueError(
                f"The adapters {first.folder} and {file.folder} replace {name!r} of "
                f"the base by different values, and only one can be used; leave one "
                f"out, or use them one at a time."
            )
    return values


def _note(
    owners: Sequence[str], tensors: Sequence[str], files: Sequence[PeftFile]
) -> str:
    text = (
        f"{len(tensors)} tensors of the base are replaced by those of the adapter "
        f"{owners[0]}: {few(tensors)}"
    )
    lack = [file.folder.name for file in files if file.folder.name not in owners]
    return text + (f"; they are used with {few(lack)}, too." if lack else ".")


class _Base:
    """Leaves of a base in which tensors are replaced one after the other."""

    def __init__(self, model: Decoder, leaves: dict[str, Any]):
        self._model, self._leaves = model, dict(leaves)
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
        return self._leaves[_TABLE] if table else self._leaves[_HEAD].T

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
        leaf = self._leaves[place.leaf]
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
        leaf = self._leaves[_TABLE if table else _HEAD]
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
        return model, named.unflatten(dict(sorted(self._leaves.items())))


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


def _set_rows(new: _Base, files: Sequence[PeftFile]) -> Iterator[str]:
    """Replaces rows; adapters may train different tokens, or one to equal values."""
    rows: dict[str, dict[int, np.ndarray]] = {}
    for file in files:
        for path, (ids, key) in file.rows.items():
            name = f"{names.canonical(path)}.weight"
            known = rows.setdefault(name, {})
            with naming(file.folder):
                _add_rows(known, ids, file.tensor(key), name)
    apart = len({*map(frozenset, rows.values())}) > 1
    if rows and (apart or new.embedding not in rows):
        new.untie()  # as in PEFT, tokens of the table are also of a tied head
    for name, known in rows.items():
        if name not in (new.embedding, HEAD):
            raise ValueError(
                f"The adapter has trained tokens of {name!r}, expected "
                f"{new.embedding!r} or {HEAD!r}; it is for another model."
            )
        new.set_rows(name, list(known), np.stack(list(known.values())))
        yield f"{len(known)} rows of {name} are replaced by trained tokens."


def _add_rows(known: dict[int, np.ndarray], ids, values: np.ndarray, name: str) -> None:
    for i, row in zip(ids, values, strict=True):
        if not np.array_equal(known.setdefault(i, row), row):
            raise ValueError(
                f"Token {i} of {name!r} is trained to other values than in an adapter "
                f"before it, and only one can be used; leave one out."
            )
