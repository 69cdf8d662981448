"""Parallel test sets: by instance, refused as training data, mean and spread."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxlora import tasks
from jaxlora.tasks import gsm
from jaxlora.tasks.gsm import symbolic

CANARY = "a canary of our own"


def _record(template, number, **changes):
    price = 3 + template + 10 * number
    record = {
        "id": template,
        "instance": number,
        "question": f"Two pens cost ${price} each. What do they cost together?",
        "answer": f"2 * {price} = {2 * price}\n#### {2 * price}",
        "original_id": 7,
        "canary": CANARY,
    }
    return record | changes


def _write(tmp_path, records):
    path = tmp_path / "pens.jsonl"
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def test_instances_are_test_sets_in_the_order_of_templates(tmp_path):
    cells = [(1, 1), (0, 0), (0, 1), (1, 0)]
    sets = gsm.sets(_write(tmp_path, [_record(*cell) for cell in cells]))
    assert list(sets) == [0, 1]
    assert [x.template for x in sets[0]] == [0, 1]
    assert [x.problem.answer for x in sets[1]] == [26, 28]
    assert {x.original for x in sets[0]} == {7}
    assert sets[0][0].problem.canary == CANARY


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([(0, 0), (0, 0)], r"pens\.jsonl:2: template 0 of instance 0 is there twice, "),
        ([(0, 0), (1, 0), (0, 1)], r"pens\.jsonl: instance 1 lacks template 1 \(1 mis"),
    ],
)
def test_sets_that_are_not_parallel_are_refused(tmp_path, records, message):
    path = _write(tmp_path, [_record(*cell) for cell in records])
    with pytest.raises(ValueError, match=message):
        gsm.sets(path)


@pytest.mark.parametrize("value", [None, -1, "0", 1.0, True])
def test_a_record_without_its_numbers_is_refused(tmp_path, value):
    path = _write(tmp_path, [_record(0, 0), _record(0, 1, instance=value)])
    message = r"pens\.jsonl:2: 'instance' is .*is this a file of GSM-Symbolic\?"
    with pytest.raises(ValueError, match=message):
        list(symbolic.read(path))


def test_a_canary_is_refused_as_training_data_and_fine_as_test_data(tmp_path):
    path = _write(tmp_path, [_record(0, 0), _record(0, 1)])
    message = r"pens\.jsonl:1: .* canary a canary of our own, .*licence .*test data"
    for skip_bad in (False, True):
        with pytest.raises(ValueError, match=message):
            tasks.read(path, skip_bad=skip_bad)
    read = tasks.read(path, tests=True)
    assert [x.canary for x in read.records] == [CANARY, CANARY]
    problem = next(symbolic.read(path)).problem
    with pytest.raises(ValueError, match=message):
        gsm.example(problem, "plain")


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 8), st.integers(1, 9), st.integers(0, 2**31))
def test_spread_is_that_of_the_shares_of_the_sets(sets, size, seed):
    rng = np.random.default_rng(seed)
    correct = rng.integers(2, size=(sets, size)).astype(bool)
    shares = correct.mean(axis=1)
    order = rng.permutation(sets * size)
    instances = np.repeat(np.arange(sets), size)
    spread = gsm.spread(correct.reshape(-1)[order], instances[order])
    np.testing.assert_allclose(spread.sets, shares)
    np.testing.assert_allclose(spread.mean, shares.mean())
    expected = np.sqrt(((shares - shares.mean()) ** 2).sum() / (sets - 1))
    np.testing.assert_allclose(spread.deviation, expected, atol=1e-12)


def test_spread_says_what_is_missing():
    with pytest.raises(ValueError, match="Got 1 test set, expected at least two"):
        gsm.spread([1, 0], [3, 3])
    with pytest.raises(ValueError, match=r"shape \(2,\) and instances of shape \(1,\)"):
        gsm.spread([1, 0], [3])
