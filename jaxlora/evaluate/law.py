"""The law of kept skills: a composite is the product of what it is made of.

Where a solution is written step by step, each step can go wrong alone. If a combined
model keeps a share k_A of one skill and k_B of another, and nothing else is lost, it
solves a share k_A k_B of the problems that need both. Their ratio is what the format
adds or takes. Nothing is fitted: the prediction is known before a problem is asked.

References:
  Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8:
    hierarchical resampling.
  Brown, Cai and DasGupta, Interval estimation for a binomial proportion (Statistical
    Science 2001): Jeffreys' prior, by which shares of 0 and 1 have a spread.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxlora.evaluate.statistics import Interval


class Counts(NamedTuple):
    """Right answers of one seed: of every skill, and of problems that need them all.

    Shapes: M libraries, K skills.
    """

    skills: np.ndarray
    """int [M, K]."""
    asked: np.ndarray
    """int [M, K], questions behind them."""
    both: np.ndarray
    """int [M]."""
    problems: np.ndarray
    """int [M]."""


class Law(NamedTuple):
    """A prediction beside what was measured."""

    product: Interval
    """Mean over libraries of the product of kept skills."""
    composite: Interval
    """Mean over libraries of the share of problems that were solved."""
    ratio: Interval
    """Composite over product; no number where no library keeps all skills."""
    difference: Interval
    """Composite minus product."""


def law(
    seeds: Sequence[Counts],
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Law:
    """Compares composites with products of kept skills, library by library.

    A resample draws seeds, libraries within a seed, and each share from its posterior
    under Jeffreys' prior, Beta(right + 1/2, wrong + 1/2). The prior keeps shares of 0
    and 1 from having no spread, but pulls every share towards 1/2: resampled means are
    moved so that they are centred where they were measured. Intervals are wider than
    nominal, since libraries already differ by the luck of their items.

    Args:
      seeds: counts of every seed, of one shape.
      rng: source of the resamples.
      confidence: nominal coverage of the intervals, in (0, 1).
      resamples: number of resamples.

    Raises:
      ValueError: if there is no seed, or one without questions.

    >>> counts = Counts(
    ...     np.array([[8, 8]]), np.array([[10, 10]]), np.array([64]), np.array([100])
    ... )
    >>> x = law([counts], np.random.default_rng(0))
    >>> round(x.product.value, 2), round(x.ratio.value, 2)
    (0.64, 1.0)
    """
    _check(seeds)
    stacked = Counts(*(np.stack(x) for x in zip(*seeds, strict=True)))
    kept = (stacked.skills / stacked.asked).prod(-1)
    solved = stacked.both / stacked.problems
    product, composite = float(kept.mean()), float(solved.mean())
    drawn = _drawn(stacked, rng, resamples)
    products, composites = map(_centred, drawn, (product, composite))
    how = (confidence, int(stacked.problems.sum()))
    return Law(
        product=_interval(product, products.clip(max=1.0), *how),
        composite=_interval(composite, composites.clip(max=1.0), *how),
        ratio=_ratio(composite, product, composites / products, how),
        difference=_interval(composite - product, composites - products, *how),
    )


def _drawn(x: Counts, rng, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    """Resampled means of products and of composites, [resamples] each."""
    seeds, libraries = x.both.shape
    skills = rng.beta(
        x.skills + 0.5, x.asked - x.skills + 0.5, (resamples, *x.skills.shape)
    ).prod(-1)
    both = rng.beta(x.both + 0.5, x.problems - x.both + 0.5, (resamples, *x.both.shape))
    at = np.arange(resamples)[:, None, None]
    seed = rng.integers(seeds, size=(resamples, seeds, 1))
    library = rng.integers(libraries, size=(resamples, seeds, libraries))
    picked = (at, seed, library)
    return skills[picked].mean((1, 2)), both[picked].mean((1, 2))


def _centred(drawn: np.ndarray, value: float) -> np.ndarray:
    """Resampled shares with the mean that was measured, kept above 0."""
    return np.maximum(drawn + value - drawn.mean(), 1e-9)


def _ratio(composite: float, product: float, drawn: np.ndarray, how) -> Interval:
    if product == 0:
        return Interval(np.nan, np.nan, np.nan, how[1])
    return _interval(composite / product, drawn, *how)


def _interval(value, drawn: np.ndarray, confidence: float, n: int) -> Interval:
    tail = 100 * (1 - confidence) / 2
    lo, hi = np.percentile(drawn, [tail, 100 - tail])
    value = float(value)
    return Interval(value, min(float(lo), value), max(float(hi), value), n)


def _check(seeds: Sequence[Counts]) -> None:
    if not seeds:
        raise ValueError("Got no seed, expected the counts of at least one.")
    for counts in seeds:
        if min(counts.asked.min(), counts.problems.min()) < 1:
            raise ValueError(
                "A library has a skill or a composite that no question asks; expected "
                "at least one question of each."
            )
