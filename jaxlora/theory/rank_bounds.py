"""What one edit of rank R does to N facts: adding them, or overwriting others.

An edit of rank R writes the projection of each change on R directions, the best ones of
all N changes (Eckart and Young, 1936). What is kept of a change is near a Beta, whose
mean and variance follow from the spectrum of random answers. A merge that scales the
edit is another thing, with a number of its own here.
"""

import math

import numpy as np
from scipy import special

from jaxlora.theory.bounds import coordinate


def spectrum_of_answers(facts: int, width: int) -> np.ndarray:
    """Eigenvalues of the covariance of N random unit answers, falling, sum 1, [D].

    Quantiles of the law of Marchenko and Pastur (1967) at ratio D / N.

    Args:
      facts: N, at least D.
      width: D.

    Raises:
      ValueError: if N >= D fails.

    >>> spectrum_of_answers(1000, 4).round(1).tolist()
    [0.3, 0.3, 0.2, 0.2]
    """
    if facts < width:
        raise ValueError(
            f"{facts} facts and answers of length {width}: N >= D fails; with fewer "
            f"facts than dimensions a rank of N writes them all."
        )
    # The edges of the spectrum; with N >= D it has no atom at 0.
    ratio = math.sqrt(width / facts)
    low, high = (1 - ratio) ** 2, (1 + ratio) ** 2
    edges = np.linspace(low, high, 20001)
    x = (edges[1:] + edges[:-1]) / 2
    density = np.sqrt((high - x) * (x - low)) / np.maximum(x, 1e-12)
    share = np.cumsum(density) / density.sum()
    middle = (np.arange(width) + 0.5) / width
    values = np.interp(middle, share, x)[::-1]
    return values / values.sum()


def _energy(rank: int, facts: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares of a change that a rank keeps, and their chances.

    A Beta of the right mean and variance, for rows that are Gaussian in the best
    directions.
    """
    values = spectrum_of_answers(facts, width)
    kept, left = values[:rank], values[rank:]
    # A mean of 1 would give the Beta no variance to fit.
    mean = min(float(kept.sum()), 1 - 1e-6)
    spread = 2 * ((1 - mean) ** 2 * np.sum(kept**2) + mean**2 * np.sum(left**2))
    size = max(mean * (1 - mean) / max(float(spread), 1e-12) - 1, 1.0)
    edges = np.linspace(0, 1, 401)
    chance = np.diff(special.betainc(mean * size, (1 - mean) * size, edges))
    return (edges[1:] + edges[:-1]) / 2, chance


def adding(rank: int, facts: int, width: int) -> float:
    """Recall of N facts *added* by one edit of rank R: about ``E Phi(chi_R)^(N-1)``.

    An edit of rank R writes the projection of each answer on R directions. The right
    answer has the logit ``|Pe|^2``, a rival the inner product of two projections: it
    loses if ``|Pe'| cos < |Pe|``, with the cosine of random directions in R dimensions
    (for the best ones, their participation ratio). For random directions this is near
    chi_R against a Gaussian. So the rank that a recall needs grows with ln N, but by a
    factor that depends on the recall and, through N / D, on the width; see
    :func:`rank_to_add`.

    Args:
      rank: R.
      facts: N, at least D, each with an answer of its own, and nothing to overwrite.
      width: D.

    >>> adding(2, 500, 64) < 0.1 < 0.9 < adding(24, 500, 64)
    True
    """
    kept = spectrum_of_answers(facts, width)[:rank]
    directions = max(float(np.sum(kept) ** 2 / np.sum(kept**2)), 1.01)
    energy, chance = _energy(rank, facts, width)
    # A rival with more energy within the rank needs less cosine to win.
    ratio = np.sqrt(energy[:, None] / energy[None, :])
    loses = np.exp(coordinate(ratio * math.sqrt(directions), directions)) @ chance
    log = (facts - 1) * np.log(np.clip(loses, 1e-300, 1.0))
    return float(np.sum(chance * np.exp(log)))


def rank_to_add(share: float, facts: int, width: int) -> int:
    """Returns the least rank at which N added facts are recalled with a given share.

    For random directions a rival wins with the chance that a Gaussian is above chi_R,
    which falls as ``2^(-R / 2)``; N of them are wrong in a share p at R near ``2 log2(N
    / p)``, less a logarithm of R. So R / ln N is no constant: it is about 1.6 for one
    half, 2.6 for 0.9 and 3.4 for 0.99 at N = 512, D = 128, and rises a little with D.

    Args:
      share: recall that is wanted, below 1.
      facts: N, at least D.
      width: D.

    Raises:
      ValueError: if ``0 < share < 1`` fails.

    >>> [rank_to_add(share, 512, 128) for share in (0.5, 0.9, 0.99)]
    [10, 16, 21]
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}, but 0 < share < 1 must hold.")
    ranks = range(1, width + 1)
    return next((r for r in ranks if adding(r, facts, width) >= share), width)


def overwriting(rank: int, facts: int, width: int, scale: float = 1.0) -> float:
    """Recall of N facts that *overwrite* others by one edit of rank R, times a scale.

    With the change c = new - old and its projection Pc, what is written is ``old + g
    Pc``, and new beats old exactly if ``|Pc|^2 > |c|^2 / (2 g)``. At the scale g = 1
    half of the energy of every change must be within the rank, so that R must be a
    share of D (half of it, if directions are random). At g = 1/2, which is what a mean
    of two experts does, all of it must, and then old and new tie: no rank helps. Other
    rivals are ignored: D is taken to be large beside 2 ln N.

    Args:
      rank: R.
      facts: N, at least D; old and new answers all differ.
      width: D.
      scale: g, above 0: weight of the edit.

    >>> overwriting(16, 512, 128) < 0.05 < 0.95 < overwriting(112, 512, 128)
    True
    >>> [overwriting(128, 512, 128, scale) for scale in (0.4, 0.5, 0.6)]
    [0.0, 0.5, 1.0]
    """
    if rank >= width:
        # Nothing is cut off, so that the scale alone decides.
        return float(np.heaviside(scale - 0.5, 0.5))
    energy, chance = _energy(rank, facts, width)
    return float(np.sum(chance[energy > 0.5 / scale]))
