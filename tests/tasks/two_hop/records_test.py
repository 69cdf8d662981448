"""Rows by hand for each kind of record: where the loss is, and on what."""

import dataclasses
from typing import get_args

import numpy as np
import pytest

from jaxlora.tasks.two_hop import formats, records
from jaxlora.tasks.two_hop.records import PAD, Record, Vocab

VOCAB = Vocab(("ann", "bob", "rome", "oslo"), ("spouse", "city"), familiar=3)
# ids: ann 0, bob 1, rome 2, oslo 3, spouse 4, city 5, <pad> 6, <copy> 7, <think> 8
P = 6
QUERY = formats.direct(VOCAB, 0, 0, 1, 1, 2)
ONE_HOP = Record(kind="one_hop", prompt=("ann", "spouse"), answer=("bob",))

PADDING = dataclasses.replace(VOCAB, form="pad")
VOCABS = {vocab.form: vocab for vocab in (VOCAB, PADDING)}

# kind: record, tokens, targets; the loss is on every target but pad and relations.
BY_HAND = {
    "one_hop": (ONE_HOP, [0, 4], [P, 1]),
    "two_hop": (QUERY, [0, 4, 5], [P, P, 2]),
    "copy": (formats.copy_record("oslo"), [3, 7], [P, 3]),
    "written": (formats.written(QUERY), [0, 4, 5, 8, 1], [P, P, P, 1, 2]),
    "misled": (
        formats.misled(QUERY, formats.direct(VOCAB, 1, 0, 1, 0, 3)),
        [0, 4, 5, 8, 0],
        [P, P, P, P, 3],
    ),
    "document": (formats.document(QUERY), [0, 4, 1, 5], [P, 1, 5, 2]),
    "context": (
        formats.context(QUERY, swap=False),
        [0, 4, 1, 1, 5, 2, 0, 4, 5],
        [P] * 8 + [2],
    ),
    "context, other order": (
        formats.context(QUERY, swap=True),
        [1, 5, 2, 0, 4, 1, 0, 4, 5],
        [P] * 8 + [2],
    ),
}
# In the form of padding, direct questions are all answered at the third position.
PADDED = {
    "one_hop": (ONE_HOP, [0, 4, P], [P, P, 1]),
    "copy": (formats.copy_record("oslo"), [3, 7, P], [P, P, 3]),
}
LOSS = {"document": [0, 1, 0, 1], "written": [0, 0, 0, 1, 1]}
each_form = pytest.mark.parametrize("form", get_args(records.Form))
each_kind = pytest.mark.parametrize("name", BY_HAND)


def by_hand(name, form):
    return (BY_HAND | PADDED if form == "pad" else BY_HAND)[name]


@each_kind
@each_form
@pytest.mark.parametrize("extra", [0, 2])
def test_rows_by_hand(name, form, extra):
    record, tokens, targets = by_hand(name, form)
    rows = records.encode([record], VOCABS[form], len(tokens) + extra)
    loss = LOSS.get(name, [0] * (len(tokens) - 1) + [1])
    np.testing.assert_array_equal(rows.tokens, [tokens + [P] * extra])
    np.testing.assert_array_equal(rows.targets, [targets + [P] * extra])
    np.testing.assert_array_equal(rows.weights, [loss + [0] * extra])
    assert [x.dtype for x in rows] == [np.int32, np.int32, np.float32]
    assert records.row_length(record, form) == len(tokens)


@each_kind
@each_form
def test_the_answer_is_read_where_the_loss_begins(name, form):
    record, tokens, _ = by_hand(name, form)
    vocab = VOCABS[form]
    rows = records.encode([record], vocab, 9)
    where = records.answer_position(record, form)
    assert int(np.argmax(rows.weights[0])) == where
    assert VOCAB.words[rows.targets[0, where]] == record.answer[0]
    # A prompt alone is the row up to there.
    prompt = records.prompts([record], vocab, 9)
    np.testing.assert_array_equal(prompt[0, : where + 1], tokens[: where + 1])
    assert set(prompt[0, where + 1 :].tolist()) <= {P}


@pytest.mark.parametrize("name", ["one_hop", "copy"])
def test_the_form_decides_where_a_short_question_is_read(name):
    record = BY_HAND[name][0]
    read = [records.answer_position(record, form) for form in ("next-token", "pad")]
    assert read == [1, 2]


def test_two_hop_questions_are_read_at_one_place_in_both_forms():
    assert {records.answer_position(QUERY, form) for form in VOCABS} == {2}


@each_form
def test_rows_keep_their_order(form):
    batch = [BY_HAND[name][0] for name in ("copy", "two_hop", "one_hop")]
    rows = records.encode(batch, VOCABS[form], 3)
    read = [records.answer_position(record, form) for record in batch]
    assert rows.targets[np.arange(3), read].tolist() == [3, 2, 1]


def test_a_record_that_is_too_long_is_refused():
    with pytest.raises(
        ValueError, match="written record has 6 tokens, expected at mos"
    ):
        records.encode([formats.written(QUERY)], VOCAB, 4)


def test_words_have_one_meaning():
    with pytest.raises(ValueError, match="the same word twice: ann; entities and rel"):
        Vocab(("ann", "bob"), ("ann",), familiar=1)
    with pytest.raises(ValueError, match="the same word twice: <pad>"):
        Vocab((PAD,), ("spouse",), familiar=1)


def test_ids_are_positions():
    assert [VOCAB.ids[word] for word in VOCAB.words] == list(range(9))
