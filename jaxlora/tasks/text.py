"""Text records to token ids, and which of them are learnt.

Only answers are learnt, each with the token that ends it; of plain text, everything.
Spans of answers are found in the rendered text and carried to tokens by the
tokenizer's character offsets, so that it does not matter what a tokenizer merges.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from jaxlora.models.tokenizer import Tokenizer
from jaxlora.tasks import record_turns, text_shown, text_spans
from jaxlora.tasks.text_sources import FORMS as FORMS
from jaxlora.tasks.text_sources import Read as Read
from jaxlora.tasks.text_sources import Record as Record
from jaxlora.tasks.text_sources import read as read
from jaxlora.tasks.text_sources import record as record

_LOOKED_AT = 20  # records whose prompts are compared with what is learnt


class Example(NamedTuple):
    """One record as tokens."""

    tokens: np.ndarray
    """Int32 [T]."""
    answer: np.ndarray
    """Bool [T]: is the token to be predicted? Never the first one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoded:
    """Examples, and what was left out of them."""

    examples: tuple[Example, ...]
    """In the order of the records."""
    too_long: int = 0
    """Longer than the context, dropped."""
    truncated: int = 0
    """Longer than the context, cut at its end on request."""
    no_answer: int = 0
    """Without a token to learn, dropped."""
    refused: int = 0
    """Conversations that the chat template refuses, dropped on request."""
    first_error: str = ""
    """Why the first of them was refused."""


def encode(
    records: Iterable[Record],
    tokenizer: Tokenizer,
    length: int,
    *,
    truncate: bool = False,
    skip_bad: bool = False,
) -> Encoded:
    """Encodes records for training.

    Args:
      records: conversations or plain text, as :func:`read` returns them.
      tokenizer: with a chat template, conversations and prompt/answer pairs are
        rendered by it; without, a pair is prompt, line break, answer, eos.
      length: T, the context in tokens. Longer examples are dropped and counted.
      truncate: cut them after T tokens instead?
      skip_bad: count conversations that the template refuses, instead of raising?

    Raises:
      ValueError: if no example is left, saying what became of them; with file and
        line, if a conversation cannot be rendered.
    """
    examples, errors = _readable(records, tokenizer, skip_bad)
    kept, long, silent = [], 0, 0
    for example in examples:
        over = len(example.tokens) > length
        long += over
        if over and not truncate:
            continue
        example = Example(*(x[:length] for x in example))
        # The cut may have taken the whole answer.
        if example.answer.any():
            kept.append(example)
        else:
            silent += 1
    first = errors[0] if errors else ""
    if not kept:
        raise ValueError(
            f"No example is left to train on: {long} are longer than {length} tokens, "
            f"{silent} have no answer, {len(errors)} are refused by the chat template; "
            f"expected one at least." + (f" {first}" if errors else "")
        )
    return Encoded(
        examples=tuple(kept),
        too_long=0 if truncate else long,
        truncated=long if truncate else 0,
        no_answer=silent,
        refused=len(errors),
        first_error=first,
    )


def _readable(
    records: Iterable[Record], tokenizer: Tokenizer, skip_bad: bool
) -> tuple[list[Example], list[str]]:
    """The records that can be encoded, and why others cannot."""
    examples, errors = [], []
    for item in records:
        try:
            examples.append(encode_one(item, tokenizer))
        except ValueError as error:
            if not skip_bad:
                raise
            errors.append(str(error))
    return examples, errors


def encode_one(item: Record, tokenizer: Tokenizer) -> Example:
    """Encodes one record, however long; what follows the last answer is left out.

    Args:
      item: a conversation, or plain text.
      tokenizer: with an eos token; its chat template, if any, renders conversations.

    Raises:
      ValueError: with file and line, if the conversation cannot be rendered, or the
        tokenizer has no token to end an answer with.
    """
    if not tokenizer.end_ids:
        raise ValueError(
            "The tokenizer names no eos_token, expected one to end answers with; add "
            "it to tokenizer_config.json or eos_token_id to generation_config.json."
        )
    text, spans = _located(item, tokenizer)
    # A template writes special tokens itself; the tokenizer must not add them again.
    rendered = bool(item.messages and tokenizer.chat_template)
    # Encoded as a whole: pieces would be merged into other tokens at their borders.
    with _placed(item):
        ids, offsets = tokenizer.encode_spans(text, special=not rendered)
    closing = tokenizer.special_ids.union(tokenizer.end_ids)
    ends = np.array([i in closing for i in ids], bool)
    answer = _learnt(text, spans, np.asarray(offsets, int).reshape(-1, 2), ends)
    last = spans[-1][1] if spans else 0
    if spans and not text[last:].strip() and not (answer & ends)[answer][-1:].any():
        ids, answer = _ended(ids, answer, tokenizer)
    answer[:1] = False  # nothing comes before it
    # Tokens after the last answer cost time and teach nothing.
    size = len(answer) - int(answer[::-1].argmax()) if answer.any() else len(answer)
    return Example(np.asarray(ids, np.int32)[:size], answer[:size])


