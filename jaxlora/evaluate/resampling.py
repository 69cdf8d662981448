"""Resampled means of nested items: seeds, libraries within a seed, people within those.

People who share a library share one merge, and libraries share a base: neither people
nor libraries of one base are independent of each other.

References:
  Davison and Hinkley, Bootstrap Methods and their Application (1997), section 3.8:
    hierarchical resampling.
  Cochran, Sampling Techniques (3rd edition, 1977), section 9A: the variance of a mean
    over clusters.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

Nested = Sequence[Sequence[np.ndarray]]
"""Values of people, by seed and library: ``nested[seed][library]`` is [people]."""
BANK = 500
"""Resamples of the people of one library, of which every draw of it takes one."""
LEAST_CLUSTERS = 4
"""Clusters that a variance between them needs: with three, t's quantile is 4.3."""


class Spread(NamedTuple):
    """How far a mean is expected to be off, judged by clusters of items."""

    variance: float
    freedom: int
    """Degrees of freedom of the variance: clusters - 1."""


def nested(
    samples: Sequence[np.ndarray], libraries: Sequence[ArrayLike] | None = None
) -> Nested:
    """Returns the values of every seed, library by library.

    Args:
      samples: for each of S seeds, one value per item.
      libraries: the library of each item, in the same shape; by default a seed is one.

    Raises:
      ValueError: if the two do not have the same shape.

    >>> nested([np.array([1.0, 2.0, 3.0])], [[7, 8, 7]])
    [[array([1., 3.]), array([2.])]]
    """
    if libraries is None:
        return [[values] for values in samples]
    named = [np.asarray(x) for x in libraries]
    shapes, wanted = [x.shape for x in named], [x.shape for x in samples]
    if shapes != wanted:
        raise ValueError(
            f"Got libraries of shape {shapes} and values of shape {wanted}; every item "
            f"needs the library that it was asked of."
        )
    return [
        [values[which == name] for name in np.unique(which)]
        for values, which in zip(samples, named, strict=True)
    ]


def means(seeds: Nested, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Returns resampled means over all items, [resamples].

    A resample draws S seeds, for each of them as many of its libraries as it has, and
    for each of those as many of its people, all with replacement. The last step takes
    one of ``BANK`` resamples of that library, drawn once.

    Args:
      seeds: values by seed and library.
      rng: source of the draws.
      resamples: number of means.
    """
    groups = [values for libraries in seeds for values in libraries]
    bank = np.concatenate([_bank(values, rng) for values in groups])
    sizes = np.repeat([len(values) for values in groups], BANK)
    counts = np.array([len(libraries) for libraries in seeds])
    first = (np.cumsum(counts) - counts) * BANK
    drawn = rng.integers(len(seeds), size=(len(seeds), resamples))
    begin, slots = first[drawn], counts[drawn]
    width = slots * float(BANK)
    even = len(set(sizes)) == 1 and len(set(counts)) == 1
    total, items = np.zeros(resamples), np.zeros(resamples)
    for slot in range(counts.max()):
        # One number picks both the library of a seed and a resample of its people.
        index = begin + (rng.random(drawn.shape) * width).astype(np.int64)
        sums, people = bank[index], sizes[index]
        if not even:
            sums, people = sums * (slot < slots), people * (slot < slots)
        total += sums.sum(axis=0)
        items += people.sum(axis=0)
    return total / items


def _bank(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sums of ``BANK`` resamples of the values of one library."""
    return values[rng.integers(len(values), size=(BANK, len(values)))].sum(axis=1)


def spread(seeds: Nested) -> Spread | None:
    """Returns the variance of the mean over all items, between clusters.

    Clusters are seeds where there are ``LEAST_CLUSTERS`` of them, else libraries.
    ``G / (G - 1) sum_g (sum of g - size of g * mean)^2 / n^2``

    Args:
      seeds: values by seed and library.

    Returns:
      None where there are too few of both.
    """
    groups = [np.concatenate(libraries) for libraries in seeds]
    if len(groups) < LEAST_CLUSTERS:
        groups = [values for libraries in seeds for values in libraries]
    if len(groups) < LEAST_CLUSTERS:
        return None
    sums, sizes = np.array([(x.sum(), len(x)) for x in groups]).T
    residuals = sums - sizes * (sums.sum() / sizes.sum())
    share = len(groups) / (len(groups) - 1) / sizes.sum() ** 2
    return Spread(float(share * (residuals**2).sum()), len(groups) - 1)
