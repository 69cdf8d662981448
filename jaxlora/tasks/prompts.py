"""Prompts of a user: a file with one a line, or one JSON object a line."""

import dataclasses
import io
from pathlib import Path

from jaxlora.strangers import data
from jaxlora.tasks import file_kinds, jsonl, record_fields
from jaxlora.tasks.record_forms import CONVERSATIONS, PAIRS
from jaxlora.tasks.text_sources import Record, objects, record

EXPECTED = '{"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}'
"""What a line of JSON looks like."""
BYTES = 2**26
"""Of a file of lines of text."""
_OBJECTS = (".jsonl", ".ndjson", ".json")
_ANSWER = "?"
"""Stands where training data has an answer."""
_LOOK = 4096


def plain(prompt: str, where: str = "") -> Record:
    """Returns a prompt that, without a chat template, is continued as it stands.

    Args:
      prompt: its text.
      where: file and line, for messages.
    """
    return Record(messages=(_turn(prompt),), glue="", where=where)


def read(path: Path) -> list[Record]:
    """Reads a file of prompts: lines of text, or objects if it is named so.

    Args:
      path: of the file; .jsonl, .ndjson and .json hold objects.

    Raises:
      ValueError: with file and line, if there is nothing, or no prompt in a line.
    """
    try:
        if path.is_file():  # a pipe can be read once
            with path.open("rb") as file:
                file_kinds.check(path, file.read(_LOOK), "prompts, as .txt or .jsonl")
        if path.suffix.lower() in _OBJECTS:
            return _read_objects(path)
        text = data.text(path, most=BYTES, what="a prompt a line")
    except OSError as error:
        raise ValueError(
            f"Cannot read {path}: {error.strerror or error}; expected a file with a "
            f"prompt a line."
        ) from None
    # Of the characters that end a line, a text may hold those of a page.
    numbered = enumerate(io.StringIO(text, newline=None), start=1)
    lines = [(i, line.removesuffix("\n")) for i, line in numbered]
    records = [plain(line, f"{path}:{i}") for i, line in lines if line.strip()]
    if not records:
        raise ValueError(f"{path} is empty, expected a prompt a line.")
    return records


def _read_objects(path: Path) -> list[Record]:
    records = [_record(fields(), where) for fields, where in objects(path)]
    if not records:
        raise ValueError(f"{path} is empty, expected {EXPECTED} a line.")
    return records


def _record(fields: dict, where: str) -> Record:
    # Beside turns a prompt is none of its own: they must agree.
    others = {"answer", "completion", "response", *CONVERSATIONS}
    prompt = fields.get("prompt")
    if isinstance(prompt, list) and not others & set(fields):
        rest = {name: x for name, x in fields.items() if name != "prompt"}
        return record({"messages": prompt} | rest, where)
    # A record of training data: its answer is left out, and need not be there.
    missing = {asked: name for asked, name in reversed(PAIRS) if asked in fields}
    answers = {name for _, name in PAIRS}
    held = set(record_fields.filled(fields))
    if missing and not (answers | {*CONVERSATIONS}) & held:
        first = next(x for x, _ in PAIRS if x in missing)
        fields = {**fields, missing[first]: _ANSWER}
    elif not missing and not {*CONVERSATIONS, "text"} & set(fields):
        jsonl.text(fields, "prompt", where, EXPECTED)
    training = record(fields, where)
    if not training.asked:
        raise ValueError(f"{where}: no prompt, expected {EXPECTED}.")
    return dataclasses.replace(training, messages=training.asked)


def _turn(prompt: str) -> dict[str, str]:
    return {"role": "user", "content": prompt}
