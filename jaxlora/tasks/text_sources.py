"""Training text of a user: JSON lines, a folder of them, or a prepared TFDS dataset.

Every form becomes a :class:`Record`; which form a record has is told by its fields.
TensorFlow is not needed, and nothing is downloaded.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any

from jaxlora.tasks import jsonl

Path = str | os.PathLike[str]

PAIRS = (
    ("prompt", "answer"),
    ("prompt", "completion"),
    ("question", "answer"),
    ("instruction", "output"),
)
"""Names of the two fields of a prompt/answer record, in the order they are tried."""
FORMS = (
    '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content":'
    ' "..."}]}, {"prompt": "...", "answer": "..."} (or prompt/completion, '
    'question/answer, instruction/output with an optional input) or {"text": "..."}'
)
NAME = re.compile(r"(tfds:)?([a-z]\w*)((?:/[\w.-]+)*)(?::(\w+))?")
"""A TFDS name: tfds:name/config/version:split, of which only the name is required."""
INFO = "dataset_info.json"


@dataclasses.dataclass(frozen=True)
class Record:
    """A conversation, or text of which all is learnt."""

    messages: tuple[dict[str, str], ...] = ()
    """Turns of role and content; empty for plain text."""
    text: str = ""
    """Plain text; empty for a conversation."""
    glue: str = "\n"
    """Stands between prompt and answer where there is no chat template."""
    where: str = ""
    """File and line, for messages."""

    @property
    def answer(self) -> str:
        """The assistant's last turn, or nothing if the last turn is another's."""
        last = self.messages[-1] if self.messages else {}
        return last["content"] if last.get("role") == "assistant" else ""

    @property
    def asked(self) -> tuple[dict[str, str], ...]:
        """The turns before :attr:`answer`."""
        return self.messages[:-1] if self.answer else self.messages


@dataclasses.dataclass(frozen=True, kw_only=True)
class Read:
    """The records of a source, and what was left out."""

    records: tuple[Record, ...]
    """In the order of the source."""
    skipped: int = 0
    """Bad records."""
    first_error: str = ""
    """Why the first of them was skipped."""


def read(source: Path, *, skip_bad: bool = False, data_dir: Path | None = None) -> Read:
    """Reads records.

    Args:
      source: a JSON-lines file; a folder, whose ``*.jsonl`` are read in the order of
        their names; or a TFDS dataset prepared as array_record, as in
        ``tfds:gsm8k``, ``gsm8k/main:train`` (a file of that name comes first; the split
        is ``train`` if none is named).
      skip_bad: count bad records and go on, instead of raising?
      data_dir: root of TFDS datasets; None for TFDS's own.

    Raises:
      ValueError: with file and line, if a record is bad; if the source does not exist;
        if there is no good record in it.
    """
    found = _source(source, data_dir)
    records, errors = [], []
    for make in found:
        try:
            records.append(make())
        except ValueError as error:
            if not skip_bad:
                raise
            errors.append(str(error))
    if not records:
        raise ValueError(
            f"{os.fspath(source)} has no good record ({len(errors)} bad); expected "
            f"{FORMS}." + (f" The first: {errors[0]}" if errors else "")
        )
    return Read(
        records=tuple(records),
        skipped=len(errors),
        first_error=errors[0] if errors else "",
    )


def record(fields: dict[str, Any], where: str) -> Record:
    """Returns the record that an object of a file stands for.

    Args:
      fields: the object.
      where: file and line, for messages.

    Raises:
      ValueError: if no form has these fields, or a value is no string.

    >>> record({"question": "2 + 2?", "answer": "4"}, "sums.jsonl:1").answer
    '4'
    """
    if "messages" in fields:
        turns = _turns(fields["messages"], where)
        return Record(messages=turns, where=where)
    for prompt, answer in PAIRS:
        if prompt in fields and answer in fields:
            return _pair(fields, prompt, answer, where)
    if "text" in fields:
        return Record(text=jsonl.text(fields, "text", where, FORMS), where=where)
    have = ", ".join(map(repr, fields)) or "no field at all"
    raise ValueError(f"{where}: the record has {have}; expected {FORMS}.")


def _pair(fields: dict[str, Any], prompt: str, answer: str, where: str) -> Record:
    asked = jsonl.text(fields, prompt, where, FORMS)
    if prompt == "instruction" and fields.get("input"):
        asked += "\n" + jsonl.text(fields, "input", where, FORMS)
    turns = [("user", asked), ("assistant", jsonl.text(fields, answer, where, FORMS))]
    if fields.get("system"):
        turns.insert(0, ("system", jsonl.text(fields, "system", where, FORMS)))
    return Record(
        messages=tuple({"role": role, "content": text} for role, text in turns),
        glue="" if answer == "completion" else "\n",
        where=where,
    )


def _turns(turns: Any, where: str) -> tuple[dict[str, str], ...]:
    if isinstance(turns, dict) and all(isinstance(v, list) for v in turns.values()):
        keys = list(turns)  # TFDS gives a sequence of objects as an object of lists
        if len({len(values) for values in turns.values()}) > 1:
            raise ValueError(
                f"{where}: 'messages' has {', '.join(keys)} of unequal lengths; "
                f"expected {FORMS}."
            )
        turns = [
            dict(zip(keys, values, strict=True))
            for values in zip(*turns.values(), strict=True)
        ]
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"{where}: 'messages' is no list of turns; expected {FORMS}.")
    made = []
    for i, turn in enumerate(turns):
        here = f"{where}, turn {i}"
        if not isinstance(turn, dict):
            raise ValueError(f"{here}: got {turn!r:.60}; expected {FORMS}.")
        if turn.get("tool_calls"):
            raise ValueError(f"{here}: calls of tools are not trained on.")
        role = jsonl.text(turn, "role", here, FORMS)
        silent = role != "assistant"
        content = jsonl.text(turn, "content", here, FORMS, empty=silent)
        made.append({"role": role, "content": content})
    return tuple(made)


def _source(source: Path, data_dir: Path | None) -> Iterator[Callable[[], Record]]:
    """Yields functions that give a record each, or raise."""
    name = os.fspath(source)
    path = pathlib.Path(name).expanduser()
    if path.is_dir() and (files := sorted(path.glob("*.jsonl"))):
        for file in files:
            yield from _lines(file)
    elif path.is_file():
        yield from _lines(path)
    elif (match := NAME.fullmatch(name)) and not name.endswith((".json", ".jsonl")):
        yield from _prepared(match, name, data_dir)
    else:
        raise ValueError(
            f"{name} is {'a folder without *.jsonl' if path.is_dir() else 'not there'},"
            f" expected a JSON-lines file, a folder of them, or a TFDS name as in "
            f"tfds:gsm8k/main:train."
        )


def _lines(path: pathlib.Path) -> Iterator[Callable[[], Record]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield lambda line=line, where=f"{path}:{number}": record(
                        jsonl._object(line, where), where
                    )
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror or error}.") from None


def _prepared(
    match: re.Match, name: str, data_dir: Path | None
) -> Iterator[Callable[[], Record]]:
    # Slow to import, and most sources are files.
    import tensorflow_datasets as tfds

    root = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    folder = _folder(root, match[2] + match[3], name)
    builder: Any = tfds.builder_from_directory(folder)
    stored = builder.info.file_format
    if stored is None or stored.value != "array_record":
        raise ValueError(
            f"{folder} is stored as {stored and stored.value}, expected array_record, "
            f"which needs no TensorFlow; prepare it again with "
            f'tfds.builder("{match[2]}", file_format="array_record").'
        )
    split = match[4] or "train"
    if split not in builder.info.splits:
        have = ", ".join(builder.info.splits)
        raise ValueError(f"{name} has no split {split!r}, expected one of {have}.")
    rows = builder.as_data_source(split=split)
    for i in range(len(rows)):
        where = f"{match[2] + match[3]}:{split}[{i}]"
        yield lambda i=i, where=where: record(_plain(rows[i]), where)


def _folder(root: pathlib.Path, dataset: str, name: str) -> pathlib.Path:
    """The newest version below ``root/dataset``; TFDS would ask the network for it."""
    found = [
        path.parent
        for pattern in (INFO, f"*/{INFO}", f"*/*/{INFO}")
        for path in sorted((root / dataset).glob(pattern))
        if "incomplete" not in path.parent.name
    ]
    configs = {p.parent for p in found}
    if not found:
        raise ValueError(
            f"{name} is no file or folder, and {root / dataset} holds no prepared "
            f"dataset; prepare it once with network: import "
            f'tensorflow_datasets.text; tensorflow_datasets.builder("{dataset}", '
            f'file_format="array_record").download_and_prepare().'
        )
    if len(configs) > 1:
        have = ", ".join(sorted(str(p.relative_to(root)) for p in configs))
        raise ValueError(f"{name} is one of several, expected one of {have}.")
    return max(found, key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])


def _plain(value: Any) -> Any:
    """TFDS gives bytes and arrays; returns strings and lists."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value
