"""The files of a tokenizer in a checkpoint folder."""

import pathlib
from collections.abc import Mapping
from typing import Any

from jaxlora.io import tensors
from jaxlora.models.text_backend import MAIN, Limited
from jaxlora.strangers import data

CONFIG = "tokenizer_config.json"
TEMPLATE = 2**22
"""Bytes of a file with a chat template; the longest has a hundredth of it."""
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


def backend(folder: pathlib.Path) -> Limited:
    """Returns what ``tokenizer.json`` describes, without padding or truncation."""
    path = folder / MAIN
    if not path.is_file():
        files = sorted(p.name for p in folder.glob("*")) if folder.is_dir() else []
        if "tokenizer.model" in files:
            raise ValueError(
                f"{folder} has a SentencePiece tokenizer.model but no {MAIN}, which is "
                f"expected; save it once with AutoTokenizer of transformers."
            )
        raise ValueError(
            f"{folder} has no {MAIN}, expected the folder of a checkpoint with its "
            f"tokenizer; there is {', '.join(files[:8]) or 'nothing'}."
        )
    return Limited(path)


def read(path: pathlib.Path) -> dict[str, Any]:
    """Returns the object in a JSON file, or an empty one if there is no file."""
    if not path.is_file():
        return {}
    return tensors.read_json(path)


def special_ids(
    folder: pathlib.Path, backend: Limited, named: Mapping[str, Any]
) -> dict[str, int]:
    """The ids of the special tokens that have a name; a token is a string or object."""
    ids = {}
    for name in SPECIAL:
        token = named.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if token is None:
            continue
        index = backend.token_to_id(token) if isinstance(token, str) else None
        if index is None:
            raise ValueError(
                f"{folder}: the {name} is {tensors.short(token)}, which is no token of "
                f"{MAIN}; are the files of one tokenizer?"
            )
        ids[name] = index
    return ids


def template(folder: pathlib.Path, config: Mapping[str, Any]) -> str | None:
    """Returns the chat template, the one named default where there are several."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return data.text(path, most=TEMPLATE, what="a chat template")
    stored = read(folder / "chat_template.json").get("chat_template")
    given = config.get("chat_template") if stored is None else stored
    if given is None or isinstance(given, str):
        return given
    named = _named(given)
    if not named or any(not isinstance(x, str) for x in (*named, *named.values())):
        raise ValueError(
            f"{folder} has the chat_template {tensors.short(given)}, expected a "
            f"string, or a list of objects with a name and a template."
        )
    if len(named) > 1 and "default" not in named:
        raise ValueError(
            f"{folder} has the chat templates {tensors.short(list(named))}, expected "
            f"one that is named default."
        )
    return named.get("default", next(iter(named.values())))


def _named(given: Any) -> dict[Any, Any]:
    """Templates by name, or none if they are not given so."""
    try:
        return {entry["name"]: entry["template"] for entry in given}
    except (TypeError, KeyError):
        return {}
