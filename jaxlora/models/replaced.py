"""A base with the tensors that adapters replace: modules saved, tokens trained.

PEFT saves such tensors beside the low-rank updates: ``modules_to_save``, the rows of
``trainable_token_indices``, trained biases, and table and head if the vocabulary was
resized. They are no updates, and adapters that are used together must agree on them.

Where the head is the table (tied), PEFT makes a saved module of either its own copy:
the other one stays. Trained tokens, and a resized table, are of both.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jax.sharding import Mesh

from jaxlora import tree as named
from jaxlora.io.errors import naming
from jaxlora.io.peft import PeftFile
from jaxlora.models import names
from jaxlora.models.decoder import Decoder
from jaxlora.models.names import HEAD
from jaxlora.models.replaced_leaves import Leaves
from jaxlora.names import few
from jaxlora.tree import Tree


def replace(
    model: Decoder,
    base: Tree,
    files: Sequence[PeftFile],
    mesh: Mesh | None = None,
) -> tuple[Decoder, Tree, tuple[str, ...]]:
    """Puts what adapters replace into a base.

    Args:
      model: a decoder.
      base: its params.
      files: opened adapters, used together.
      mesh: that the base is cut over; what is replaced is cut likewise.

    Returns:
      The decoder, whose head may no longer be tied or whose vocabulary may have grown;
      its params, which share all other leaves with ``base``; and what was done, in
      sentences.

    Raises:
      ValueError: if the base has no such tensor, a shape differs, or two adapters
        replace it by different values.
    """
    new = Leaves(model, named.flatten(base), mesh)
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


def _set_rows(new: Leaves, files: Sequence[PeftFile]) -> Iterator[str]:
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
