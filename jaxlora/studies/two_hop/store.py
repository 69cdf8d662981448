"""The output folder: blocks as they are finished, so that a study can go on.

Every file is written under a temporary name and renamed. A folder belongs to
one study with one configuration; ``study.json`` says which.
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from jaxlora.io.files import write_text
from jaxlora.studies.two_hop import code
from jaxlora.studies.two_hop.blocks import Outcome
from jaxlora.studies.two_hop.items import COLUMNS
from jaxlora.studies.two_hop.rows import STUDY, Block
from jaxlora.tasks.two_hop.records import Record

# How a study is run, not what it finds: they may differ when a run is resumed.
FREE = (
    "seeds_at_once",
    "data_dir",
    "train.at_once",
    "ask.batch",
    "ask.candidates_at_once",
)


def claim(
    out: Path,
    config: Any,
    people: Sequence[Record] = (),
    predictions: str = "",
    study: str = STUDY,
) -> None:
    """Makes ``out`` the folder of this study, or refuses one that holds another.

    Args:
      out: the folder.
      config: the configuration of the study, a dataclass.
      people: a user's people; their file may have changed since the folder was made.
      predictions: hash of the predictions, which may not change once a block is known.
      study: its name.

    Raises:
      ValueError: if the folder holds another study or configuration, naming the fields
        that differ, or other files.
    """
    digest = hashlib.sha256(repr(tuple(people)).encode()).hexdigest()
    mine = {
        "study": study,
        "config": plain(config),
        "people": digest,
        "predictions": predictions,
        "code": code.STUDY,
    }
    path = out / "study.json"
    if path.exists():
        _compare(out, _read(path), mine)
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(
            f"Output folder {out} exists and holds no {study} study; choose another "
            f"--out, or empty it."
        )
    write_text(path, json.dumps(mine, indent=2))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise ValueError(
            f"{path} is not readable JSON, so this folder cannot be resumed; choose "
            f"another --out."
        ) from None
    if not isinstance(found, dict) or not isinstance(found.get("config"), dict):
        raise ValueError(f"{path} names no study and config; choose another --out.")
    return found


def _compare(out: Path, found: dict[str, Any], mine: dict[str, Any]) -> None:
    if found.get("study") != mine["study"]:
        raise ValueError(
            f"Output folder {out} holds results of the study {found.get('study')!r}, "
            f"not {mine['study']!r}; choose another --out."
        )
    old, new = flat(found["config"]), flat(mine["config"])
    differ = sorted(
        name
        for name in old.keys() | new.keys()
        if old.get(name) != new.get(name) and name not in FREE
    )
    if differ:
        name = differ[0]
        raise ValueError(
            f"Output folder {out} holds a run with another configuration: {name} is "
            f"{old.get(name)!r} there and {new.get(name)!r} here"
            f"{f' ({len(differ)} fields differ)' if len(differ) > 1 else ''}; choose "
            f"another --out, or repeat that run with --from {out / 'results.json'}."
        )
    for name, what in (("code", "jaxlora"), ("predictions", "the predictions file")):
        if found.get(name) != mine[name]:
            raise ValueError(
                f"Output folder {out} was begun before {what} changed, and a run may "
                f"not mix the two; choose another --out."
            )
    if found.get("people", mine["people"]) != mine["people"]:
        raise ValueError(
            f"Output folder {out} holds a run on other people: {new['facts']} has "
            f"changed since; choose another --out."
        )


def plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON-able values."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as ``{"world.people": 7}``."""
    out: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{name}.")
        else:
            out[prefix + name] = value
    return out


def path_of(out: Path, block: Block) -> Path:
    """The file of a block."""
    name = f"{block.library}-{block.method}".replace(" ", "-").replace(">", "")
    name = name.replace(",", "").replace("+", "and")
    level = f"{block.coverage:.2f}"
    # Levels that agree in two decimals must not share a file.
    level = level if float(level) == block.coverage else repr(block.coverage)
    return out / "blocks" / f"c{level}-seed{block.seed}-{name}.json"


def save(out: Path, block: Block, outcome: Outcome) -> None:
    """Stores the items and notes of a block."""
    items = outcome.items.to_json(orient="split", double_precision=10)
    write_text(
        path_of(out, block),
        f'{{"notes": {json.dumps(outcome.notes)},\n"items": {items}}}',
    )


def load(out: Path, block: Block) -> Outcome | None:
    """Reads a stored block, or None; a damaged one is recomputed, not trusted."""
    path = path_of(out, block)
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text)
        table = io.StringIO(json.dumps(found["items"]))
        items = pd.read_json(table, orient="split")
        notes = dict(found["notes"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return Outcome(items, notes) if tuple(items.columns) == COLUMNS else None
