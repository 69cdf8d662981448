"""The output folder: blocks as they are finished, so that a study can go on.

Every file is written whole or not at all, with its hash and the key of its study and
its place. A folder belongs to one study with one configuration; ``study.json`` says
which. Of many processes the first one reads and writes, and the others learn of it.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from jaxlora import locks
from jaxlora.files import write_text
from jaxlora.io import trust
from jaxlora.io.trust import DamagedError
from jaxlora.parallel import processes
from jaxlora.strangers import data
from jaxlora.studies.harness.config import current, flat

DECISIVE = {
    "code": "jaxlora",
    "predictions": "the predictions file",
    "model": "the model or an adapter",
}
"""Hashes that may not change while a run lasts, and what they are of."""


class OccupiedError(ValueError):
    """An output folder holds another run, or something else."""


class Outcome(NamedTuple):
    """What a block gave: one line an item, and facts that are no items."""

    items: pd.DataFrame
    notes: dict[str, Any]


def digest(records: Sequence[Any]) -> str:
    """Hash of the records of a file that a run reads."""
    return hashlib.sha256(repr(tuple(records)).encode()).hexdigest()


def claim(out: Path, identity: Mapping[str, Any]) -> None:
    """Makes ``out``, which passed :func:`check`, the folder of this study.

    Args:
      out: the folder.
      identity: as :func:`check` takes it.
    """
    path = out / "study.json"
    if not path.exists():
        write_text(path, json.dumps(identity, indent=2))


def check(
    out: Path,
    identity: Mapping[str, Any],
    *,
    kind: type,
    free: Sequence[str] = (),
    facts: object = None,
) -> None:
    """Refuses a folder that holds another study; leaves no trace.

    Args:
      out: the folder.
      identity: what two runs must share to share a folder: ``study``, ``config`` in
        its JSON form, ``people`` (hash of a user's file), ``predictions`` and ``code``.
      kind: class of the config.
      free: dotted fields of the config that may differ: how a study is run.
      facts: path of the user's file, for the message.

    Raises:
      OccupiedError: if the folder holds another study or configuration, naming the
        fields that differ, or other files.
    """
    path = out / "study.json"
    if path.is_file():  # a pipe would be waited for
        stored = _read(path)
        stored["config"] = current(kind, stored["config"])
        _compare(out, stored, identity, free, facts)
        return
    if out.exists() and (not out.is_dir() or _holds_files(out)):
        raise OccupiedError(
            f"Output folder {out} exists and holds no {identity['study']} study; "
            f"choose another --out, or empty it."
        )


def _holds_files(out: Path) -> bool:
    # The lock of this run is no file of somebody else.
    return any(path.name != locks.NAME for path in out.iterdir())


def _read(path: Path) -> dict[str, Any]:
    try:
        stored = data.read(path, what="what a run has written")
    except ValueError as error:
        raise OccupiedError(
            f"{str(error).rstrip('.')}; this folder cannot be resumed, choose another "
            f"--out."
        ) from None
    if not isinstance(stored, dict) or not isinstance(stored.get("config"), dict):
        raise OccupiedError(f"{path} names no study and config; choose another --out.")
    return stored


def _compare(out: Path, stored, identity, free: Sequence[str], facts: object) -> None:
    if stored.get("study") != identity["study"]:
        raise OccupiedError(
            f"Output folder {out} holds results of the study {stored.get('study')!r}, "
            f"not {identity['study']!r}; choose another --out."
        )
    _compare_configs(out, flat(stored["config"]), flat(identity["config"]), free)
    for name, what in DECISIVE.items():
        if stored.get(name, "") != identity[name]:
            raise OccupiedError(
                f"Output folder {out} was begun before {what} changed, and a run may "
                f"not mix the two; choose another --out."
            )
    if stored.get("people", identity["people"]) != identity["people"]:
        raise OccupiedError(
            f"Output folder {out} holds a run on other people: {facts} has changed "
            f"since; choose another --out."
        )


def _compare_configs(out: Path, old, new, free: Sequence[str]) -> None:
    names = (old.keys() | new.keys()) - set(free)
    differ = sorted(name for name in names if old.get(name) != new.get(name))
    if differ:
        name, file = differ[0], out / "results.json"
        repeat = f", or repeat that run with --from {file}" if file.exists() else ""
        raise OccupiedError(
            f"Output folder {out} holds a run with another configuration: {name} is "
            f"{old.get(name)!r} there and {new.get(name)!r} here"
            f"{f' ({len(differ)} fields differ)' if len(differ) > 1 else ''}; choose "
            f"another --out{repeat}."
        )


def save(path: Path, outcome: Outcome, key: str = "") -> None:
    """Stores the items and notes of a block.

    Args:
      path: of the block.
      outcome: what the block gave.
      key: of the study and the block.
    """
    if not processes.first():
        return
    items = outcome.items.to_json(orient="split", double_precision=10)
    text = f'{{"notes": {json.dumps(outcome.notes)},\n"items": {items}}}'
    write_text(path, trust.wrap(text, key))


def load(path: Path, columns: Sequence[str], key: str = "") -> Outcome | None:
    """Reads a stored block, or None; a damaged one is asked again, not trusted.

    Args:
      path: of the block.
      columns: that its items must have.
      key: as it was stored with.
    """
    content = processes.agreed(lambda: _content(path, key))
    if content is None:
        return None
    table = io.StringIO(json.dumps(content["items"]))
    items = pd.read_json(table, orient="split")
    same = tuple(items.columns) == tuple(columns)
    return Outcome(items, dict(content["notes"])) if same else None


def remembered(path: Path, make: Callable[[], Any], key: str = "") -> Any:
    """Returns what a JSON file of the run holds, or makes and stores it.

    Args:
      path: of the file.
      make: gives what it shall hold.
      key: of the study and the file.
    """
    content = processes.agreed(lambda: _content(path, key))
    if content is None:
        values = make()  # by all processes; the first one stores
        content = processes.agreed(lambda: _stored(path, values, key))
    return content


def _stored(path: Path, values: Any, key: str) -> Any:
    write_text(path, trust.dumps(values, key))
    return trust.loads(path, key)


def _content(path: Path, key: str) -> Any:
    """What a sealed file holds; None if it is missing, or damaged, which is said."""
    if not path.exists():
        return None
    try:
        return trust.loads(path, key)
    except DamagedError as error:
        trust.say(f"{error}; it is made again.")
        return None
