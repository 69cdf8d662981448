"""Token ids of a user: a JSON file of rows of one length."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from jaxlora.strangers import data

EXAMPLE = "[[1, 5, 7], [1, 6, 8]]"
"""What such a file holds."""
BYTES = 2**26
"""Of such a file."""


def read(path: Path) -> np.ndarray:
    """Reads token ids [B, T], int64.

    Args:
      path: of a JSON file.

    Raises:
      ValueError: if the file is not a list of rows, of whole numbers, of one length.
    """
    rows = _json(path)
    fine = isinstance(rows, list) and rows and all(isinstance(r, list) for r in rows)
    if not fine:
        raise ValueError(
            f"{path} holds no rows of token ids, expected a list of lists, as in "
            f"{EXAMPLE}."
        )
    for i, row in enumerate(rows):
        if not row:
            raise ValueError(f"{path}: row {i} has no token id, expected at least 1.")
        if len(row) != len(rows[0]):
            raise ValueError(
                f"{path}: row {i} has {len(row)} token ids and row 0 has "
                f"{len(rows[0])}, expected rows of one length; run rows of another "
                f"length from a file of their own."
            )
        for j, value in enumerate(row):
            is_id = isinstance(value, int) and not isinstance(value, bool)
            if not is_id or not 0 <= value < 2**31:
                raise ValueError(
                    f"{path}: entry {j} of row {i} is {json.dumps(value)[:60]}, "
                    f"expected a token id, a whole number from 0."
                )
    return np.array(rows, np.int64)


def check(path: Path, tokens: np.ndarray, vocabulary: int) -> None:
    """Refuses token ids that a model does not have.

    Args:
      path: of their file, for messages.
      tokens: ids [B, T].
      vocabulary: V of the model.

    Raises:
      ValueError: naming the first of them, and where it is.
    """
    odd = np.argwhere(tokens >= vocabulary)
    if len(odd):
        row, at = odd[0]
        raise ValueError(
            f"{path}: entry {at} of row {row} is {tokens[row, at]}, but the model has "
            f"token ids 0 to {vocabulary - 1}; were they made by another tokenizer?"
        )


def _json(path: Path) -> Any:
    try:
        return data.read(path, most=BYTES, what=f"token ids, as in {EXAMPLE}")
    except OSError as error:
        raise ValueError(
            f"Cannot read {path}: {error.strerror or error}; expected a JSON file of "
            f"token ids, as in {EXAMPLE}."
        ) from None
