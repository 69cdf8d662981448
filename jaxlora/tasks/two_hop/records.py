"""Records and the vocabulary: the common form of generated, stored and user data.

A record is a prompt and an answer in words. Studies, dataset builders and readers all
speak records, so that what is stored is what is trained on.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

PAD, COPY, THINK = "<pad>", "<copy>", "<think>"
SPECIAL = (PAD, COPY, THINK)
Form: TypeAlias = Literal["next-token", "pad"]
"""Where a direct answer is read: at the last token of its prompt, as language models
do, or always at the third position, after padding."""
PADDED, PADDED_LENGTH = ("one_hop", "copy"), 3
"""Kinds whose prompts are padded to this length in the form ``pad``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """One question and its answer, in words.

    ``kind`` names the format: ``one_hop`` (h r), ``two_hop`` (h r1 r2), ``copy`` (h
    <copy>), ``written`` (h r1 r2 <think>, answered b c), ``misled`` (h r1 r2
    <think> x, where x is another bridge), ``document`` (h r1, continued b r2 c) or
    ``context`` (two facts, then the query).
    """

    kind: str
    prompt: tuple[str, ...]
    answer: tuple[str, ...]
    bridge: str = ""
    """The entity that links the two hops; empty where there is one hop."""
    role: str = ""
    """For study people: hop1, hop2 or two_hop."""
    cell: str = ""
    """For study people: R-II ... F-OO."""
    pair: int = -1
    """For study people: number of the study relation pair."""
    covered: bool = True
    """For study people: is the second-hop fact part of a trained composition?"""


class Rows(NamedTuple):
    """Records as arrays, [N, T] each; ``weights`` is 1 where a target is an answer."""

    tokens: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


@dataclasses.dataclass(frozen=True)
class Vocab:
    """Words and their ids: entities (familiar, then new), relations, special tokens."""

    entities: tuple[str, ...]
    relations: tuple[str, ...]
    familiar: int
    """The first ``familiar`` entities carry facts in pretraining."""
    form: Form = "next-token"
    """Where direct answers are read."""

    def __post_init__(self):
        words = self.words
        # Two entities of one name would share an id and be one entity.
        if len(set(words)) != len(words):
            twice = sorted({w for w in words if words.count(w) > 1})
            raise ValueError(
                f"Vocabulary has the same word twice: {', '.join(twice[:4])}; entities "
                f"and relations need different names."
            )

    @property
    def words(self) -> tuple[str, ...]:
        """All words; a word's position is its id."""
        return (*self.entities, *self.relations, *SPECIAL)

    @property
    def ids(self) -> dict[str, int]:
        """The id of each word."""
        return {word: i for i, word in enumerate(self.words)}


def encode(records: Sequence[Record], vocab: Vocab, length: int) -> Rows:
    """Turns records into padded rows of ``length`` inputs.

    The loss is on the entities of the answer: relations inside a document are
    given, not predicted. In the form ``pad`` a one-hop or copy prompt is padded
    *before* its answer up to three tokens, so that every direct answer is read at the
    same position; in the form ``next-token`` it is read at the last token.

    Args:
      records: in words of the vocabulary.
      vocab: gives the ids.
      length: T.

    Returns:
      Rows [N, T]; targets are the next tokens.

    Raises:
      ValueError: if a record is longer than ``length``.

    >>> vocab = Vocab(("ann", "bob"), ("spouse",), familiar=2)
    >>> ask = Record(kind="one_hop", prompt=("ann", "spouse"), answer=("bob",))
    >>> encode([ask], vocab, 3).targets.tolist()
    [[3, 1, 3]]
    """
    ids = vocab.ids
    pad, entities = ids[PAD], len(vocab.entities)
    # Targets start as padding too; only those of weight 1 are learnt.
    tokens = np.full((len(records), length), pad, np.int32)
    targets, weights = tokens.copy(), np.zeros((len(records), length), np.float32)
    for i, record in enumerate(records):
        prompt = _prompt_ids(record, ids, vocab.form)
        answer = [ids[word] for word in record.answer]
        words = prompt + answer
        if len(words) - 1 > length:
            raise ValueError(
                f"A {record.kind} record has {len(words)} tokens, expected at most "
                f"{length + 1}."
            )
        tokens[i, : len(words) - 1] = words[:-1]
        for where, target in enumerate(answer, start=len(prompt) - 1):
            targets[i, where] = target
            # Entities have the first ids; a relation within a document is given.
            weights[i, where] = float(target < entities)
    return Rows(tokens, targets, weights)


def prompts(records: Iterable[Record], vocab: Vocab, length: int) -> np.ndarray:
    """Returns the prompts alone, [N, length] token ids, padded on the right.

    Args:
      records: in words of the vocabulary.
      vocab: gives the ids.
      length: T, at least that of the longest prompt.
    """
    ids = vocab.ids
    rows = [_prompt_ids(record, ids, vocab.form) for record in records]
    out = np.full((len(rows), length), ids[PAD], np.int32)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return out


def answer_position(record: Record, form: Form) -> int:
    """Position at which the first answer token is predicted.

    Args:
      record: any.
      form: of direct answers.

    >>> ask = Record(kind="one_hop", prompt=("ann", "spouse"), answer=("bob",))
    >>> answer_position(ask, "next-token"), answer_position(ask, "pad")
    (1, 2)
    """
    padded = form == "pad" and record.kind in PADDED
    return PADDED_LENGTH - 1 if padded else len(record.prompt) - 1


def row_length(record: Record, form: Form) -> int:
    """Number of inputs of a record's row: all of its tokens but the last.

    Args:
      record: any.
      form: of direct answers.
    """
    return answer_position(record, form) + len(record.answer)


def _prompt_ids(record: Record, ids: dict[str, int], form: Form) -> list[int]:
    prompt = [ids[word] for word in record.prompt]
    if form == "pad" and record.kind in PADDED:
        prompt += [ids[PAD]] * (PADDED_LENGTH - len(prompt))
    return prompt
