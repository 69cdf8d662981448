"""Prompts of a user: a file with one a line, or one JSON object a line."""

import dataclasses
from pathlib import Path

from jaxlora.strangers import data
from jaxlora.tasks import jsonl
from jaxlora.tasks.record_forms import CONVERSATIONS
from jaxlora.tasks.text_sources import Record, record

EXPECTED = '{"prompt": "..."} or {"messages": [{"role": "user", "content": "..."}]}'
"""What a line of JSON looks like."""
BYTES = 2**26
"""Of a file of lines of text."""


def plain(prompt: str, where: str = "") -> Record:
    """Returns a prompt that, without a chat template, is continued as it stands.

    Args:
      prompt: its text.
      where: file and line, for messages.
    """
    return Record(messages=(_turn(prompt),), glue="", where=where)


def read(path: Path) -> list[Record]:
    """Reads a file of prompts: lines of text, or objects if it is named .jsonl.

    Args:
      path: of the file.

    Raises:
      ValueError: with file and line, if there is nothing, or no prompt in a line.
    """
    if path.suffix == ".jsonl":
        return [_record(fields, f"{path}:{i}") for i, fields in jsonl.read(path)]
    try:
        lines = data.text(path, most=BYTES, what="a prompt a line").splitlines()
    except OSError as error:
        raise ValueError(
            f"Cannot read {path}: {error.strerror or error}; expected a file with a "
            f"prompt a line."
        ) from None
    numbered = enumerate(lines, start=1)
    records = [plain(line, f"{path}:{i}") for i, line in numbered if line.strip()]
    if not records:
        raise ValueError(f"{path} is empty, expected a prompt a line.")
    return records


def _record(fields: dict, where: str) -> Record:
    # Beside turns a prompt is none of its own: they must agree.
    others = {"answer", "completion", "response", *CONVERSATIONS}
    if "prompt" in fields and not others & set(fields):
        prompt = fields["prompt"]
        # As turns, or as what a user says.
        if not isinstance(prompt, list):
            prompt = [_turn(jsonl.text(fields, "prompt", where, EXPECTED))]
        rest = {name: x for name, x in fields.items() if name != "prompt"}
        return record({"messages": prompt} | rest, where)
    # A record of training data: its answer is left out.
    training = record(fields, where)
    if not training.asked:
        raise ValueError(f"{where}: no prompt, expected {EXPECTED}.")
    return dataclasses.replace(training, messages=training.asked)


def _turn(prompt: str) -> dict[str, str]:
    return {"role": "user", "content": prompt}
