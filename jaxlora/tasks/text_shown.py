"""What of a conversation its chat template shows: nothing is left out in silence.

A template is asked, not read: what it shows changes its text. Tools, calls and thoughts
that it would leave out are refused; turns whose words it leaves out (a system's, say)
are named, as other libraries render them likewise.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from jaxlora.models.tokenizer import Tokenizer
from jaxlora.tasks import record_turns
from jaxlora.tasks.record_forms import Record
from jaxlora.tasks.record_turns import Turn

_OTHER = "Zebedee"
"""Words that stand in a turn for others."""
_LOOKED_AT = 20  # orders of roles


def checked(item: Record, tokenizer: Tokenizer, turns: int | None = None) -> Record:
    """Returns a conversation of which a template shows tools, calls and thoughts.

    A call without words has an empty content, for which templates are made; where one
    shows the call only if there is no content at all (DeepSeek's), it has none.

    Args:
      item: a conversation.
      tokenizer: with a chat template.
      turns: how many of its turns are rendered; None for all.

    Raises:
      ValueError: naming the first field that the template leaves out.
    """
    template = tokenizer.template(item.tools) or ""
    rendered = item.messages[:turns]
    beside = [
        (i, x) for i, y in enumerate(item.messages) for x in record_turns.shown(y)
    ]
    names = [name for _, name in beside] + ["tools"] * bool(item.tools)
    for name in names:
        if not any(x in template for x in record_turns.spellings(name)):
            raise ValueError(_left_out(name))
    if item.tools and _alike(tokenizer, (rendered, item.tools), (rendered, ())):
        raise ValueError(_left_out("tools"))
    for i, name in beside:
        if i >= len(rendered):
            continue
        turn, spellings = item.messages[i], record_turns.spellings(name)
        other = {x: y for x, y in turn.items() if x not in spellings}
        if not _silent(item, tokenizer, i, other):
            continue
        bare = _replaced(item, i, turn | {"content": None})
        if turn["content"] or not _renders(bare, tokenizer, i + 1):
            raise ValueError(_left_out(name))
        if _silent(bare, tokenizer, i, bare.messages[i] | {"tool_calls": []}):
            raise ValueError(_left_out(name))
        item = bare
    return item


def left_out(
    records: Sequence[Record], tokenizer: Tokenizer, *, asked: bool = False
) -> tuple[str, ...]:
    """Returns the roles of turns whose words a chat template leaves out.

    One record is asked of each order of roles, of twenty of them at most.

    Args:
      records: of one file; some may be plain text.
      tokenizer: with a chat template or without.
      asked: only the turns before an answer?
    """
    if not tokenizer.chat_template:
        return ()
    if asked:
        records = [dataclasses.replace(x, messages=x.asked) for x in records]
    orders = {tuple(turn["role"] for turn in x.messages): x for x in records}
    some = list(orders.values())[:_LOOKED_AT]
    return tuple(sorted({role for item in some for role in _roles(item, tokenizer)}))


def note(roles: Sequence[str], source: str) -> Iterator[str]:
    """Says which turns of a file are not shown.

    Args:
      roles: of :func:`left_out`.
      source: the file.
    """
    if roles:
        yield (
            f"{source}: the chat template leaves out what is said by "
            f"{', '.join(roles)}, in conversations like these; the model sees nothing "
            f"of it."
        )


def _roles(item: Record, tokenizer: Tokenizer) -> Iterator[str]:
    """Roles of the turns that a rendering shows nothing of."""
    # Templates show what a user says, and an assistant that calls nothing.
    spoken = [
        (i, turn)
        for i, turn in enumerate(item.messages)
        if turn["role"] not in ("user", "assistant") or "tool_calls" in turn
    ]
    if not spoken:
        return
    asked = [(len(item.messages), False)]
    (text,) = tokenizer.beginnings(item.messages, asked, item.tools)
    for i, turn in spoken:
        words = turn["content"].strip()
        if isinstance(text, ValueError) or not words or words in text:
            continue
        if _silent(item, tokenizer, i, turn | {"content": _OTHER}):
            yield turn["role"]


def _silent(item: Record, tokenizer: Tokenizer, i: int, other: Turn) -> bool:
    """Is the text the same with another turn ``i``?

    Later turns may hide what an assistant thought; what others say may be shown later.
    """
    end = i + 1 if item.messages[i]["role"] == "assistant" else len(item.messages)
    changed = _replaced(item, i, other)
    both = ((x.messages[:end], item.tools) for x in (item, changed))
    return _alike(tokenizer, *both)


def _alike(
    tokenizer: Tokenizer,
    first: tuple[Sequence[Turn], Sequence[Any]],
    second: tuple[Sequence[Turn], Sequence[Any]],
) -> bool:
    """Do turns with their tools give one text? What is refused gives none."""
    texts = [
        tokenizer.beginnings(turns, [(len(turns), False)], tools)[0]
        for turns, tools in (first, second)
    ]
    return isinstance(texts[0], str) and texts[0] == texts[1]


def _renders(item: Record, tokenizer: Tokenizer, end: int) -> bool:
    (text,) = tokenizer.beginnings(item.messages[:end], [(end, False)], item.tools)
    return isinstance(text, str)


def _replaced(item: Record, i: int, turn: Turn) -> Record:
    messages = (*item.messages[:i], turn, *item.messages[i + 1 :])
    return dataclasses.replace(item, messages=messages)


def _left_out(name: str) -> str:
    spellings = ", ".join(record_turns.spellings(name))
    return (
        f"the record has {name!r}, which the chat template does not show (it was "
        f"looked for as {spellings}); take a template that does, or leave it out."
    )
