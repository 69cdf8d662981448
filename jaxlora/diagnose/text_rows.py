"""Rows of text and probes as token ids: what teaches a fact, and where it is needed.

A fact is an answer: a row counts for the fact that it ends in.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlora.diagnose.effects import Asked, Lesson
from jaxlora.diagnose.features import Ask
from jaxlora.evaluate.answers import normalise
from jaxlora.models import text_backend
from jaxlora.models.padding import bucket
from jaxlora.models.tokenizer import Tokenizer
from jaxlora.tasks import text
from jaxlora.tasks.text import Record
from jaxlora.tasks.two_hop.probes import Probe


class Rows(NamedTuple):
    """The rows of one expert, by the fact that they teach."""

    facts: tuple[str, ...]
    """Each once: the bridges, or the answers, of the probes."""
    lesson: Lesson
    """[N, K, T], host arrays."""
    counts: tuple[int, ...]
    """Rows of each fact; 0 for a fact that no row teaches."""
    others: int
    """Rows that teach none of these facts."""


def question(prompt: str, answer: str, where: str) -> Record:
    """A question with its answer, as `jaxlora train` would read it.

    Args:
      prompt: the question.
      answer: what it is answered by.
      where: file and line, for messages.
    """
    turns = ({"role": "user", "content": prompt},)
    return Record(
        messages=(*turns, {"role": "assistant", "content": answer}), where=where
    )


def one_hop(probes: Sequence[Probe], hop: int) -> list[Record]:
    """The one-hop questions of probes.

    Args:
      probes: some.
      hop: 0 for the first, 1 for the second.
    """
    if hop:
        return [question(p.second, p.answer, p.where) for p in probes]
    return [question(p.first, p.bridge, p.where) for p in probes]


def needed(probes: Sequence[Probe], hop: int, ask: Ask) -> list[Record]:
    """Where the fact of a hop is needed: questions whose answer ends in it.

    Asked at once, the first hop is nowhere written: its one-hop question stands for it.

    Args:
      probes: some.
      hop: 0 for the first, 1 for the second.
      ask: directly, or with the bridge written before the answer.
    """
    if hop:
        return two_hop(probes, ask)
    if ask == "direct":
        return one_hop(probes, 0)
    return [question(p.question, p.bridge, p.where) for p in probes]


def facts_of(probes: Sequence[Probe], hop: int) -> list[str]:
    """The fact that each probe needs of a hop: its bridge, or its answer.

    Args:
      probes: some.
      hop: 0 for the first, 1 for the second.
    """
    return [getattr(probe, ("bridge", "answer")[hop]) for probe in probes]


def two_hop(probes: Sequence[Probe], ask: Ask) -> list[Record]:
    """The two-hop questions of probes, answered in the way that is asked.

    Args:
      probes: some.
      ask: directly, or with the bridge written before the answer.
    """
    before = {"direct": "", "written": "{} "}[ask]
    return [
        question(p.question, before.format(p.bridge) + p.answer, p.where)
        for p in probes
    ]


def rows_of(
    records: Sequence[Record], facts: Sequence[str], tokenizer: Tokenizer, length: int
) -> Rows:
    """Encodes the rows of an expert, and sorts them by the fact that they teach.

    Args:
      records: prompts with answers.
      facts: what they should teach, one of each probe; may repeat.
      tokenizer: of the model.
      length: its context.

    Raises:
      ValueError: with file and line, if a row has no answer, does not fit the context
        or cannot be encoded; if no row teaches any of the facts.
    """
    distinct = tuple(dict.fromkeys(map(normalise, facts)))
    sorted_: dict[str, list[text.Example]] = {fact: [] for fact in distinct}
    others = 0
    for record in records:
        fact = _fact(record, distinct)
        others += fact is None
        if fact is not None:
            sorted_[fact].append(example_of(record, tokenizer, length))
    if not any(sorted_.values()):
        raise ValueError(
            f"None of the {len(records)} rows ends in one of the answers that the "
            f"probes need of this expert: {', '.join(map(repr, distinct[:4]))}; were "
            f"the files of rows given in the order of the hops?"
        )
    counts = tuple(map(len, sorted_.values()))
    return Rows(distinct, _stacked(list(sorted_.values())), counts, others)


def _fact(record: Record, facts: Sequence[str]) -> str | None:
    if not record.answer:
        raise ValueError(
            f"{record.where}: the row has no answer, expected a prompt and an answer."
        )
    answer = normalise(record.answer)
    matches = [x for x in facts if answer == x or answer.endswith(f" {x}")]
    return max(matches, key=len, default=None)


def example_of(record: Record, tokenizer: Tokenizer, length: int) -> text.Example:
    """Encodes a question with its answer.

    Args:
      record: a prompt with an answer.
      tokenizer: of the model.
      length: its context.

    Raises:
      ValueError: with file and line, if it does not fit the context, has nothing to
        learn, or has words that the vocabulary lacks.
    """
    check_words(record, tokenizer)
    example = text.encode_one(record, tokenizer)
    if len(example.tokens) > length or not example.answer.any():
        raise ValueError(
            f"{record.where}: the row has {len(example.tokens)} tokens with "
            f"{example.answer.sum()} to learn, expected 1 or more of them and at most "
            f"the model's context of {length}."
        )
    return example


def check_words(record: Record, tokenizer: Tokenizer) -> None:
    """Refuses text that the vocabulary lacks tokens for.

    Args:
      record: a question and its answer.
      tokenizer: of the model.

    Raises:
      ValueError: with file and line, naming the first such words.
    """
    unknown = text_backend.unknown(tokenizer.backend)
    for turn in record.messages:
        words = turn["content"]
        ids, spans = tokenizer.encode_spans(words, special=False)
        known = np.array([c.isspace() for c in words], bool)
        for i, (start, stop) in zip(ids, spans, strict=True):
            known[start:stop] |= tokenizer.backend.id_to_token(i) != unknown
        if not known.all():
            at = int(np.flatnonzero(~known)[0])
            raise ValueError(
                f"{record.where}: the vocabulary has no token for {words[at:][:20]!r} "
                f"in {words[:60]!r}; expected words that the model can read."
            )


def _stacked(sets: Sequence[Sequence[text.Example]]) -> Lesson:
    """Rows [N, K, T], filled up with rows of weight 0."""
    most = max(map(len, sets))
    length = bucket(max(len(x.tokens) for rows in sets for x in rows) - 1)
    shape = (len(sets), most, length)
    tokens, targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    mask, weights = np.zeros(shape, bool), np.zeros(shape, np.float32)
    for n, rows in enumerate(sets):
        for k, example in enumerate(rows):
            size = len(example.tokens) - 1
            tokens[n, k, :size] = example.tokens[:-1]
            targets[n, k, :size] = example.tokens[1:]
            weights[n, k, :size] = example.answer[1:]
            mask[n, k, :size] = True
    # An empty row sees its first token, or its attention would be of nothing.
    mask[:, :, 0] = True
    return Lesson(tokens, mask, targets, weights)


def asked(
    questions: Sequence[Record],
    facts: Sequence[str],
    tokenizer: Tokenizer,
    length: int,
) -> tuple[Asked, np.ndarray]:
    """Where facts are needed: questions up to the place where they are predicted.

    Args:
      questions: one a probe; the answer ends in the fact.
      facts: of each question; may repeat.
      tokenizer: of the model.
      length: its context.

    Returns:
      Questions [Q, T] with the first token of every distinct fact, and the number of
      each question's fact [Q].

    Raises:
      ValueError: with file and line, if a question does not fit the context, or the
        tokenizer does not part the fact from what stands before it.
    """
    distinct = list(dict.fromkeys(map(normalise, facts)))
    places = np.array([distinct.index(normalise(fact)) for fact in facts])
    cut = [
        _cut(record, fact, tokenizer, length)
        for record, fact in zip(questions, facts, strict=True)
    ]
    size = bucket(max(len(ids) for ids, _ in cut))
    tokens, mask = (
        np.zeros((len(cut), size), np.int32),
        np.zeros((len(cut), size), bool),
    )
    for i, (ids, _) in enumerate(cut):
        tokens[i, : len(ids)], mask[i, : len(ids)] = ids, True
    at = np.array([len(ids) - 1 for ids, _ in cut], np.int32)
    first = {places[i]: token for i, (_, token) in reversed(list(enumerate(cut)))}
    answers = np.array([first[i] for i in range(len(distinct))], np.int32)
    return Asked(tokens, mask, at, answers), places


def _cut(
    record: Record, fact: str, tokenizer: Tokenizer, length: int
) -> tuple[list[int], int]:
    """Tokens before a fact that ends an answer, and the first token of the fact."""
    example = example_of(record, tokenizer, length)
    start = int(example.answer.argmax())
    before = record.answer[: -len(fact)].rstrip()
    if before:
        turns = (*record.asked, {"role": "assistant", "content": before})
        shorter = dataclasses.replace(record, messages=turns)
        there = text.encode_one(shorter, tokenizer).tokens
        size = min(len(there), len(example.tokens))
        differ = example.tokens[:size] != there[:size]
        cut = int(differ.argmax())
        if not differ.any() or cut <= start:
            raise ValueError(
                f"{record.where}: the tokenizer does not part {fact!r} from "
                f"{before!r} before it, so that it is not predicted on its own; "
                f"expected names of whole words."
            )
        start = cut
    return example.tokens[:start].tolist(), int(example.tokens[start])
