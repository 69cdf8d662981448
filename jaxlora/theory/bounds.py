"""How recall falls: closed forms for memories of finite width and rank.

Everywhere the same picture. What is written for a fact has a component x on the right
answer, with mean ``signal`` and spread ``sigma``, and some energy on other directions.
A rival answer has an overlap p with the right one, so that its logit is ``p x``, plus
one coordinate of the rest; in some bounds its own key adds k, with ``k p`` on the right
answer. It loses if ``(1 - p)(x - k)`` is above that coordinate, so that

    recall = E prod_rivals E_p F(x / rival(p)),    x = signal + sigma t,  t ~ N(0, 1),
    rival(p)^2 = key^2 + (energy / D) (1 + p) / (1 - p),

where p is one coordinate of a random direction, and F the law of a sum of a Gaussian
and such a coordinate. The outer mean is over t and over the energy, which varies as a
chi square of D. What differs is where signal, energy and key come from. Keys are random
directions in M dimensions, answers random directions in D.

Letters: N facts, M features, D width of the answers, R rank.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import special

_NODES, _SHARES = np.polynomial.hermite_e.hermegauss(40)
_SHARES = _SHARES / _SHARES.sum()
_QUANTILES = (np.arange(20) + 0.5) / 20


def coordinate(x: np.ndarray, width: np.ndarray | float) -> np.ndarray:
    """Returns log F(x): F is the law of sqrt(D) times one coordinate of a direction.

    Args:
      x: where F is asked for, any shape.
      width: D, broadcast to x; need not be an integer.

    >>> coordinate(np.asarray([0.0]), 64).round(3).tolist()
    [-0.693]
    """
    cosine = np.clip(np.asarray(x) / np.sqrt(width), -1.0, 1.0)
    tail = special.betainc((width - 1) / 2, 0.5, 1 - cosine**2) / 2
    above = np.log1p(-np.minimum(tail, 0.5))
    return np.where(cosine > 0, above, np.log(np.maximum(tail, 1e-300)))


def beats(signal: float, sigma: float, rivals: int) -> float:
    """Returns the chance that a Gaussian of mean ``signal`` beats standard ones.

    Args:
      signal: mean of the right answer's logit.
      sigma: its spread, >= 0.
      rivals: how many standard Gaussians it must beat.

    >>> (round(beats(0.0, 1.0, 1), 3), round(beats(0.0, 1.0, 9), 3))
    (0.5, 0.1)
    """
    log = rivals * special.log_ndtr(signal + sigma * _NODES)
    return float(np.sum(_SHARES * np.exp(log)))


def recall(
    signal: float,
    sigma: float,
    energy: float,
    rivals: Sequence[tuple[float, int]],
    width: int,
) -> float:
    """Returns the chance that the right answer has the largest logit; see the module.

    Args:
      signal: mean of what is written on the right answer.
      sigma: its spread, >= 0.
      energy: mean square of what is written on other directions.
      rivals: (spread of the key's part, count) of each kind of rival.
      width: D.

    >>> round(recall(0.0, 0.0, 1.0, [(0.0, 1)], 64), 3)
    0.5
    """
    # Axes: the spread of the right logit, the energy, the overlap with a rival.
    x = (signal + sigma * _NODES)[:, None, None]
    # The law of one coordinate of a random direction in D dimensions.
    overlap, chance = special.roots_gegenbauer(24, (width - 2) / 2)
    overlap = overlap[None, None, :]
    # A sum of many random directions has the square length of a Gaussian vector.
    spreads = special.gammaincinv(width / 2, _QUANTILES)[None, :, None] * 2 / width
    log = np.zeros((len(_NODES), len(_QUANTILES)))
    for key, count in rivals:
        rest = energy * spreads / width * (1 + overlap) / (1 - overlap)
        spread = np.maximum(rest + key**2, 1e-30)
        # The sum of a coordinate and a Gaussian, by its fourth cumulant.
        size = (width + 1) / np.maximum(rest / spread, 0.1) ** 2 - 2
        loses = np.exp(coordinate(x / np.sqrt(spread), size))
        log += count * np.log(np.maximum(loses @ chance / chance.sum(), 1e-300))
    return min(float(np.sum(_SHARES * np.exp(log).mean(axis=1))), 1.0)


def outer_products(facts: int, hidden: int, width: int) -> float:
    """Recall of ``W = sum_i k_i e_i^T``: falls near N = M D / (2 ln N).

    Two keys overlap by N(0, 1/M): crosstalk has the energy ``(N - 1) / M``, spread over
    D directions, and a rival gets ``1/M`` from the overlap of its own key.

    Args:
      facts: N.
      hidden: M.
      width: D.

    >>> outer_products(10, 512, 512) > 0.99 > 0.5 > outer_products(20000, 64, 64)
    True
    """
    cross = (facts - 1) / hidden
    sigma, rivals = math.sqrt(cross / width), [(1 / math.sqrt(hidden), facts - 1)]
    return recall(1.0, sigma, cross, rivals, width)


def least_squares(facts: int, hidden: int, width: int) -> float:
    """Recall of the memory of least squares: exact to N = M, then falls as q = M / N.

    Beyond, the fit is the projection H on the span of the features: ``H_jj = q`` and
    the rest of a row has the energy ``q (1 - q)``. With ``d^2 = D q / (1 - q)`` it
    holds until d^2 is near 2 ln N: again at N of order M D / (2 ln N).

    Args:
      facts: N.
      hidden: M.
      width: D.

    >>> least_squares(64, 64, 64) > 0.999
    True
    """
    q = min(hidden / facts, 1.0)
    rest = q * (1 - q)
    rivals = [(math.sqrt(rest / facts), facts - 1)]
    return recall(q, math.sqrt(rest / width), rest, rivals, width)


def interference(edits: int, hidden: int) -> float:
    """The squared length of ``K^+^T k'`` for a key k' that was not edited.

    Of every edit a share leaks into k'. For keys that are random directions of length 1
    the shares' squares add up to

        E tr(K K^T)^-1 / M = N (M - 2) / (M (M - N - 1)),

    with a pole at N = M. For Gaussian rows an entry of the diagonal of the inverse has
    the mean 1 / (M - N - 1) (inverse Wishart). Such an entry is ``1 / |row|^2`` times
    that of unit rows; length and direction of a Gaussian row are independent, and the
    mean of ``1 / |row|^2`` is 1 / (M - 2).

    Args:
      edits: N.
      hidden: M, above N + 1.

    Raises:
      ValueError: if N < M - 1 fails.

    >>> interference(4, 10)
    0.64
    """
    if edits >= hidden - 1:
        raise ValueError(
            f"{edits} edits at width {hidden}: N < M - 1 fails, and the mean of the "
            f"leak is infinite there."
        )
    return edits * (hidden - 2) / (hidden * (hidden - edits - 1))


def retention(edits: int, hidden: int, width: int, others: int) -> float:
    """Share of facts that were *not* edited and are still answered after N edits.

    Each edit exchanges one answer for another of the N edited, so a leak c writes
    ``sum_i c_i (new_i - old_i)``.

    Args:
      edits: N, of a permutation of their own answers.
      hidden: M.
      width: D.
      others: number of other entities that could be answered.

    >>> retention(10, 512, 128, 50) > 0.99 > 0.9 > retention(250, 256, 64, 50)
    True
    """
    leak = interference(edits, hidden)
    rivals = [(math.sqrt(2 * leak / edits), edits), (0.0, others)]
    return recall(1.0, math.sqrt(2 * leak / width), 2 * leak, rivals, width)
