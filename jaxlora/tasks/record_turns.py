"""Turns of a conversation, in the forms that people have.

A turn is ``{"role", "content"}``, or ``{"from", "value"}`` as of ShareGPT. A content
may be parts of text. Of the assistant there may be thoughts and calls of tools beside
it, which a chat template shows, and a weight that says whether the turn is learnt.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from jaxlora.strangers import data
from jaxlora.tasks import jsonl, record_fields
from jaxlora.tasks.record_fields import THOUGHTS

Turn = dict[str, Any]

ROLES: Mapping[str, str] = {
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot"), "assistant"),
    **dict.fromkeys(("ai", "bing", "bard"), "assistant"),
    **dict.fromkeys(("tool", "observation", "tool_response"), "tool"),
    "function_response": "tool",
    "system": "system",
}
"""Roles as templates name them, by what people write in any case; others keep their
names."""
EXAMPLE = '{"role": "user", "content": "..."}'


class Turns(NamedTuple):
    """A conversation, and what of it is learnt."""

    messages: tuple[Turn, ...]
    """Role, content, and what a template may show beside them."""
    unlearnt: frozenset[int]
    """Turns of the assistant that are not learnt."""
    unread: tuple[str, ...]
    """Fields that are not read."""


def read(turns: Any, where: str, field: str = "messages") -> Turns:
    """Reads a list of turns.

    Args:
      turns: the value of a field; TFDS gives an object of lists.
      where: file and line, for messages.
      field: its name.

    Raises:
      ValueError: naming the turn and what is wrong with it.
    """
    if isinstance(turns, dict) and all(isinstance(v, list) for v in turns.values()):
        turns = _transposed(turns, where, field)
    if not isinstance(turns, list) or not turns:
        raise ValueError(
            f"{where}: {field!r} is no list of turns; expected turns such as {EXAMPLE}."
        )
    places = [f"{where}, turn {i}" for i in range(len(turns))]
    plain = [_plain(turn, place) for turn, place in zip(turns, places, strict=True)]
    pairs = list(zip(plain, places, strict=True))
    silent = {
        i
        for i, (turn, place) in enumerate(pairs)
        if not record_fields.learnt(turn, place) and turn.get("role") == "assistant"
    }
    known = {*record_fields.TURN, *record_fields.WEIGHTS, *THOUGHTS}
    odd = {x for turn in plain for x in record_fields.unread(turn, known)}
    odd |= {x for turn in plain for x in _unread_of_parts(turn.get("content"))}
    messages = tuple(_turn(turn, place) for turn, place in pairs)
    return Turns(messages, frozenset(silent), tuple(sorted(odd)))


def shown(turn: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of what a template must show of a turn beside its content.

    >>> shown({"role": "assistant", "content": "", "tool_calls": [{}]})
    ('tool_calls',)
    """
    return tuple(x for x in ("tool_calls", "tools", THOUGHTS[0]) if x in turn)


def spellings(name: str) -> tuple[str, ...]:
    """Names by which a template may ask for what :func:`shown` names."""
    return THOUGHTS if name == THOUGHTS[0] else (name,)


def tools(value: Any, where: str) -> tuple[dict[str, Any], ...]:
    """Returns the tools that a conversation may call.

    Args:
      value: a list of objects, or the JSON of one.
      where: file and line, for messages.

    Raises:
      ValueError: if it is neither.
    """
    if isinstance(value, str):
        value = _parsed(value, where, "tools") or []
    if not isinstance(value, list) or not all(isinstance(x, dict) for x in value):
        raise ValueError(
            f"{where}: 'tools' is {value!r:.60}, expected a list of objects, as in "
            f'[{{"type": "function", "function": {{"name": "..."}}}}].'
        )
    return tuple(value)


