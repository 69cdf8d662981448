"""Signs: which sign an entry takes, and the mean of the experts that have it.

TIES: Yadav et al., arXiv 2306.01708. SCE: Wan et al., arXiv 2408.07990. Peers differ in
what elects the sign, in what an election that ends in 0 gives, and in what the sum is
divided by; each is an argument here.
"""

import dataclasses
from typing import Any, Literal, TypeAlias, get_args

import jax
import jax.numpy as jnp

from jaxlora.merge.linear import Reduction, over_experts
from jaxlora.merge.space import Coordinates

By: TypeAlias = Literal["mass", "frequency"]
Zero: TypeAlias = Literal["positive", "majority", "none"]
Normalize: TypeAlias = Literal["weights", "count", "sum"]


@dataclasses.dataclass(frozen=True)
class ElectSign:
    """Elects a sign for each entry, and zeroes the experts that have another."""

    by: By = "mass"
    weighted: bool = True
    zero: Zero = "positive"

    @property
    def scope(self) -> Literal["leaf", "model"]:
        """The majority of all signs is that of the whole model."""
        return "model" if self.zero == "majority" else "leaf"

    def __call__(self, key: jax.Array | None, x: Coordinates) -> Coordinates:
        """Zeroes what disagrees; weights stay as they are."""
        del key
        signs = {name: self._sign(x, name) for name in x.values}
        # Votes first, for all leaves: a tie may ask for the whole model's majority.
        votes = {name: self._votes(x, name, signs[name]) for name in x.values}
        tie = _majority(votes) if self.zero == "majority" else jnp.float32(1.0)
        values = {}
        for name, vote in votes.items():
            elected = jnp.sign(vote)
            if self.zero != "none":
                elected = jnp.where(elected == 0, tie, elected)
            # An entry of 0 has no sign and agrees with nobody.
            agrees = signs[name] * elected > 0
            values[name] = jnp.where(agrees, x.values[name], 0.0)
        return dataclasses.replace(x, values=values)

    def _sign(self, x: Coordinates, name: str) -> jax.Array:
        sign = jnp.sign(x.values[name])
        return sign * jnp.sign(_spread(x, name)) if self.weighted else sign

    def _votes(self, x: Coordinates, name: str, sign: jax.Array) -> jax.Array:
        if self.by == "frequency":
            return over_experts(jnp.ones(sign.shape[0]), sign)[None]
        values = x.values[name]
        mass = _spread(x, name) * values if self.weighted else values
        return over_experts(jnp.ones(values.shape[0]), mass)[None]


@dataclasses.dataclass(frozen=True)
class WeighByEnergy:
    """Replaces each leaf's weights by the shares of the experts' mean squares."""

    def __call__(self, key: jax.Array | None, x: Coordinates) -> Coordinates:
        """Weights become ``w_e |x_e|^2 / sum_f w_f |x_f|^2``, for each matrix."""
        del key
        weights = {}
        for name, values in x.values.items():
            energy = x.weights[name] * jnp.sum(jnp.square(values), axis=(-2, -1))
            total = jnp.sum(energy, axis=0, keepdims=True)
            weights[name] = energy / jnp.where(total == 0, 1.0, total)
        return dataclasses.replace(x, weights=weights)


@dataclasses.dataclass(frozen=True)
class DisjointMean(Reduction):
    """The weighted sum of the entries that are not 0, over a divisor."""

    normalize: Normalize = "weights"
    """What the sum is divided by: weights, their count, or 1 (``sum``)."""

    def leaf(self, values, weights, key, data):
        """``sum_e w_e x_e`` over a divisor of each entry."""
        del key, data
        total = over_experts(weights, values)
        if self.normalize == "sum":
            return total
        counted = jnp.ones_like(weights) if self.normalize == "count" else weights
        divisor = over_experts(counted, (values != 0).astype(jnp.float32))
        # Where nobody is left the sum is 0 already: 0 / 1, not 0 / 0.
        small = jnp.abs(divisor) < 1e-8
        return total / jnp.where(small, 1.0, divisor)


def elect_sign(
    by: By = "mass", weighted: bool = True, zero: Zero = "positive"
) -> ElectSign:
    """Elects a sign for each entry, and zeroes the experts that have another.

    Args:
      by: ``mass`` is the sign of the sum, ``frequency`` that of the sum of signs.
      weighted: experts vote, and agree, with ``w_e x_e`` in the place of ``x_e``.
      zero: what an election gives that ends in 0: +1 (PEFT, mergekit), the majority
        of all elected signs of the model (the authors), or nothing at all (mttl).

    Raises:
      ValueError: if ``by`` or ``zero`` is none of these.

    >>> x = Coordinates(
    ...     {"": jnp.asarray([[[3.0, 1.0]], [[-1.0, 2.0]]])},
    ...     {"": jnp.ones((1, 1, 1), bool)},
    ...     {"": jnp.ones(2)},
    ... )
    >>> elect_sign()(None, x).values[""].tolist()
    [[[3.0, 1.0]], [[0.0, 2.0]]]
    """
    _known("by", by, By)
    _known("zero", zero, Zero)
    return ElectSign(by, weighted, zero)


def weigh_by_energy() -> WeighByEnergy:
    """SCE: weights of a matrix grow with the square of the expert's norm there."""
    return WeighByEnergy()


def disjoint_mean(normalize: Normalize = "weights") -> DisjointMean:
    """``sum_e w_e x_e / d`` over the entries that are left.

    Args:
      normalize: d is, for each entry, the sum of the weights of experts that are not 0
        there (mergekit), their number (PEFT), or 1 (``sum``).

    Raises:
      ValueError: if ``normalize`` is none of these.

    >>> left = jnp.asarray([[[3.0, 1.0]], [[0.0, 2.0]]])
    >>> disjoint_mean().leaf(left, jnp.ones(2), None, None).tolist()
    [[3.0, 1.5]]
    """
    _known("normalize", normalize, Normalize)
    return DisjointMean(normalize)


def _known(name: str, value: str, kind: Any) -> None:
    if value not in get_args(kind):
        have = ", ".join(map(repr, get_args(kind)))
        raise ValueError(f"{name} is {value!r}, expected one of {have}.")


def _spread(x: Coordinates, name: str) -> jax.Array:
    """Weights [E, ...] against values [E, ..., M, N]."""
    weights, values = x.weights[name], x.values[name]
    return weights.reshape(*weights.shape, *[1] * (values.ndim - weights.ndim))


def _majority(votes: dict[str, jax.Array]) -> jax.Array:
    total = sum(jnp.sum(jnp.sign(vote)) for vote in votes.values())
    return jnp.where(jnp.asarray(total) < 0, -1.0, 1.0)
