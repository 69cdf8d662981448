"""A logistic regression from features to the share of people that compose.

Few features, standardised, and a ridge: the number of groups is in the hundreds, and
people of one base are not independent. What lies outside the range that was fitted is
read as the nearest that lies within.
"""

import dataclasses
from collections.abc import Hashable, Sequence

import numpy as np
from scipy import optimize, special

from jaxlora.diagnose.features import NAMES

RIDGE = 5.0
"""Default strength of the ridge, in people."""


@dataclasses.dataclass(frozen=True)
class Coefficients:
    """A fitted predictor: ``logit p = intercept + weights . (x - mean) / spread``."""

    intercept: float
    weights: tuple[float, ...]
    """[K], of standardised features."""
    mean: tuple[float, ...]
    """[K] of what was fitted."""
    spread: tuple[float, ...]
    """[K] standard deviations; 1 where a feature did not vary."""
    low: tuple[float, ...]
    """[K] smallest value that was fitted."""
    high: tuple[float, ...]
    """[K] largest value that was fitted."""
    names: tuple[str, ...] = NAMES


def fit(
    features: np.ndarray,
    composed: np.ndarray,
    trials: np.ndarray,
    ridge: float = RIDGE,
    names: Sequence[str] = NAMES,
) -> Coefficients:
    """Fits the shares of G groups by maximum likelihood with a ridge on the weights.

    Args:
      features: [G, K].
      composed: [G] people whose two-hop question was answered right.
      trials: [G] people asked.
      ridge: 0 or more; half of it times the squared weights is added to the loss.
      names: of the features.

    Raises:
      ValueError: if shapes or counts do not fit together, or a value is not finite.

    >>> x = np.array([[0.0], [1.0]])
    >>> fitted = fit(x, np.array([0, 10]), np.array([10, 10]), 0.1, ("x",))
    >>> probability(fitted, x).round(2).tolist()
    [0.02, 0.98]
    """
    x, k, n = _checked(features, composed, trials, names)
    if ridge < 0:
        raise ValueError(f"ridge is {ridge}, expected 0 or more.")
    mean, spread = x.mean(0), x.std(0)
    spread = np.where(spread > 1e-9, spread, 1.0)
    z = np.column_stack([np.ones(len(x)), (x - mean) / spread])
    penalty = np.append(0.0, np.full(x.shape[1], ridge))

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        score = z @ w
        value = n @ np.logaddexp(0, score) - k @ score + (penalty * w) @ w / 2
        return float(value), z.T @ (n * special.expit(score) - k) + penalty * w

    start = np.zeros(z.shape[1])
    w = optimize.minimize(loss, start, jac=True, method="L-BFGS-B").x
    columns = (w[1:], mean, spread, x.min(0), x.max(0))
    fields = (tuple(map(float, column)) for column in columns)
    return Coefficients(float(w[0]), *fields, names=tuple(names))


def probability(coefficients: Coefficients, features: np.ndarray) -> np.ndarray:
    """Returns the predicted share of people that compose, [G].

    Args:
      coefficients: a fitted predictor.
      features: [G, K].

    Raises:
      ValueError: if there are other features than those that were fitted.
    """
    c, x = coefficients, np.asarray(features, np.float64)
    if x.ndim != 2 or x.shape[1] != len(c.weights):
        raise ValueError(
            f"Features have shape {x.shape}, expected [G, {len(c.weights)}]: "
            f"{', '.join(c.names)}."
        )
    seen = np.clip(x, c.low, c.high)
    z = (seen - np.array(c.mean)) / np.array(c.spread)
    return special.expit(c.intercept + z @ np.array(c.weights))


def brier(probabilities: np.ndarray, composed: np.ndarray, trials: np.ndarray) -> float:
    """Returns the Brier score: the mean over people of ``(p - did compose)^2``.

    Brier, Verification of Forecasts Expressed in Terms of Probability (1950).

    Args:
      probabilities: [G] of each group.
      composed: [G] people that did.
      trials: [G] people.

    >>> brier(np.array([0.5]), np.array([3]), np.array([4]))
    0.25
    """
    p, k, n = (np.asarray(x, np.float64) for x in (probabilities, composed, trials))
    return float((k * (p - 1) ** 2 + (n - k) * p**2).sum() / n.sum())


def held_out(
    features: np.ndarray,
    composed: np.ndarray,
    trials: np.ndarray,
    folds: Sequence[Hashable],
    ridge: float = RIDGE,
    names: Sequence[str] = NAMES,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicts each group from all groups of other folds.

    Args:
      features: [G, K].
      composed: [G] people that composed.
      trials: [G] people.
      folds: [G] what is left out together, such as the cell, format or seed.
      ridge: as in :func:`fit`.
      names: of the features.

    Returns:
      The predictions [G], and for comparison the mean share of the other folds [G].

    Raises:
      ValueError: if there is one fold only, or as :func:`fit`.
    """
    x, k, n = _checked(features, composed, trials, names)
    kinds = list(dict.fromkeys(folds))
    if len(kinds) < 2:
        raise ValueError(
            f"All {len(folds)} groups are of one fold ({kinds[0] if kinds else None}), "
            f"expected two at least: nothing would be left to fit."
        )
    predicted, mean = np.zeros(len(x)), np.zeros(len(x))
    for kind in kinds:
        out = np.array([fold == kind for fold in folds])
        fitted = fit(x[~out], k[~out], n[~out], ridge, names)
        predicted[out] = probability(fitted, x[out])
        mean[out] = k[~out].sum() / n[~out].sum()
    return predicted, mean


def _checked(features, composed, trials, names: Sequence[str]):
    x, k, n = (np.asarray(v, np.float64) for v in (features, composed, trials))
    if x.ndim != 2 or not len(x) or x.shape[1] != len(names) or len(x) != k.size:
        raise ValueError(
            f"Got features of shape {x.shape} and {k.size} counts, expected one row "
            f"of {len(names)} features a group: {', '.join(names)}."
        )
    if n.shape != k.shape or (k < 0).any() or (k > n).any() or (n < 1).any():
        raise ValueError(
            "Got counts that cannot be: expected 0 <= composed <= trials, and trials "
            "of 1 or more, in every group."
        )
    bad = [name for name, column in zip(names, x.T, strict=True) if _odd(column)]
    if bad:
        raise ValueError(f"Features {', '.join(bad)} have values that are not finite.")
    return x, k, n


def _odd(column: np.ndarray) -> bool:
    return not np.isfinite(column).all()
