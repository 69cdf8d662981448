"""The forms of a record of training data, each told by its fields.

A conversation, a prompt with its answer, or plain text. Where a record has the fields
of two forms the first counts, and what is left over is refused unless it says the same.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

from jaxlora.tasks import jsonl, record_fields, record_turns
from jaxlora.tasks.record_turns import Turn, Turns

CONVERSATIONS = ("messages", "conversations", "conversation")
"""Names of a list of turns."""
PAIRS = (
    ("prompt", "answer"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("question", "response"),
    ("query", "response"),
    ("instruction", "output"),
    ("instruction", "response"),
    ("input", "output"),
)
"""Names of the two fields of a prompt/answer record, in the order they are tried."""
FORMS = (
    '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content":'
    ' "..."}]} (or conversations, of from and value), {"prompt": "...", "answer": '
    '"..."} (or prompt/completion, prompt/response, question/answer, query/response, '
    'instruction/output with an optional input) or {"text": "..."}'
)
_SPEAKING = {*CONVERSATIONS, *(name for pair in PAIRS for name in pair)}
_MATTER = ("input", "context")


@dataclasses.dataclass(frozen=True)
class Record:
    """A conversation, or text of which all is learnt."""

    messages: tuple[Turn, ...] = ()
    """Turns of role and content, and what a template shows beside; empty for text."""
    text: str = ""
    """Plain text; empty for a conversation."""
    glue: str = "\n"
    """Stands between prompt and answer where there is no chat template."""
    where: str = ""
    """File and line, for messages."""
    canary: str = ""
    """The mark of test data that asks to be kept out of training; empty without it."""
    tools: tuple[dict[str, Any], ...] = ()
    """What a conversation may call, as its template shows it."""
    unlearnt: frozenset[int] = frozenset()
    """Turns of the assistant that are not learnt."""
    unread: tuple[str, ...] = ()
    """Fields that were not read."""

    @property
    def answer(self) -> str:
        """The assistant's last turn, or nothing if the last turn is another's."""
        last = self.messages[-1] if self.messages else {}
        return last["content"] if last.get("role") == "assistant" else ""

    @property
    def asked(self) -> tuple[Turn, ...]:
        """The turns before :attr:`answer`."""
        last = self.messages[-1] if self.messages else {}
        return self.messages[:-1] if last.get("role") == "assistant" else self.messages


def record(fields: dict[str, Any], where: str) -> Record:
    """Returns the record that an object of a file stands for.

    Args:
      fields: the object.
      where: file and line, for messages.

    Raises:
      ValueError: if no form has these fields, a value is of another kind, or a field
        would change what is asked or learnt and is not supported.

    >>> record({"question": "2 + 2?", "answer": 4}, "sums.jsonl:1").answer
    '4'
    """
    held = record_fields.filled(fields)
    record_fields.refuse(held, where)
    record_fields.refuse_thoughts(held, where)
    _check_weight(held, where)
    conversation, pair = _form(held)
    if (conversation, pair) == (None, None) and "text" not in held:
        conversation, pair = _form(fields)  # empty, which is said of its fields
    if conversation is not None:
        turns = record_turns.read(fields[conversation], where, conversation)
        plain = _conversation(turns, held, where)
        used = {conversation, "system", "tools"}
    elif pair is not None:
        plain = _pair(fields, held, pair, where)
        used = {*pair, "system", "tools", "history", *_matter(pair)}
    elif "text" in fields:
        text = jsonl.text(fields, "text", where, FORMS)
        plain, used = Record(text=text, where=where), {"text"}
    else:
        have = ", ".join(map(repr, fields)) or "no field at all"
        raise ValueError(f"{where}: the record has {have}; expected {FORMS}.")
    used |= {*record_fields.WEIGHTS}
    _check_rest(held, used, plain, where)
    odd = record_fields.unread(held, {*used, *_SPEAKING, "text"})
    unread = tuple(dict.fromkeys((*plain.unread, *odd)))
    return dataclasses.replace(
        plain, unread=unread, canary=str(fields.get("canary") or "")
    )


def _form(fields: Mapping[str, Any]) -> tuple[str | None, tuple[str, str] | None]:
    """The list of turns, and the two fields of a pair, that are there."""
    conversation = next((x for x in CONVERSATIONS if x in fields), None)
    pair = next((p for p in PAIRS if p[0] in fields and p[1] in fields), None)
    return conversation, pair


def _matter(pair: tuple[str, str]) -> tuple[str, ...]:
    """Fields with the matter that a prompt is about."""
    if pair[0] == "instruction":
        return _MATTER
    return () if pair[0] == "input" else ("context",)


def _pair(
    fields: Mapping[str, Any],
    held: Mapping[str, Any],
    pair: tuple[str, str],
    where: str,
) -> Record:
    prompt, answer = pair
    glue = "" if answer == "completion" else "\n"  # which goes on in the same line
    if _are_turns(fields[prompt]) or _are_turns(fields[answer]):
        turns = _spoken(fields, pair, where)
        _refuse_beside(held, ("history", *_matter(pair)), "turns", where)
        return dataclasses.replace(_conversation(turns, held, where), glue=glue)
    asked = [jsonl.text(dict(fields), prompt, where, FORMS)]
    texts = [_words(held, x, where) for x in _matter(pair) if x in held]
    # Alpaca's and Dolly's matter follows what is to be done; a text that a question is
    # about comes first.
    asked = [*asked, *texts] if prompt == "instruction" else [*texts, *asked]
    reply = _words(fields, answer, where)
    ends = [_turn("user", "\n".join(asked)), _turn("assistant", reply)]
    turns = Turns((*_history(held.get("history"), where), *ends), frozenset(), ())
    return dataclasses.replace(_conversation(turns, held, where), glue=glue)


def _spoken(fields: Mapping[str, Any], pair: tuple[str, str], where: str) -> Turns:
    """A prompt and an answer of which one at least is turns; the answer is learnt."""
    sides = []
    for name, role in zip(pair, ("user", "assistant"), strict=True):
        value = fields[name]
        if not _are_turns(value):
            value = [_turn(role, jsonl.text(dict(fields), name, where, FORMS))]
        sides.append(record_turns.read(value, where, name))
    before, after = sides
    start = len(before.messages)
    given = {i for i, x in enumerate(before.messages) if x["role"] == "assistant"}
    silent = frozenset(given | {start + i for i in after.unlearnt})
    unread = (*before.unread, *after.unread)
    return Turns((*before.messages, *after.messages), silent, unread)


def _conversation(turns: Turns, held: Mapping[str, Any], where: str) -> Record:
    """A conversation with what stands beside it: a system's words, and tools."""
    messages, silent = turns.messages, turns.unlearnt
    if "system" in held:
        words = jsonl.text(dict(held), "system", where, FORMS)
        first = messages[0]
        if first["role"] != "system":
            messages = (_turn("system", words), *messages)
            silent = frozenset(i + 1 for i in silent)
        elif first["content"] != words:
            raise ValueError(
                f"{where}: 'system' is {words!r:.60}, but the first turn is of the "
                f"system as well, and says {first['content']!r:.60}; expected one."
            )
    tools = record_turns.tools(held["tools"], where) if "tools" in held else ()
    return Record(
        messages=messages,
        where=where,
        tools=tools,
        unlearnt=silent,
        unread=turns.unread,
    )


