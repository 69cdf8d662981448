"""Where the assistant's turns stand in a rendered conversation."""

from jaxlora.models.tokenizer import Tokenizer
from jaxlora.tasks.record_forms import Record

Span = tuple[int, int]
_OTHER = "\u2248"
"""Words that no turn begins or ends with."""
Beginnings = dict[tuple[int, bool], str | ValueError]
"""By number of turns, and whether the assistant's next one is opened."""


def locate(item: Record, tokenizer: Tokenizer) -> tuple[str, list[Span]]:
    """Renders a conversation and finds what is learnt of what the assistant says.

    A turn reaches from the end of the generation prompt of what is before it to the
    end of the conversation up to it. A template may change earlier turns when later
    ones follow (it drops their reasoning, say); there the words of the turn are looked
    for after the turn before and the lines that open it, and a turn whose words are
    gone has no span. Of a call of tools it is what another turn there would change.

    Args:
      item: a conversation.
      tokenizer: with a chat template.

    Returns:
      The text, and characters [start, stop) of each turn, its end token included.

    Raises:
      ValueError: if the template refuses the conversation.
    """
    messages = item.messages
    shown = _beginnings(item, tokenizer)
    text = shown[len(messages), False]
    if isinstance(text, ValueError):
        raise text
    spans, cursor = [], 0
    for i, turn in enumerate(messages):
        assistant = turn["role"] == "assistant"
        # The exact way first: what is new after a turn is that turn.
        span = _by_prefix(text, shown, i) if assistant and i else None
        if span is None and assistant and "tool_calls" in turn:
            span = _by_change(text, item, i, tokenizer)
        if span is None:
            if assistant and i:
                cursor = _opened(text, shown, i, cursor)
            words = (turn["content"] or "").strip()
            span = _by_words(text, words, cursor, tokenizer)
        if span is not None:
            cursor = span[1]
            spans += [span] if assistant and i not in item.unlearnt else []
    return text, spans


def _beginnings(item: Record, tokenizer: Tokenizer) -> Beginnings:
    """All that is asked for below, in one request."""
    messages = item.messages
    asked = {(len(messages), False)}
    for i, turn in enumerate(messages):
        if turn["role"] == "assistant" and i:
            asked |= {(i, False), (i, True), (i + 1, False)}
    texts = tokenizer.beginnings(messages, [*asked], item.tools)
    return dict(zip(asked, texts, strict=True))


def _by_prefix(text: str, shown: Beginnings, i: int) -> Span | None:
    before, opened, upto = shown[i, False], shown[i, True], shown[i + 1, False]
    if not (
        isinstance(before, str) and isinstance(opened, str) and isinstance(upto, str)
    ):
        return None  # the template refuses a part of what it accepts
    # Later turns changed what earlier ones look like.
    if not (text.startswith(before) and text.startswith(upto)):
        return None
    if not opened.startswith(before):
        return None
    # A generation prompt may hold more than the turn's opening (a <think>, say).
    start = len(before) + _common(opened[len(before) :], text[len(before) :])
    return (start, len(upto)) if start < len(upto) else None


def _opened(text: str, shown: Beginnings, i: int, cursor: int) -> int:
    """Where the next turn of the assistant begins: its role may hold its words too."""
    closed, opened = shown[i, False], shown[i, True]
    if isinstance(closed, ValueError) or isinstance(opened, ValueError):
        return cursor
    opening = opened[len(closed) :].splitlines(keepends=True)
    while opening:  # the last lines may be more than the opening (a <think>, say)
        start = text.find("".join(opening), cursor)
        if start >= 0:
            return start + len("".join(opening))
        opening.pop()
    return cursor


def _common(a: str, b: str) -> int:
    """Characters at the start that are the same."""
    if b.startswith(a):
        return len(a)
    return next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), len(b))  # noqa: B905


def _by_change(text: str, item: Record, i: int, tokenizer: Tokenizer) -> Span | None:
    """What another turn ``i`` would change: calls have no words to look for."""
    turn = {"role": item.messages[i]["role"], "content": _OTHER}
    messages = (*item.messages[:i], turn, *item.messages[i + 1 :])
    (other,) = tokenizer.beginnings(messages, [(len(messages), False)], item.tools)
    if isinstance(other, ValueError) or other == text:
        return None
    start = _common(other, text)
    after = _common(other[start:][::-1], text[start:][::-1])
    return start, _closed(text, len(text) - after, tokenizer)


def _by_words(text: str, words: str, cursor: int, tokenizer: Tokenizer) -> Span | None:
    start = text.find(words, cursor)
    if start < 0 or not words:
        return None
    return start, _closed(text, start + len(words), tokenizer)


def _closed(text: str, stop: int, tokenizer: Tokenizer) -> int:
    """The end of a turn with the token that ends it: the model must learn to stop."""
    rest = text[stop:].lstrip()
    ends = {tokenizer.backend.id_to_token(i) for i in tokenizer.end_ids}
    ends |= {tokenizer.turn_end}
    ends |= {tokenizer.backend.id_to_token(i) for i in tokenizer.special_ids}
    closings = [end for end in ends if end and rest.startswith(end)]
    if not closings:
        return stop
    return len(text) - len(rest) + len(max(closings, key=len))
