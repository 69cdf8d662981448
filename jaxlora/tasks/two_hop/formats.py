"""The formats of a question: one hop, two hops, copy, written, document, context.

Arguments are numbers of entities and relations in the vocabulary; ``study`` are the
fields of a record that say which study person it is about.
"""

import dataclasses
from typing import Any, TypeAlias

import numpy as np

from jaxlora.tasks.two_hop.records import COPY, THINK, Record, Vocab

Number: TypeAlias = int | np.integer
"""The number of an entity or a relation."""


def one_hop(vocab: Vocab, h: Number, r: Number, t: Number, **study: Any) -> Record:
    """The fact ``h r -> t`` as a question.

    Args:
      vocab: the words.
      h: number of the head.
      r: number of the relation.
      t: number of the tail.
      **study: fields of the record that say which person it is of.
    """
    e, names = vocab.entities, vocab.relations
    return Record(kind="one_hop", prompt=(e[h], names[r]), answer=(e[t],), **study)


def query(
    vocab: Vocab, tables: np.ndarray, h: Number, r1: Number, r2: Number
) -> Record:
    """The two-hop query ``h r1 r2``, answered from the tables [relations, entities].

    Args:
      vocab: the words.
      tables: int [relations, entities], the tail of each head.
      h: number of the head.
      r1: number of the first relation.
      r2: number of the second relation.
    """
    # The answer of the first hop is the question of the second.
    bridge = tables[r1, h]
    return direct(vocab, h, r1, r2, bridge, tables[r2, bridge])


def direct(
    vocab: Vocab,
    h: Number,
    r1: Number,
    r2: Number,
    bridge: Number,
    tail: Number,
    **study: Any,
) -> Record:
    """The two-hop query answered at once.

    Args:
      vocab: the words.
      h: number of the head.
      r1: number of the first relation.
      r2: number of the second relation.
      bridge: number of the entity that links the hops.
      tail: number of the answer.
      **study: fields of the record that say which person it is of.
    """
    e, names = vocab.entities, vocab.relations
    return Record(
        kind="two_hop",
        prompt=(e[h], names[r1], names[r2]),
        answer=(e[tail],),
        bridge=e[bridge],
        **study,
    )


def copy_record(word: str) -> Record:
    """The identity row ``e <copy> -> e``.

    Args:
      word: an entity.
    """
    return Record(kind="copy", prompt=(word, COPY), answer=(word,))


def written(record: Record) -> Record:
    """The same two-hop query, answered with its bridge written out first.

    Args:
      record: of kind two_hop.
    """
    return dataclasses.replace(
        record,
        kind="written",
        prompt=(*record.prompt, THINK),
        answer=(record.bridge, *record.answer),
    )


def misled(record: Record, other: Record) -> Record:
    """The query with the bridge of another query with the same second relation.

    The answer is what the second hop makes of the bridge that is written, so a model
    that learns these rows reads its bridge. Only the answer is trained.

    Args:
      record: of kind two_hop.
      other: of kind two_hop, with the same second relation.
    """
    return dataclasses.replace(
        record,
        kind="misled",
        prompt=(*record.prompt, THINK, other.bridge),
        answer=other.answer,
        bridge=other.bridge,
    )


def document(record: Record) -> Record:
    """Both facts of a two-hop query as one text: ``h r1 b r2 c``.

    Args:
      record: of kind two_hop.
    """
    head, first, second = record.prompt
    return dataclasses.replace(
        record,
        kind="document",
        prompt=(head, first),
        answer=(record.bridge, second, *record.answer),
    )


def context(record: Record, swap: bool) -> Record:
    """The two-hop query with both of its facts before it, in either order.

    Args:
      record: of kind two_hop.
      swap: the second fact first?
    """
    head, first, second = record.prompt
    facts = [(head, first, record.bridge), (record.bridge, second, *record.answer)]
    facts = facts[::-1] if swap else facts
    return dataclasses.replace(
        record, kind="context", prompt=(*facts[0], *facts[1], *record.prompt)
    )
