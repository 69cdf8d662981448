"""Training text of a user: JSON lines, a folder of them, or a prepared TFDS dataset.

Every form becomes a :class:`Record`; which form a record has is told by its fields.
TensorFlow is not needed, and nothing is downloaded.
"""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

from jaxlora.tasks import jsonl, tfds_source

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
_EXPECTED = (
    "expected a JSON-lines file, a folder of them, or a TFDS name as in "
    "tfds:gsm8k/main:train"
)


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
    canary: str = ""
    """The mark of test data that asks to be kept out of training; empty without it."""

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


def read(
    source: Path,
    *,
    skip_bad: bool = False,
    tests: bool = False,
    data_dir: Path | None = None,
) -> Read:
    """Reads records.

    Args:
      source: a JSON-lines file; a folder, whose ``*.jsonl`` are read in the order of
        their names; or a TFDS dataset prepared as array_record, as in
        ``tfds:gsm8k``, ``gsm8k/main:train`` (a file of that name comes first; the split
        is ``train`` if none is named).
      skip_bad: count bad records and go on, instead of raising?
      tests: are they only asked, never trained on? Records with a canary are test data,
        and refused without it.
      data_dir: root of TFDS datasets; None for TFDS's own.

    Raises:
      ValueError: with file and line, if a record is bad; if the source does not exist;
        if there is no good record in it;
        if one has a canary and ``tests`` is false.
    """
    records, errors = [], []
    # Functions, not records: a bad one must not end the iteration.
    for make in _source(source, data_dir):
        try:
            records.append(make())
        except ValueError as error:
            if not skip_bad:
                raise
            errors.append(str(error))
    if not records:
        bad = f"has no good record ({len(errors)} bad)" if errors else "is empty"
        raise ValueError(
            f"{os.fspath(source)} {bad}; expected "
            f"{FORMS}." + (f" The first: {errors[0]}" if errors else "")
        )
    if not tests:
        _refuse_canaries(records)
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
    plain = _record(fields, where)
    if fields.get("canary"):
        return dataclasses.replace(plain, canary=str(fields["canary"]))
    return plain


def _record(fields: dict[str, Any], where: str) -> Record:
    if "messages" in fields:
        turns = _turns(fields["messages"], where)
        return Record(messages=turns, where=where)
    # In this order, since a record may have the fields of two forms.
    for prompt, answer in PAIRS:
        if prompt in fields and answer in fields:
            return _pair(fields, prompt, answer, where)
    if "text" in fields:
        return Record(text=jsonl.text(fields, "text", where, FORMS), where=where)
    have = ", ".join(map(repr, fields)) or "no field at all"
    raise ValueError(f"{where}: the record has {have}; expected {FORMS}.")


def _refuse_canaries(records: list[Record]) -> None:
    for record in records:
        if record.canary:
            raise ValueError(
                f"{record.where}: the record has the canary {record.canary:.40}, which "
                f"asks to be kept out of training, as GSM-Symbolic does (its licence "
                f"is CC BY-NC-ND); use it as test data, or train on other records."
            )


def _pair(fields: dict[str, Any], prompt: str, answer: str, where: str) -> Record:
    asked = jsonl.text(fields, prompt, where, FORMS)
    # Alpaca's form: the input is the matter that the instruction is about.
    if prompt == "instruction" and fields.get("input"):
        asked += "\n" + jsonl.text(fields, "input", where, FORMS)
    turns = [("user", asked), ("assistant", jsonl.text(fields, answer, where, FORMS))]
    if fields.get("system"):
        turns.insert(0, ("system", jsonl.text(fields, "system", where, FORMS)))
    return Record(
        messages=tuple({"role": role, "content": text} for role, text in turns),
        # A completion continues the prompt in the same line.
        glue="" if answer == "completion" else "\n",
        where=where,
    )


def _turns(turns: Any, where: str) -> tuple[dict[str, str], ...]:
    if isinstance(turns, dict) and all(isinstance(v, list) for v in turns.values()):
        turns = _transposed(turns, where)
    if not isinstance(turns, list) or not turns:
        raise ValueError(f"{where}: 'messages' is no list of turns; expected {FORMS}.")
    return tuple(_turn(turn, f"{where}, turn {i}") for i, turn in enumerate(turns))


def _transposed(turns: dict[str, list[Any]], where: str) -> list[dict[str, Any]]:
    """TFDS gives a sequence of objects as an object of lists."""
    if len({len(values) for values in turns.values()}) > 1:
        raise ValueError(
            f"{where}: 'messages' has {', '.join(turns)} of unequal lengths; "
            f"expected {FORMS}."
        )
    columns = zip(*turns.values(), strict=True)
    return [dict(zip(turns, values, strict=True)) for values in columns]


def _turn(turn: Any, where: str) -> dict[str, str]:
    if not isinstance(turn, dict):
        raise ValueError(f"{where}: got {turn!r:.60}; expected {FORMS}.")
    if turn.get("tool_calls"):
        raise ValueError(f"{where}: calls of tools are not trained on.")
    role = jsonl.text(turn, "role", where, FORMS)
    # An empty system prompt is fine, an empty answer is not.
    silent = role != "assistant"
    content = jsonl.text(turn, "content", where, FORMS, empty=silent)
    return {"role": role, "content": content}


def _source(source: Path, data_dir: Path | None) -> Iterator[Callable[[], Record]]:
    """Yields functions that give a record each, or raise."""
    name = os.fspath(source)
    path = pathlib.Path(name).expanduser()
    if path.is_dir():  # a data set of TFDS with that name is `tfds:NAME`
        if not (files := sorted(path.glob("*.jsonl"))):
            raise ValueError(f"{name} is a folder without *.jsonl, {_EXPECTED}.")
        for file in files:
            yield from _lines(file)
    elif path.is_file():
        yield from _lines(path)
    elif (match := tfds_source.NAME.fullmatch(name)) and not name.endswith(
        (".json", ".jsonl")
    ):
        for fields, where in tfds_source.read(match, name, data_dir):
            yield lambda fields=fields, where=where: record(fields(), where)
    else:
        raise ValueError(f"{name} is not there, {_EXPECTED}.")


def _lines(path: pathlib.Path) -> Iterator[Callable[[], Record]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield lambda line=line, where=f"{path}:{number}": record(
                        jsonl.parse(line, where), where
                    )
    except OSError as error:
        raise ValueError(f"Cannot read {path}: {error.strerror or error}.") from None
