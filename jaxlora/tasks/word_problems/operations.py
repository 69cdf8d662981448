"""Operations of word problems: over integers modulo p, or over plain integers.

Modulo p, binary operations are add, subtract, multiply and the exact quotient, and
unary ones are permutations of 0 ... p - 1, so that no result can be guessed from
the operand's size. Ids stand in one order: known binary, known unary, new. A base is
trained on results of the known ones and sees the new ones as names only; how many
unary operations are known is how far their *role* is covered.
"""

import dataclasses
import math

import numpy as np

BINARY = ("add", "subtract", "multiply", "divide")
"""Names of the binary operations, in the order of their ids."""
ADD, SUBTRACT, MULTIPLY, DIVIDE = range(len(BINARY))
UNDEFINED = -1
"""The result of an operation that has none here, as a division by 0."""


@dataclasses.dataclass(frozen=True, eq=False)
class Operations:
    """Operations by id; make one with :func:`modular` or :func:`plain`."""

    size: int
    """Numbers are 0 ... size - 1: the modulus, or the limit of plain integers."""
    table: np.ndarray | None
    """int [O, size, size], results by (id, left, right); none for plain integers."""
    known_binary: int
    known_unary: int
    new: int
    """Number of new operations, all of them unary."""

    @property
    def count(self) -> int:
        """Number of operations, O."""
        return self.known_binary + self.known_unary + self.new

    @property
    def known(self) -> np.ndarray:
        """Ids of the operations whose results a base is trained on."""
        return np.arange(self.known_binary + self.known_unary)

    @property
    def unknown(self) -> np.ndarray:
        """Ids of the new operations, which a base sees as names only."""
        return np.arange(self.known_binary + self.known_unary, self.count)

    @property
    def unary(self) -> np.ndarray:
        """Does an operation ignore its right operand? As bool [O]."""
        return np.arange(self.count) >= self.known_binary

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each operation: ``add`` ..., ``known0`` ..., ``new0`` ..."""
        known = tuple(f"known{i}" for i in range(self.known_unary))
        new = tuple(f"new{i}" for i in range(self.new))
        return BINARY[: self.known_binary] + known + new


def modular(
    modulus: int,
    known_binary: int = 2,
    known_unary: int = 8,
    new: int = 6,
    seed: int = 0,
) -> Operations:
    """Returns operations over the integers modulo a number.

    New operations are the same at every ``known_unary``, so that coverage of their
    role can be varied alone.

    Args:
      modulus: p; a prime where exact quotients are among the binary operations.
      known_binary: how many of add, subtract, multiply, divide; 4 for quotients.
      known_unary: unary operations whose results a base is trained on.
      new: unary operations that it sees as names only.
      seed: of the permutations.

    Raises:
      ValueError: if the modulus is too small or no prime where it must be, or no
        operation is known.

    >>> ops = modular(5, known_binary=4, known_unary=1, new=1)
    >>> ops.names
    ('add', 'subtract', 'multiply', 'divide', 'known0', 'new0')
    >>> int(apply(ops, 3, 1, 2))  # 1 / 2 is 3, for 2 * 3 = 1 modulo 5
    3
    """
    _check(known_binary, known_unary, new)
    if modulus < 3:
        raise ValueError(
            f"modulus is {modulus}, expected at least 3: fewer numbers have too few "
            f"permutations for unary operations."
        )
    if known_binary == len(BINARY) and not _is_prime(modulus):
        raise ValueError(
            f"modulus is {modulus}, which is no prime, but exact quotients are asked "
            f"for (known_binary is 4); expected a prime, as 13, or known_binary 3."
        )
    rng = np.random.default_rng([seed, 14])
    # New ones are drawn first: what is known must not change them.
    permutations = [rng.permutation(modulus) for _ in range(new + known_unary)]
    unary = permutations[new:] + permutations[:new]
    tables = [*_binary(modulus)[:known_binary]]
    tables += [np.broadcast_to(x[:, None], (modulus, modulus)) for x in unary]
    table = np.stack(tables).astype(np.int64)
    return Operations(modulus, table, known_binary, known_unary, new)


def plain(limit: int = 1000, known_binary: int = 4) -> Operations:
    """Returns operations over plain integers: results are from 0 to ``limit`` - 1.

    What would be negative, too large or no integer is undefined; no operation is new.

    Args:
      limit: one more than the largest number.
      known_binary: how many of add, subtract, multiply, divide.

    Raises:
      ValueError: if the limit is below 10, or no operation is known.

    >>> apply(plain(), [1, 3, 3], [2, 9, 9], [5, 3, 2]).tolist()
    [-1, 3, -1]
    """
    _check(known_binary, 0, 0)
    if limit < 10:
        raise ValueError(f"limit is {limit}, expected at least 10 numbers.")
    return Operations(limit, None, known_binary, 0, 0)


def apply(operations: Operations, ids, left, right) -> np.ndarray:
    """Applies operations to operands, element by element.

    Args:
      operations: the set that the ids are of.
      ids: int, any shape.
      left: int of that shape; undefined ones stay so.
      right: int of that shape; unary operations ignore it.

    Returns:
      int of that shape, ``UNDEFINED`` where there is no result.
    """
    ids, left, right = map(np.asarray, (ids, left, right))
    defined = (left >= 0) & (right >= 0) & (ids >= 0)
    # Any valid index does where the result is dropped.
    ids, left, right = (np.where(defined, x, 0) for x in (ids, left, right))
    if operations.table is None:
        result = _plain(ids, left, right, operations.size)
    else:
        result = operations.table[ids, left, right]
    return np.where(defined, result, UNDEFINED)


def _plain(ids, left, right, limit: int) -> np.ndarray:
    divisor = np.maximum(right, 1)
    exact = (right > 0) & (left % divisor == 0)
    choices = (
        left + right,
        left - right,
        left * right,
        np.where(exact, left // divisor, UNDEFINED),
    )
    result = np.choose(ids, choices)
    return np.where((result >= 0) & (result < limit), result, UNDEFINED)


def _binary(modulus: int) -> list[np.ndarray]:
    """Tables [p, p] of the binary operations that exist modulo p."""
    x, n = np.indices((modulus, modulus))
    tables = [(x + n) % modulus, (x - n) % modulus, (x * n) % modulus]
    if _is_prime(modulus):
        inverses = [pow(i, -1, modulus) if i else 0 for i in range(modulus)]
        quotients = (x * np.array(inverses)[n]) % modulus
        tables.append(np.where(n == 0, UNDEFINED, quotients))
    return tables


def _check(known_binary: int, known_unary: int, new: int) -> None:
    if not 0 <= known_binary <= len(BINARY) or min(known_unary, new) < 0:
        raise ValueError(
            f"Got {known_binary} binary, {known_unary} unary and {new} new operations, "
            f"expected 0 to {len(BINARY)} binary ones ({', '.join(BINARY)}) and no "
            f"negative number."
        )
    if known_binary + known_unary == 0:
        raise ValueError(
            "Coverage excludes every operation (known_binary and known_unary are 0), "
            "expected at least 1: a base needs results to train on."
        )


def _is_prime(number: int) -> bool:
    divisors = range(2, math.isqrt(number) + 1)
    return number > 1 and all(number % divisor for divisor in divisors)