def _learnt(
    text: str, spans: Sequence[tuple[int, int]], bounds: np.ndarray, ends: np.ndarray
) -> np.ndarray:
    """Which tokens are of an answer, bool [T]; ``bounds`` [T, 2] are their characters.

    ``ends`` are the tokens that may end an answer, bool [T].
    """
    answer = np.zeros(len(ends), bool)
    for start, stop in spans:
        inside = (bounds[:, 1] > start) & (bounds[:, 0] < stop)
        closing = bounds[inside & ends, 1]
        if len(closing) and not text[closing[-1] : stop].strip():
            # What a template puts after the end token (a line break) is not learnt.
            inside &= bounds[:, 0] < closing[-1]
        answer |= inside
    return answer


def prompt(item: Record, tokenizer: Tokenizer) -> list[int]:
    """Returns the tokens of the turns before the answer, ready for generation.

    Args:
      item: a conversation.
      tokenizer: its chat template, if any, renders the turns.

    Raises:
      ValueError: with file and line, if the record is plain text, or its turns cannot
        be rendered.
    """
    if not item.messages:
        raise ValueError(f"{item.where}: plain text has no prompt; expected {FORMS}.")
    with _placed(item):
        if tokenizer.chat_template:
            turns = len(item.asked)
            item = text_shown.checked(item, tokenizer, turns)
            asked = tokenizer.render(item.messages[:turns], tools=item.tools)
            return tokenizer.encode(asked, special=False)
        text = _plain_prompt(item)
        ids = tokenizer.encode(text)
        # Some tokenizers put an eos after every text, where the answer shall come.
        added = ids[-1:] != tokenizer.encode(text, special=False)[-1:]
    return ids[:-1] if added and ids[-1] in tokenizer.end_ids else ids


def asked_apart(records: Sequence[Record], tokenizer: Tokenizer) -> bool:
    """Will a model be asked with other tokens than those it learns to answer after?

    Some chat templates open an answer for generation with what they leave out of a
    whole conversation: DeepSeek-R1's with ``<think>``. Looks at the first few records;
    the last token of a prompt may merge with the answer, and is not compared.

    Args:
      records: of one file; some may be plain text.
      tokenizer: renders and encodes them.
    """
    for item in records[:_LOOKED_AT]:
        try:
            asked = prompt(item, tokenizer)[:-1]
            learnt = encode_one(item, tokenizer).tokens[: len(asked)].tolist()
        except ValueError:  # plain text, or refused and counted
            continue
        if asked != learnt:
            return True
    return False


def _ended(
    ids: list[int], answer: np.ndarray, tokenizer: Tokenizer
) -> tuple[list[int], np.ndarray]:
    """Ends an answer with an eos, unless one was put around the text already."""
    # Some tokenizers add an eos to every text.
    if ids and ids[-1] in tokenizer.end_ids:
        return ids, np.append(answer[:-1], True)
    return [*ids, tokenizer.end_ids[0]], np.append(answer, True)


def _located(item: Record, tokenizer: Tokenizer) -> tuple[str, list[tuple[int, int]]]:
    """The whole text, and the characters [start, stop) to learn."""
    if not item.messages:
        return item.text, [(0, len(item.text))]
    with _placed(item):
        if tokenizer.chat_template:
            item = text_shown.checked(item, tokenizer)
            return text_spans.locate(item, tokenizer)
        asked = _plain_prompt(item)
    text = asked + item.answer
    learnt = item.answer and len(item.messages) - 1 not in item.unlearnt
    return text, [(len(asked), len(text))] if learnt else []


@contextlib.contextmanager
def _placed(item: Record) -> Iterator[None]:
    """Says of an error which record it is about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{item.where or 'The prompt'}: {error}") from None


def _plain_prompt(item: Record) -> str:
    """What stands before the answer where there is no chat template."""
    roles = [turn["role"] for turn in item.asked]
    beside = [x for turn in item.messages for x in record_turns.shown(turn)]
    if item.tools or beside:
        raise ValueError(
            f"{', '.join((*beside, *(['tools'] if item.tools else ())))} of a "
            f"conversation need a chat template that shows them, and there is none."
        )
    # Without a template there is no agreed way to write several turns.
    if [role for role in roles if role != "system"] != ["user"]:
        raise ValueError(
            f"a conversation of {len(item.messages)} turns needs a chat template and "
            f"the tokenizer has none; expected that of the instruct model, one user "
            f"and one assistant turn, or chat_template set to chat.PLAIN."
        )
    text = "\n".join(turn["content"] for turn in item.asked)
    # The prompt may bring the white space that parts it from the answer.
    return text if text[-1:].isspace() else text + item.glue
