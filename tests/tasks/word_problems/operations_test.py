"""Tables of operations, and which sets of them are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxlora.tasks.word_problems import operations
from jaxlora.tasks.word_problems.operations import UNDEFINED


@pytest.mark.parametrize("p", [5, 13])
def test_quotients_undo_products(p):
    ops = operations.modular(p, known_binary=4)
    x, n = np.indices((p, p))
    product = operations.apply(ops, np.full_like(x, 2), x, n)
    back = operations.apply(ops, np.full_like(x, 3), product, n)
    np.testing.assert_array_equal(back[:, 1:], x[:, 1:])
    assert (back[:, 0] == UNDEFINED).all()


def test_unary_operations_are_different_permutations():
    ops = operations.modular(13)
    assert len({x.tobytes() for x in ops.table[ops.unary]}) == 14
    for table in ops.table[ops.unary]:
        assert (table == table[:, :1]).all()  # the second operand is ignored
        assert sorted(table[:, 0].tolist()) == list(range(13))


def test_new_operations_do_not_depend_on_what_is_known():
    full, none = operations.modular(13), operations.modular(13, known_unary=0)
    np.testing.assert_array_equal(full.table[full.unknown], none.table[none.unknown])
    other = operations.modular(13, seed=1)
    assert (other.table[other.unknown] != full.table[full.unknown]).any()


def test_names_known_and_new():
    ops = operations.modular(13, known_binary=2, known_unary=1, new=2)
    assert ops.names == ("add", "subtract", "known0", "new0", "new1")
    assert ops.known.tolist() == [0, 1, 2]
    assert ops.unknown.tolist() == [3, 4]
    assert ops.unary.tolist() == [False, False, True, True, True]


@given(st.integers(0, 3), st.integers(0, 99), st.integers(0, 99))
def test_plain_results_are_exact_and_in_range(op, x, n):
    result = int(operations.apply(operations.plain(100), op, x, n))
    exact = [x + n, x - n, x * n, x / n if n else -1][op]
    inside = 0 <= exact < 100 and exact == int(exact)
    assert result == (exact if inside else UNDEFINED)


def test_undefined_operands_stay_undefined():
    ops = operations.modular(13)
    assert (
        operations.apply(ops, [0, 0, -1], [-1, 2, 2], [1, -1, 2]).tolist() == [-1] * 3
    )


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"modulus": 12, "known_binary": 4}, "12, which is no prime"),
        ({"modulus": 2}, "modulus is 2, expected at least 3"),
        ({"modulus": 13, "known_binary": 0, "known_unary": 0}, "excludes every op"),
        ({"modulus": 13, "known_binary": 5}, r"expected 0 to 4 binary ones \(add, "),
        ({"modulus": 13, "new": -1}, "-1 new operations"),
    ],
)
def test_bad_sets(asked, message):
    with pytest.raises(ValueError, match=message):
        operations.modular(**asked)


def test_no_prime_is_needed_without_quotients():
    assert operations.modular(12, known_binary=3).names[2] == "multiply"


def test_bad_plain_sets():
    with pytest.raises(ValueError, match="limit is 9"):
        operations.plain(9)
    with pytest.raises(ValueError, match="excludes every operation"):
        operations.plain(100, known_binary=0)
