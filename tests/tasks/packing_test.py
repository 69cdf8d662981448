"""Packed rows hold every example once, and nothing of one in another."""

import dataclasses
from collections import Counter

import grain
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from jaxlora.tasks import packing, text
from jaxlora.tasks.text import Example, Record


def _examples(sizes, seed=0):
    rng = np.random.default_rng(seed)
    made = []
    for i, n in enumerate(sizes):
        answer = rng.random(n) < 0.5
        answer[0] = False
        made.append(Example(np.append(i + 1, rng.integers(1, 99, n - 1)), answer))
    return made


def _reference(examples, length):
    """First fit, in NumPy, all rows open."""
    used, rows = [], []
    for tokens, answer in examples:
        n = len(tokens)
        row = next((i for i, u in enumerate(used) if u + n <= length), len(used))
        if row == len(used):
            used.append(0)
            rows.append(np.zeros((5, length)))
        at = slice(used[row], used[row] + n)
        rows[row][:, at] = [
            tokens,
            [*tokens[1:], 0],
            [*answer[1:], 0],
            [rows[row][3].max() + 1] * n,
            range(n),
        ]
        used[row] += n
    return np.stack(rows, axis=1)


def _unpacked(rows):
    """The examples in rows, as a multiset of (tokens, weights)."""
    found = Counter()
    for tokens, targets, weights, segments, positions in zip(*rows, strict=True):
        for k in range(1, segments.max() + 1):
            (at,) = np.nonzero(segments == k)
            assert at.tolist() == list(range(at[0], at[-1] + 1))
            assert positions[at].tolist() == list(range(len(at)))
            assert targets[at[:-1]].tolist() == tokens[at[1:]].tolist()
            assert (targets[at[-1]], weights[at[-1]]) == (0, 0)
            found[(*tokens[at].tolist(), *weights[at[:-1]].tolist())] += 1
        padding = segments == 0
        for column in (tokens, targets, weights, positions):
            assert not column[padding].any()
    return found


def _asked(examples):
    return Counter((*t.tolist(), *a[1:].astype(float).tolist()) for t, a in examples)


SIZES = st.lists(st.integers(1, 16), min_size=1, max_size=40)


@hypothesis.given(SIZES, st.integers(0, 99), st.sampled_from([1, 3, 64]))
@hypothesis.settings(max_examples=25, deadline=None)
def test_every_example_is_there_once_and_no_target_crosses(sizes, seed, open_rows):
    examples = _examples(sizes)
    rows = packing.pack(examples, 16, seed, open_rows=open_rows)
    assert _unpacked(rows) == _asked(examples)
    counts = packing.report(rows)
    assert counts.examples == len(sizes)
    assert counts.tokens == sum(sizes)
    assert counts.answer_tokens == sum(int(a.sum()) for _, a in examples)
    assert counts.efficiency == pytest.approx(sum(sizes) / rows.tokens.size)
    assert counts.rows == len(rows.tokens)


@pytest.mark.parametrize("seed", [0, 7])
def test_rows_are_those_of_first_fit_in_numpy(seed):
    examples = _examples(np.random.default_rng(1).integers(1, 30, 60))
    order = list(grain.MapDataset.source(range(60)).seed(seed).shuffle())
    assert order != sorted(order)
    expected = _reference([examples[i] for i in order], 32)
    rows = packing.pack(examples, 32, seed)
    for got, want, name in zip(rows, expected, rows._fields, strict=True):
        np.testing.assert_array_equal(got, want, err_msg=name)
        assert got.dtype == (np.float32 if name == "weights" else np.int32)


def test_the_seed_decides_the_order():
    examples = _examples([5] * 20)
    first, again, other = (packing.pack(examples, 16, s).tokens for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_more_open_rows_waste_less():
    examples = _examples(np.random.default_rng(2).integers(1, 30, 300))
    shares = [
        packing.report(packing.pack(examples, 32, 0, open_rows=n)).efficiency
        for n in (1, packing.OPEN_ROWS)
    ]
    assert shares[0] < 0.8 < 0.9 < shares[1]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([], "no example to pack"),
        ([3, 17], "Example 1 has 17 tokens, expected 1 to 16"),
        ([3, 0], "Example 1 has 0 tokens"),
    ],
)
def test_what_cannot_be_packed_is_refused(sizes, message):
    examples = [Example(np.ones(n, int), np.zeros(n, bool)) for n in sizes]
    with pytest.raises(ValueError, match=message):
        packing.pack(examples, 16, 0)


