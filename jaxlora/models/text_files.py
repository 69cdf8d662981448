"""The files of a tokenizer in a checkpoint folder."""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jaxlora.io import tensors
from jaxlora.models.text_backend import MAIN, MODEL, Limited
from jaxlora.strangers import data

CONFIG = "tokenizer_config.json"
TEMPLATE = 2**22
"""Bytes of a file with a chat template; the longest has a hundredth of it."""
_OF_MODEL = ("config.json", "generation_config.json")
BROUGHT = (MAIN, MODEL, CONFIG, "chat_template.jinja", "chat_template.json")
"""Files that say how a text becomes token ids."""
_SPECIAL_MAP, _ADDED = "special_tokens_map.json", "added_tokens.json"
PARTS = _SPECIAL_MAP, _ADDED, "vocab.json", "merges.txt"
"""Files whose content tokenizer.json holds as well; two are read beside it."""
_DEFAULT, _TOOLS = "default", "tool_use"
"""Names of chat templates."""
_UNNEEDED = ("pad_token", "unk_token")
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


class Files:
    """The files of a tokenizer, of which some may lie in a second folder.

    Args:
      folder: comes first.
      rest: has what the first lacks: all of it, or, beside a tokenizer.json of the
        first, the configurations of the model alone.
    """

    def __init__(self, folder: pathlib.Path, rest: pathlib.Path | None = None):
        self.folder, self._rest = folder, rest
        self._complete = any((folder / name).is_file() for name in (MAIN, MODEL))

    def path(self, name: str) -> pathlib.Path:
        """Where a file is, or would be."""
        here = self.folder / name
        shared = name in _OF_MODEL or not self._complete
        if here.is_file() or self._rest is None or not shared:
            return here
        return self._rest / name

    def read(self, name: str) -> dict[str, Any]:
        """The object in a JSON file, or an empty one if there is no file."""
        path = self.path(name)
        return tensors.read_json(path) if path.is_file() else {}


def backend(files: Files) -> Limited:
    """Returns what ``tokenizer.json`` describes, without padding or truncation.

    Without one, ``tokenizer.model`` of SentencePiece is converted.
    """
    path, model = files.path(MAIN), files.path(MODEL)
    config = files.read(CONFIG)
    if path.is_file():
        return Limited(path, added(files, config))
    if model.is_file():
        bos, eos = config.get("add_bos_token"), config.get("add_eos_token")
        frame = {"bos": None if bos is None else bool(bos), "eos": bool(eos)}
        legacy = config.get("legacy") is not False
        return Limited(model, added(files, config), legacy=legacy, **frame)
    folder = path.parent
    if all(files.path(name).is_file() for name in PARTS[2:]):
        raise ValueError(
            f"{folder} has {' and '.join(PARTS[2:])} but no {MAIN}, which says how "
            f"a text is cut; expected it: save_pretrained of transformers writes it."
        )
    there = sorted(p.name for p in folder.glob("*")) if folder.is_dir() else []
    raise ValueError(
        f"{folder} has no {MAIN}, expected the folder of a checkpoint with its "
        f"tokenizer; there is {', '.join(there[:8]) or 'nothing'}."
    )


def added(files: Files, config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tokens that files beside a vocabulary name: id, content and flags of each.

    Fine-tuning often adds tokens (``<|im_start|>``), which older folders name in
    ``added_tokens.json`` or ``tokenizer_config.json`` alone.
    """
    given = config.get("added_tokens_decoder")
    entries = given.items() if isinstance(given, Mapping) else ()
    tokens = [{**x, "id": int(i)} for i, x in entries if _is_token(i, x)]
    mapped = files.read(_ADDED)
    tokens += [{"content": x, "id": i} for x, i in mapped.items() if _is_token(i, x)]
    tokens.sort(key=lambda token: token["id"])
    both = config, files.read(_SPECIAL_MAP)
    listed = dict.fromkeys(map(_content, _special(*both)))
    known = [token["content"] for token in tokens]
    tokens += [{"content": x, "id": None} for x in listed if x and x not in known]
    named = {_content(file.get(name)) for file in both for name in SPECIAL}
    special = named.union(listed)
    return [
        x | {"special": x.get("special") or x["content"] in special} for x in tokens
    ]


def _special(*files: Mapping[str, Any]) -> Iterator[Any]:
    """Special tokens without a name of their own."""
    for file in files:
        for name in ("additional_special_tokens", "extra_special_tokens"):
            some = file.get(name)
            if isinstance(some, Mapping):
                yield from some.values()
            elif isinstance(some, list):
                yield from some


def _is_token(index: Any, token: Any) -> bool:
    plain = str(index).isdigit() and int(index) < 2**31
    return plain and bool(_content(token))


def _content(token: Any) -> str:
    """The text of a token, which is given as a string or an object."""
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else ""


def special_ids(
    folder: pathlib.Path, backend: Limited, named: Mapping[str, Any]
) -> dict[str, int]:
    """The ids of the special tokens that have a name; a token is a string or object.

    An empty name is none. A pad or unk that is no token is left out: rows are padded
    with any token, which nothing sees, and an unk is in no text.
    """
    ids = {}
    for name in SPECIAL:
        token = named.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if token is None or token == "":
            continue
        index = backend.token_to_id(token) if isinstance(token, str) else None
        if index is not None:
            ids[name] = index
        elif name not in _UNNEEDED or not isinstance(token, str):
            raise ValueError(
                f"{folder}: the {name} is {tensors.short(token)}, which is no token of "
                f"{MAIN}; are the files of one tokenizer?"
            )
    return ids


def templates(files: Files, config: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Returns the chat template, and the one for conversations with tools.

    Of several the first is the one named default, the second the one named tool_use,
    which is None if there is none.
    """
    folder, path = files.folder, files.path("chat_template.jinja")
    if path.is_file():  # with those for other uses in a folder beside it
        more = path.parent / "additional_chat_templates" / f"{_TOOLS}.jinja"
        return _text(path), _text(more) if more.is_file() else None
    stored = files.read("chat_template.json").get("chat_template")
    given = config.get("chat_template") if stored is None else stored
    if given is None or isinstance(given, str):
        return given, None
    named = _named(given)
    if not named or any(not isinstance(x, str) for x in (*named, *named.values())):
        raise ValueError(
            f"{folder} has the chat_template {tensors.short(given)}, expected a "
            f"string, or a list of objects with a name and a template."
        )
    if len(named) > 1 and _DEFAULT not in named:
        raise ValueError(
            f"{folder} has the chat templates {tensors.short(list(named))}, expected "
            f"one that is named default."
        )
    return named.get(_DEFAULT, next(iter(named.values()))), named.get(_TOOLS)


def _text(path: pathlib.Path) -> str:
    return data.text(path, most=TEMPLATE, what="a chat template")


def _named(given: Any) -> dict[Any, Any]:
    """Templates by name, or none if they are not given so."""
    if isinstance(given, Mapping):
        return dict(given)
    try:
        return {entry["name"]: entry["template"] for entry in given}
    except (TypeError, KeyError):
        return {}
