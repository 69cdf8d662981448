"""The output folder: blocks as they are finished, so that a study can go on.

Every file is written under a temporary name and renamed. A folder belongs to
one study with one configuration; ``study.json`` says which.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from jaxlora.files import write_text
from jaxlora.strangers import data
from jaxlora.studies.harness.config import current, flat


class Outcome(NamedTuple):
    """What a block gave: one line an item, and facts that are no items."""

    items: pd.DataFrame
    notes: dict[str, Any]


def digest(records: Sequence[Any]) -> str:
    """Hash of the records of a file that a run reads."""
    return hashlib.sha256(repr(tuple(records)).encode()).hexdigest()


def claim(
    out: Path,
    identity: Mapping[str, Any],
    *,
    kind: type,
    free: Sequence[str] = (),
    facts: object = None,
) -> None:
    """Makes ``out`` the folder of this study, or refuses one that holds another.

    Args:
      out: the folder.
      identity: what two runs must share to share a folder: ``study``, ``config`` in
        its JSON form, ``people`` (hash of a user's file), ``predictions`` and ``code``.
      kind: class of the config.
      free: dotted fields of the config that may differ: how a study is run.
      facts: path of the user's file, for the message.

    Raises:
      ValueError: if the folder holds another study or configuration, naming the fields
        that differ, or other files.
    """
    path = out / "study.json"
    if path.exists():
        stored = _read(path)
        stored["config"] = current(kind, stored["config"])
        _compare(out, stored, identity, free, facts)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"Output folder {out} exists and holds no {identity['study']} study; "
            f"choose another --out, or empty it."
        )
    write_text(path, json.dumps(identity, indent=2))


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = data.read(path, what="what a run has written")
    except ValueError as error:
        raise ValueError(
            f"{str(error).rstrip('.')}; this folder cannot be resumed, choose another "
            f"--out."
        ) from None
    if not isinstance(stored, dict) or not isinstance(stored.get("config"), dict):
        raise ValueError(f"{path} names no study and config; choose another --out.")
    return stored


def _compare(out: Path, stored, identity, free: Sequence[str], facts: object) -> None:
    if stored.get("study") != identity["study"]:
        raise ValueError(
            f"Output folder {out} holds results of the study {stored.get('study')!r}, "
            f"not {identity['study']!r}; choose another --out."
        )
    _compare_configs(out, flat(stored["config"]), flat(identity["config"]), free)
    for name, what in (("code", "jaxlora"), ("predictions", "the predictions file")):
        if stored.get(name) != identity[name]:
            raise ValueError(
                f"Output folder {out} was begun before {what} changed, and a run may "
                f"not mix the two; choose another --out."
            )
    if stored.get("people", identity["people"]) != identity["people"]:
        raise ValueError(
            f"Output folder {out} holds a run on other people: {facts} has changed "
            f"since; choose another --out."
        )


def _compare_configs(out: Path, old, new, free: Sequence[str]) -> None:
    names = (old.keys() | new.keys()) - set(free)
    differ = sorted(name for name in names if old.get(name) != new.get(name))
    if differ:
        name = differ[0]
        raise ValueError(
            f"Output folder {out} holds a run with another configuration: {name} is "
            f"{old.get(name)!r} there and {new.get(name)!r} here"
            f"{f' ({len(differ)} fields differ)' if len(differ) > 1 else ''}; choose "
            f"another --out, or repeat that run with --from {out / 'results.json'}."
        )


def save(path: Path, outcome: Outcome) -> None:
    """Stores the items and notes of a block."""
    items = outcome.items.to_json(orient="split", double_precision=10)
    write_text(path, f'{{"notes": {json.dumps(outcome.notes)},\n"items": {items}}}')


def load(path: Path, columns: Sequence[str]) -> Outcome | None:
    """Reads a stored block, or None; a damaged one is recomputed, not trusted.

    Args:
      path: of the block.
      columns: that its items must have.
    """
    try:
        content = _ours(path)
        table = io.StringIO(json.dumps(content["items"]))
        items = pd.read_json(table, orient="split")
        notes = dict(content["notes"])
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Outcome(items, notes) if tuple(items.columns) == tuple(columns) else None


def remembered(path: Path, make: Callable[[], Any]) -> Any:
    """Returns what a JSON file of the run holds, or makes and stores it."""
    try:
        return _ours(path)
    except (FileNotFoundError, ValueError):
        write_text(path, json.dumps(make()))
        return _ours(path)


def _ours(path: Path) -> Any:
    """A block may be long, and numbers that are not defined are NaN in it."""
    return data.read(path, most=2**28, finite=False, containers=2**23)
