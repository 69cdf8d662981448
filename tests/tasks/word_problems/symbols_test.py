"""Rows by hand in every template, and 10,000 problems there and back."""

import numpy as np
import pytest

from jaxlora.tasks.word_problems import graph, operations, reading, symbols, templates
from jaxlora.tasks.word_problems.templates import R_IN_DIGITS, R, S, Template
from jaxlora.tasks.word_problems.vocab import Vocab, prompt_length, row_length
from random_problems import random_chains

OPS = operations.modular(13)
VOCAB = Vocab(OPS, templates.ALL)
# 9 + 6 = 2, then a permutation of it.
TWO = graph.chains(OPS, np.array([[0, 2]]), np.array([9]), np.array([[6, 0]]))
LAST = int(OPS.table[2, 2, 0])
EVERY = range(len(templates.ALL) + 1)


def solutions(rows, vocab, width):
    """What follows EQ, padded, as decoding would give it."""
    where = rows.prompt_lengths[:, None] - 1 + np.arange(width)
    padded = np.pad(rows.targets, ((0, 0), (0, width)), constant_values=vocab.pad)
    return np.take_along_axis(padded, where, axis=1)


@pytest.mark.parametrize(
    ("template", "step"),
    [
        (Template(0, "operator-first", "after"), "add/0 6 2"),
        (Template(1, "operand-first", "after"), "6 add/1 2"),
        (Template(1, "operator-first", "before"), "2 add/1 6"),
        (Template(0, "operand-first", "before"), "2 6 add/0"),
        (R, "6/1 add/1 2/1"),
        (Template(0, "operator-first", "after", 1), "add/0 6/1 2/1"),
    ],
)
def test_a_row_by_hand(template, step):
    number = VOCAB.number(template)
    rows = symbols.render(TWO, number, VOCAB, row_length(2))
    shown = [VOCAB.words[i] for i in rows.tokens[0]]
    prompt = f"<{template.name}> 9 add 6 known0 _ ="
    assert " ".join(shown[:10]) == f"{prompt} {step}"
    assert rows.prompt_lengths.tolist() == [prompt_length(2)] == [7]
    assert rows.weights[0].tolist() == [0] * 6 + [1] * 7
    assert VOCAB.words[rows.targets[0, -1]] == "<end>"
    np.testing.assert_array_equal(rows.targets[0, 6:-1], rows.tokens[0, 7:])
    assert [x.dtype for x in rows[:3]] == [np.int32, np.int32, np.float32]


def test_an_answer_alone_by_hand():
    rows = symbols.render(TWO, VOCAB.answer_only, VOCAB, row_length(2))
    shown = [VOCAB.words[i] for i in rows.tokens[0]]
    expected = f"<answer-only> 9 add 6 known0 _ = {LAST}" + 5 * " <pad>"
    assert " ".join(shown) == expected
    assert rows.targets[0, 6:9].tolist() == [LAST, VOCAB.end, VOCAB.pad]
    assert rows.weights[0].tolist() == [0] * 6 + [1] * 2 + [0] * 5


def test_ten_thousand_problems_read_back_as_the_graph_says():
    problems = random_chains(OPS, 10_000)
    formats = np.random.default_rng(1).choice(EVERY, len(problems))
    rows = symbols.render(problems, formats, VOCAB, row_length(3))
    written = solutions(rows, VOCAB, 10)
    steps = formats != VOCAB.answer_only
    read = reading.steps(written, formats, VOCAB)
    expected = symbols.steps(problems, VOCAB)
    np.testing.assert_array_equal(read[steps], expected[steps])
    assert (read[~steps] == symbols.UNREAD).all()
    np.testing.assert_array_equal(
        reading.answers(written, formats, VOCAB), graph.answers(problems)
    )


def test_prompts_differ_between_templates_in_the_first_token_only():
    rows = [symbols.render(TWO, f, VOCAB, 13).tokens[0, :7] for f in EVERY]
    assert len({int(row[0]) for row in rows}) == len(EVERY)
    assert len({row[1:].tobytes() for row in rows}) == 1


def test_results_of_new_operations_carry_no_weight():
    new = int(OPS.unknown[0])
    three = graph.chains(
        OPS, np.array([[0, new, 0]]), np.array([1]), np.ones((1, 3), int)
    )
    blinded = graph.blind(three, OPS, np.random.default_rng(0))
    steps = symbols.render(blinded, 0, VOCAB, 18, OPS.unknown)
    assert steps.weights[0, 8:].tolist() == [1, 1, 1, 1, 1, 0, 1, 1, 1, 1]
    assert symbols.render(blinded, 0, VOCAB, 18).weights[0, 8:].all()
    direct = symbols.render(blinded, VOCAB.answer_only, VOCAB, 18, OPS.unknown)
    assert direct.weights[0, 8:11].tolist() == [0, 1, 0]


