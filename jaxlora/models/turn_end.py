"""What ends a turn of the assistant: one fact, for training, generation and scores.

A tokenizer names an eos, and a chat template may put another mark after an answer: the
eos of a base model ends a document, where ``<|im_end|>`` ends a turn. A model that was
trained on the template writes the mark.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from jaxlora.models import chat

_ANSWER = "Zebedee"
"""Of a conversation that shows what follows an answer."""
_PROBE = (
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": _ANSWER},
    {"role": "user", "content": "Who?"},
)
_LEAST = 3
"""Characters of a mark that is no special token: fewer stand in any text."""


class Reader(Protocol):
    """What is asked of a tokenizer."""

    @property
    def special_ids(self) -> frozenset[int]:
        """Tokens that are marks."""

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """Tokens that end a text."""

    def beginnings(
        self, messages: Sequence[chat.Message], asked: Sequence[tuple[int, bool]]
    ) -> list[str | ValueError]:
        """Renders a conversation."""

    def encode(self, text: str, special: bool = True) -> list[int]:
        """Returns ids."""

    def decode(self, ids: Sequence[int], skip_special: bool = True) -> str:
        """Returns text."""


class Mark(NamedTuple):
    """What follows an answer."""

    text: str = ""
    """Of the last answer; empty if there is none."""
    ids: tuple[int, ...] = ()
    """What ends the last answer, and what ends one that a question follows; none
    where a mark is several tokens."""


def mark(tokenizer: Reader) -> Mark:
    """Returns what a chat template puts after an answer.

    Some put the eos after the last one and another mark after others: both end a turn.

    Args:
      tokenizer: with a chat template.
    """
    asked = [(len(_PROBE) - 1, False), (len(_PROBE), False)]
    last, inner = tokenizer.beginnings(_PROBE, asked)
    text, token = _following(tokenizer, last)
    _, other = _following(tokenizer, inner)
    # What follows between turns may be any text: it ends nothing unless it is a mark.
    known = tokenizer.special_ids.union(tokenizer.eos_ids)
    ids = (token, other if other in known else None)
    return Mark(text, tuple(dict.fromkeys(i for i in ids if i is not None)))


def _following(tokenizer: Reader, text: str | ValueError) -> tuple[str, int | None]:
    """The mark after an answer, and its token; None if the mark is several."""
    # A template that refuses so plain a conversation is one for other tasks.
    if isinstance(text, ValueError) or _ANSWER not in text:
        return "", None
    rest = text.rpartition(_ANSWER)[2].lstrip()
    line = rest.partition("\n")[0].rstrip()
    if not line:
        return "", None
    first, *others = tokenizer.encode(line, special=False)
    if first in tokenizer.special_ids or first in tokenizer.eos_ids:
        return tokenizer.decode([first], skip_special=False), first
    if len(line) < _LEAST:
        return "", None
    return line, None if others else first