def _history(value: Any, where: str) -> list[Turn]:
    """Earlier turns, as pairs of a question and its answer."""
    out = []
    for pair in value if isinstance(value, list) else [value] if value else []:
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError(
                f"{where}: 'history' has {pair!r:.60}, expected pairs of a question "
                f'and its answer, as in [["Hi", "Hello"]].'
            )
        both = dict(zip(("user", "assistant"), pair, strict=True))
        example = '[["Hi", "Hello"]]'
        out += [_turn(x, jsonl.text(both, x, where, example)) for x in both]
    return out


def _check_weight(held: Mapping[str, Any], where: str) -> None:
    for name in record_fields.WEIGHTS:
        if name in held and held[name] != 1:
            raise ValueError(
                f"{where}: {name!r} is {held[name]!r:.40}: records count alike here; "
                f"expected 1, or a record that is left out, or a weight of its turns."
            )


def _refuse_beside(
    held: Mapping[str, Any], names: Iterable[str], what: str, where: str
):
    for name in names:
        if name in held:
            raise ValueError(
                f"{where}: {name!r} stands beside a prompt of {what}; expected it as "
                f"one of them."
            )


def _check_rest(held, used: set[str], plain: Record, where: str) -> None:
    """Refuses what another form would have read, unless it says the same."""
    spoken = {turn["content"] for turn in plain.messages}
    for name, value in held.items():
        if name in used or name not in {*_SPEAKING, *_MATTER, "history", "text"}:
            continue
        # In Alpaca's form the whole record is rendered beside its parts.
        shown = name == "text" and all(x.strip() in str(value) for x in spoken)
        if not shown and (not isinstance(value, str) or value not in spoken):
            raise ValueError(
                f"{where}: {name!r} is there beside "
                f"{', '.join(map(repr, sorted(used & held.keys())))}, and is read in "
                f"no such record; expected {FORMS}."
            )


def _words(fields: Mapping[str, Any], name: str, where: str) -> str:
    """A text, or a number as one."""
    value = fields[name]
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise ValueError(
                f"{where}: {name!r} is {value}, expected a number or text."
            )
        return str(value)
    return jsonl.text(dict(fields), name, where, FORMS)


def _are_turns(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(x, dict) for x in value)


def _turn(role: str, text: str) -> Turn:
    return {"role": role, "content": text}
