"""Token ids of unequal length in one array, and lengths of which there are few."""

from collections.abc import Sequence

import numpy as np


def pad_left(
    ids: Sequence[Sequence[int]], pad_id: int, length: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Puts prompts into one array, flush right, as decoding wants them.

    Args:
      ids: B prompts, each of at least one token.
      pad_id: what fills the left.
      length: T; None for the longest prompt. See :func:`bucket`.

    Returns:
      Tokens int32 [B, T], and a mask [B, T], true where a prompt's token is.

    Raises:
      ValueError: if there is no prompt, or one is empty or longer than ``length``.

    >>> pad_left([[5, 6], [7]], pad_id=0)[0]
    array([[5, 6],
           [0, 7]], dtype=int32)
    """
    sizes = [len(row) for row in ids]
    if not sizes or min(sizes) == 0:
        raise ValueError(
            f"Got {len(sizes)} prompts, of which {sizes.count(0)} are empty; expected "
            f"one at least, each with a token."
        )
    length = max(sizes) if length is None else length
    if max(sizes) > length:
        raise ValueError(
            f"Prompt {sizes.index(max(sizes))} has {max(sizes)} tokens, expected at "
            f"most length = {length}."
        )
    tokens = np.full((len(sizes), length), pad_id, np.int32)
    mask = np.arange(length) >= length - np.asarray(sizes)[:, None]
    tokens[mask] = np.concatenate([np.asarray(row, np.int32) for row in ids])
    return tokens, mask


def bucket(n: int, least: int = 16) -> int:
    """Returns the power of two from ``least`` on that holds ``n`` tokens.

    A program is compiled for each length; rounded up, there are few of them, and at
    most half of a row is padding.

    >>> bucket(3), bucket(16), bucket(17)
    (16, 16, 32)
    """
    return max(least, 1 << max(0, n - 1).bit_length())
