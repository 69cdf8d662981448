"""What each item's answer logits say: one value per item, so that all can be pooled.

Letters: N items, V tokens in the vocabulary, C candidate answers per item. A group
is the people of one cell and library; answers are shuffled within it. Everything
runs on the host in float64. A row of logits that holds NaN predicts nothing: its
prediction is -1, its rank the worst, its loss NaN.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import ArrayLike
from scipy import special


class ErrorType(IntEnum):
    """What an item's prediction turned out to be; the first that fits wins.

    The errors 1 to 4 are in the order of ``schema.ERROR_METRICS``.
    """

    CORRECT = 0
    BRIDGE = 1
    RELATION2 = 2
    OLD = 3
    OTHER = 4


def predict(logits: ArrayLike) -> np.ndarray:
    """Returns the best token [N] over the whole vocabulary, -1 for a row with NaN.

    Args:
      logits: [N, V] at the answer position.

    >>> predict([[0.0, 2.0, 1.0], [3.0, 2.0, float("nan")]])
    array([ 1, -1])
    """
    logits_NxV = _matrix(logits)
    return np.where(np.isnan(logits_NxV).any(1), -1, np.argmax(logits_NxV, axis=1))


def rank(logits: ArrayLike, answers: ArrayLike, candidates: ArrayLike) -> np.ndarray:
    """Returns the rank [N] of the answer among its candidates, 1 to C; 1 is best.

    A candidate that ties with the answer counts as better, so a model that says
    the same of every token has rank C, not 1.

    Args:
      logits: [N, V] at the answer position.
      answers: [N] token ids.
      candidates: [N, C] token ids, distinct in each row, the answer among them.

    Raises:
      ValueError: if a token is outside the vocabulary, a row repeats a candidate, or
        the answer is not among the candidates.

    >>> rank([[0.0, 2.0, 1.0], [5.0, 5.0, 5.0]], [2, 2], [[1, 2], [1, 2]])
    array([2, 2])
    """
    logits_NxV = _matrix(logits)
    answers_N = _tokens("answers", answers, logits_NxV)
    candidates_NxC = _tokens("candidates", candidates, logits_NxV, ndim=2)
    _check_candidates(answers_N, candidates_NxC)
    own_Nx1 = np.take_along_axis(logits_NxV, answers_N[:, None], axis=1)
    others_NxC = np.take_along_axis(logits_NxV, candidates_NxC, axis=1)
    # "not below" rather than "above or equal": NaN then ranks last.
    return (~(others_NxC < own_Nx1)).sum(1)


def loss(logits: ArrayLike, answers: ArrayLike) -> np.ndarray:
    """Returns the cross-entropy [N] of the answer over the whole vocabulary, in nats.

    Args:
      logits: [N, V] at the answer position.
      answers: [N] token ids.

    >>> loss([[0.0, 0.0]], [1])
    array([0.69314718])
    """
    logits_NxV = _matrix(logits)
    answers_N = _tokens("answers", answers, logits_NxV)
    losses_NxV = -special.log_softmax(logits_NxV, axis=1)
    return losses_NxV[np.arange(len(answers_N)), answers_N]


def shuffled_loss(
    logits: ArrayLike, answers: ArrayLike, groups: ArrayLike
) -> np.ndarray:
    """Returns the expected loss [N] if each item had another person's answer.

    The exact mean over the answers of all other people of the item's group, so no
    random shuffle is needed. ``loss - shuffled_loss`` is below 0 where the model
    tells people apart, and 0 where it has only learned which answers are common.

    Args:
      logits: [N, V] at the answer position.
      answers: [N] token ids.
      groups: [N] labels; items of equal label are people of the same group.

    Raises:
      ValueError: if a group has one person only, so that nobody is left to swap with.

    >>> shuffled_loss([[0.0, 0.0], [0.0, 0.0]], [0, 1], [0, 0])
    array([0.69314718, 0.69314718])
    """
    logits_NxV = _matrix(logits)
    answers_N = _tokens("answers", answers, logits_NxV)
    others_NxN = _others(groups, len(answers_N))
    loss_NxN = -special.log_softmax(logits_NxV, axis=1)[:, answers_N]
    return np.where(others_NxN, loss_NxN, 0).sum(1) / others_NxN.sum(1)


def chance(predictions: ArrayLike, answers: ArrayLike, groups: ArrayLike) -> np.ndarray:
    """Returns the expected accuracy [N] if each item had another person's answer.

    The share of the other people of the group whose answer is the item's prediction,
    exact as in ``shuffled_loss``. Its mean is 1/N for a model that always says the
    answer of one of N people, and 0 for a model that is always right or says
    something that is nobody's answer.

    Args:
      predictions: [N] token ids; -1 where there is none.
      answers: [N] token ids.
      groups: [N] labels; items of equal label are people of the same group.

    Raises:
      ValueError: if a group has one person only, or the lengths differ.

    >>> chance([7, 7, 7], [7, 8, 9], [0, 0, 0]).tolist()
    [0.0, 0.5, 0.5]
    """
    predictions_N = _vector("predictions", predictions, None)
    answers_N = _vector("answers", answers, len(predictions_N))
    others_NxN = _others(groups, len(answers_N))
    same_NxN = predictions_N[:, None] == answers_N[None, :]
    return (others_NxN & same_NxN).sum(1) / others_NxN.sum(1)


def error_types(
    predictions: ArrayLike,
    answers: ArrayLike,
    bridge: ArrayLike,
    relation2_of_a: ArrayLike,
    old: ArrayLike,
) -> np.ndarray:
    """Returns an ``ErrorType`` code [N] for each item; the first that fits wins.

    Args:
      predictions: [N] token ids; -1 where there is none.
      answers: [N] token ids of C.
      bridge: [N] token ids of B.
      relation2_of_a: [N] what the second relation gives for A, or -1 if undefined.
      old: [N] what the base alone says, or -1 if undefined.

    Raises:
      ValueError: if the lengths differ.

    >>> error_types([4, 5, 6, 7, 8], [4] * 5, [5] * 5, [6] * 5, [7] * 5).tolist()
    [0, 1, 2, 3, 4]
    """
    predictions_N = _vector("predictions", predictions, None)
    named = {"answers": answers, "bridge": bridge, "relation2_of_a": relation2_of_a}
    vectors = [
        _vector(name, tokens, len(predictions_N))
        for name, tokens in (named | {"old": old}).items()
    ]
    # The codes are in the order of the vectors, and OTHER is the last.
    fits = [(predictions_N >= 0) & (predictions_N == tokens_N) for tokens_N in vectors]
    return np.select(fits, [*range(len(fits))], int(ErrorType.OTHER))


def _others(groups: ArrayLike, n: int) -> np.ndarray:
    groups_N = np.asarray(groups)
    if groups_N.shape != (n,):
        raise ValueError(f"Got groups of shape {groups_N.shape}, expected ({n},).")
    others_NxN = groups_N[:, None] == groups_N[None, :]
    np.fill_diagonal(others_NxN, False)
    alone = groups_N[~others_NxN.any(1)]
    if alone.size:
        raise ValueError(
            f"Group {alone[0]!s} has one person only, expected at least two: answers "
            f"are shuffled among the people of a group."
        )
    return others_NxN


def _matrix(logits: ArrayLike) -> np.ndarray:
    logits_NxV = np.asarray(logits).astype(np.float64)
    if logits_NxV.ndim != 2 or 0 in logits_NxV.shape:
        raise ValueError(
            f"Got logits of shape {logits_NxV.shape}, expected [N items, V tokens] at "
            f"the answer position, and at least one item."
        )
    return logits_NxV


def _vector(name: str, tokens: ArrayLike, n: int | None) -> np.ndarray:
    tokens_N = np.asarray(tokens)
    if tokens_N.ndim != 1 or tokens_N.dtype.kind not in "iu":
        raise ValueError(
            f"Got {name} of shape {tokens_N.shape} and type {tokens_N.dtype}, expected "
            f"a vector of integer token ids."
        )
    if n is not None and len(tokens_N) != n:
        raise ValueError(f"Got {len(tokens_N)} {name} for {n} items, expected {n}.")
    return tokens_N.astype(np.int64)


def _tokens(
    name: str, tokens: ArrayLike, logits_NxV: np.ndarray, ndim: int = 1
) -> np.ndarray:
    N, V = logits_NxV.shape
    ids = np.asarray(tokens)
    if ids.ndim != ndim or len(ids) != N or ids.dtype.kind not in "iu":
        raise ValueError(
            f"Got {name} of shape {ids.shape} and type {ids.dtype} for {N} items, "
            f"expected integers with {ndim} dimension(s), the first of size {N}."
        )
    if ids.size and (ids.min() < 0 or ids.max() >= V):
        raise ValueError(
            f"Got {name} from {ids.min()} to {ids.max()}, expected token ids in "
            f"[0, {V})."
        )
    return ids.astype(np.int64)


def _check_candidates(answers_N: np.ndarray, candidates_NxC: np.ndarray) -> None:
    ordered = np.sort(candidates_NxC, axis=1)
    if (ordered[:, 1:] == ordered[:, :-1]).any():
        raise ValueError("A row of candidates names a token twice; expected a set.")
    missing = np.flatnonzero(~(candidates_NxC == answers_N[:, None]).any(1))
    if missing.size:
        i = missing[0]
        raise ValueError(
            f"Item {i}: answer {answers_N[i]} is not among its candidates "
            f"{candidates_NxC[i].tolist()}; is the item in another group?"
        )