@pytest.mark.parametrize("batch", [1, 4, 7])
def test_every_epoch_has_every_row_once_in_another_order(batch):
    rows = packing.pack(_examples([7] * 10), 7, seed=3)
    data = packing.batches(rows, batch, seed=3)
    steps = 30 // batch + 1
    taken = packing.Rows(
        *map(np.concatenate, zip(*(data[k] for k in range(steps)), strict=True))
    )
    assert data[0].tokens.shape == (batch, 7)
    epochs = [taken.tokens[i : i + 10, 0].tolist() for i in (0, 10, 20)]
    assert [sorted(e) for e in epochs] == [list(range(1, 11))] * 3
    assert len(set(map(tuple, epochs))) == 3
    order = taken.tokens[:, 0]
    stored = rows.tokens[:, 0].tolist()
    for column, every in zip(taken, rows, strict=True):
        expected = [every[stored.index(i)] for i in order]
        np.testing.assert_array_equal(column, expected)


def test_batches_resume_by_their_number_and_by_state():
    rows = packing.pack(_examples(range(1, 17)), 16, seed=0)
    first, again = (packing.batches(rows, 3, seed=5) for _ in range(2))
    expected = [first[k].tokens for k in range(8)]
    np.testing.assert_array_equal(again[7].tokens, expected[7])
    stream = iter(first.to_iter_dataset(grain.ReadOptions(num_threads=0)))
    for _ in range(4):
        next(stream)
    fresh = iter(again.to_iter_dataset(grain.ReadOptions(num_threads=0)))
    fresh.set_state(stream.get_state())
    np.testing.assert_array_equal(next(fresh).tokens, expected[4])
    other = packing.batches(rows, 3, seed=6)
    assert any((other[k].tokens != expected[k]).any() for k in range(8))


@pytest.mark.parametrize(("batch", "n"), [(0, 1), (2, 0)])
def test_batches_of_nothing_are_refused(batch, n):
    rows = packing.pack(_examples([3]), 4, seed=0)
    with pytest.raises(ValueError, match=f"batch = {batch} of {n} rows"):
        packing.batches(packing.Rows(*(x[:n] for x in rows)), batch, seed=0)


def test_from_records_to_rows(chatml):
    """Sums in the form of GSM8K, by a chat template, to what is learnt of a row."""
    lines = [
        {
            "question": f"Ann has {i} pens and buys 2. How many?",
            "answer": f"#### {i + 2}",
        }
        for i in range(12)
    ]
    records = [text.record(line, f"f:{i}") for i, line in enumerate(lines)]
    found = text.encode(records, chatml, 256)
    rows = packing.pack(found.examples, 256, seed=0)
    learnt = chatml.decode(rows.targets[rows.weights > 0], skip_special=False)
    said = learnt.split("<|im_end|>")[:-1]
    assert sorted(said) == sorted(line["answer"] for line in lines)
    assert packing.report(rows).rows < 12
    assert dataclasses.asdict(packing.report(rows))["examples"] == 12
    assert isinstance(records[0], Record)


def test_what_all_begin_with_is_once_in_a_row():
    opening = np.array([7, 8, 9])
    plain = _examples([2, 5, 3, 4, 6])
    begun = [
        Example(np.append(opening, x), np.append([False] * 3, a)) for x, a in plain
    ]
    rows = packing.pack(begun, 12, 0, shared=3)
    assert (rows.tokens[:, :3] == opening).all()
    assert (rows.segments[:, :3] == -1).all()
    assert not rows.weights[:, :3].any()
    assert (rows.positions[:, :3] == np.arange(3)).all()
    rest = packing.pack(plain, 9, 0)
    moved = [x[:, 3:] for x in rows]
    moved[4] = np.where(moved[3] > 0, moved[4] - 3, 0)
    for got, want in zip(moved, rest, strict=True):
        np.testing.assert_array_equal(got, want)
    assert packing.report(rows).examples == 5


def test_examples_that_begin_otherwise_are_refused():
    alike = [Example(np.array([7, 1, 2]), np.array([False, False, True]))] * 2
    packing.pack(alike, 8, 0, shared=1)
    with pytest.raises(ValueError, match="Example 0 does not begin with the 2 tokens"):
        packing.pack(alike, 8, 0, shared=2)
    other = Example(np.array([6, 1, 2]), np.array([False, False, True]))
    with pytest.raises(ValueError, match="Example 2 does not begin with the 1 tokens"):
        packing.pack([*alike, other], 8, 0, shared=1)