def _plain(turn: Any, where: str) -> Turn:
    """A turn with a role and a content, of whichever form; only fields that hold."""
    if not isinstance(turn, dict):
        raise ValueError(f"{where}: got {turn!r:.60}; expected {EXAMPLE}.")
    # ShareGPT's names, for what stands under none of ours.
    named = "from" if "from" in turn and "role" not in turn else "role"
    worded = "value" if "value" in turn and "content" not in turn else "content"
    rest = {name: x for name, x in turn.items() if name not in (named, worded)}
    record_fields.refuse(record_fields.filled(rest), where)
    role = jsonl.text(turn, named, where, EXAMPLE)
    if role == "function_call":
        call = _parsed(turn.get(worded), where, worded)
        calls = call if isinstance(call, list) else [call]
        wrapped = [{"type": "function", "function": x} for x in calls]
        return rest | {"role": "assistant", "content": "", "tool_calls": wrapped}
    words = {"content": turn[worded]} if worded in turn else {}
    return rest | {"role": ROLES.get(role.lower(), role)} | words


def _turn(turn: Turn, where: str) -> Turn:
    """What a template is given of a turn."""
    role = jsonl.text(turn, "role", where, EXAMPLE)
    out: Turn = {"role": role}
    calls = turn.get("tool_calls")
    if calls:
        if role != "assistant" or not _are_objects(calls):
            raise ValueError(
                f"{where}: 'tool_calls' of {role!r:.40} is {calls!r:.60}, expected a "
                f"list of objects in a turn of the assistant."
            )
        out["tool_calls"] = calls
    thoughts = {x: turn[x] for x in THOUGHTS if turn.get(x)}
    if thoughts:
        out |= _thoughts(thoughts, role, where)
    content = turn.get("content")
    if isinstance(content, list):
        turn = turn | {"content": _joined(content, where)}
    elif content is None and calls:
        turn = turn | {"content": ""}
    # An empty system prompt is fine, an empty answer is not.
    empty = role != "assistant" or bool(calls)
    out["content"] = jsonl.text(turn, "content", where, EXAMPLE, empty=empty)
    return out | {x: turn[x] for x in ("name", "tool_call_id", "tools") if turn.get(x)}


def _thoughts(given: Mapping[str, Any], role: str, where: str) -> dict[str, str]:
    """Thoughts under every name that templates have for them."""
    name, text = next(iter(given.items()))
    if role != "assistant" or not isinstance(text, str) or len({*given.values()}) > 1:
        raise ValueError(
            f"{where}: {', '.join(map(repr, given))} of {role!r:.40} is {text!r:.60}, "
            f"expected one text in a turn of the assistant."
        )
    return dict.fromkeys(THOUGHTS, jsonl.text({name: text}, name, where, EXAMPLE))


def _unread_of_parts(content: Any) -> Iterator[str]:
    for part in content if isinstance(content, list) else []:
        if isinstance(part, dict):
            held = record_fields.filled(part)
            yield from record_fields.unread(held, ("type", "text"))


def _joined(parts: Sequence[Any], where: str) -> str:
    """A content that is given as parts of text."""
    texts = []
    for part in parts:
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if isinstance(part, str):
            texts.append(part)
        elif kind == "text" and isinstance(part.get("text"), str):
            record_fields.refuse(record_fields.filled(part), where)
            if weights := [x for x in record_fields.WEIGHTS if part.get(x) is not None]:
                raise ValueError(
                    f"{where}: {weights[0]!r} stands in a part of 'content', expected "
                    f"it in the turn: a turn is learnt, or it is not."
                )
            texts.append(part["text"])
        else:
            raise ValueError(
                f"{where}: 'content' has a part of type {kind!r:.40}, expected parts "
                f'of text, as in {{"type": "text", "text": "..."}}: models of text '
                f"read nothing else."
            )
    return "".join(texts)


def _transposed(turns: dict[str, list[Any]], where: str, field: str) -> list[Turn]:
    """TFDS gives a sequence of objects as an object of lists."""
    if len({len(values) for values in turns.values()}) > 1:
        raise ValueError(
            f"{where}: {field!r} has {', '.join(turns)} of unequal lengths; expected "
            f"turns such as {EXAMPLE}."
        )
    columns = zip(*turns.values(), strict=True)
    return [dict(zip(turns, values, strict=True)) for values in columns]


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(x, dict) for x in value)


def _parsed(value: Any, where: str, field: str) -> Any:
    try:
        return data.loads(value) if isinstance(value, str) else value
    except ValueError as error:
        shown = jsonl.shorten(json.dumps(value))
        raise ValueError(
            f"{where}: {field!r} is {shown}, expected JSON ({error})."
        ) from None