def test_a_solution_in_another_template_does_not_parse():
    vocab = Vocab(OPS)
    written = solutions(symbols.render(TWO, vocab.number(S), vocab, 13), vocab, 7)
    read = reading.steps(written, vocab.number(R), vocab)
    # Neither words nor numbers nor order fit.
    assert (read == symbols.UNREAD).all()
    assert reading.answers(written, vocab.number(R), vocab).tolist() == [-1]
    digits = Vocab(OPS, (S, R_IN_DIGITS))
    written = solutions(symbols.render(TWO, 0, digits, 13), digits, 7)
    read = reading.steps(written, 1, digits)
    # The result stands where both templates have it.
    assert (read[0, :, 0] == symbols.UNREAD).all()
    assert read[0, :, 2].tolist() == [2, LAST]


def test_ids_are_apart_and_each_has_its_word():
    vocab = Vocab(OPS, (S, R))
    assert len(set(vocab.words)) == len(vocab.words) == vocab.size
    name = vocab.words.__getitem__
    assert (name(vocab.pad), name(vocab.named)) == ("<pad>", "0/1")
    assert (name(vocab.named + vocab.blank), vocab.size) == ("_/1", vocab.named + 14)
    # Digits, the names of numbers, and what an answer alone is written in.
    first = vocab.first_number(np.array([0, 1, vocab.answer_only]))
    assert first.tolist() == [0, vocab.named, 0]
    digits = Vocab(OPS, (S, R_IN_DIGITS))
    assert digits.words[digits.named :] == vocab.words[vocab.named :]


@pytest.mark.parametrize(
    ("said", "answer", "step"),
    [
        ("6/1 add/1 2/1 <end>", 2, [0, 6, 2]),
        ("_/1 known0/1 5/1 <end>", 5, [2, 13, 5]),
        ("6 add/1 2/1 <end>", 2, [0, -1, 2]),  # a digit is no name
        ("6/1 add/1 2 <end>", -1, [0, 6, -1]),
        ("6/1 add/1 _/1 <end>", -1, [0, 6, -1]),  # a blank is no result
        ("6/1 add/0 2/1 <end>", 2, [-1, 6, 2]),
    ],
)
def test_solutions_with_named_numbers(said, answer, step):
    vocab = Vocab(OPS, (S, R))
    tokens = np.array([[vocab.words.index(word) for word in said.split()]])
    assert reading.answers(tokens, 1, vocab).tolist() == [answer]
    assert reading.steps(tokens, 1, vocab).tolist() == [[step]]


@pytest.mark.parametrize(
    ("said", "answer", "unread"),
    [
        ("add/0 6 2 known0/0 _ 5 <end>", 5, 0),
        ("add/0 6 2 <end> known0/0 _ 5", 2, 3),  # nothing is read behind the end
        ("add/0 6 2 known0/0 _ 5 5", -1, 0),  # no end, no answer
        ("add/0 6 2 known0/0 _ 5", -1, 0),
        ("add/0 6 <end> <pad> <pad> <pad> <pad>", -1, 4),
        ("<end> 6 2 known0/0 _ 5 <end>", -1, 6),
        ("add/0 6 = known0/0 _ _ <end>", -1, 2),
        ("add/0 6 2 add/1 _ 5 <end>", 5, 1),  # a word of the other vocabulary
    ],
)
def test_what_a_model_may_write(said, answer, unread):
    vocab = Vocab(OPS)
    tokens = np.array([[vocab.words.index(word) for word in said.split()]])
    assert reading.answers(tokens, 0, vocab).tolist() == [answer]
    assert (reading.steps(tokens, 0, vocab) == symbols.UNREAD).sum() == unread


def test_bad_requests():
    with pytest.raises(
        ValueError, match=r"\[3\], expected 0 words0.* or 2 answer only"
    ):
        symbols.render(TWO, 3, Vocab(OPS), 13)
    with pytest.raises(ValueError, match=r"2 operations has rows of 13 tokens, .* 12"):
        symbols.render(TWO, 0, VOCAB, 12)
    with pytest.raises(ValueError, match="No template words1/operator-first/before"):
        Vocab(OPS).number(Template(1, "operator-first", "before"))
    tree = graph.Problems(**{**vars(TWO), "right": np.array([[~1, 0]])})
    with pytest.raises(ValueError, match="Problem 0 is no chain"):
        symbols.render(tree, 0, VOCAB, 13)
