"""Means of directions: Model Stock, SLERP and the Karcher mean, from a Gram matrix.

Each is a linear sum of the experts' deltas whose coefficients depend on their norms and
angles only, so that E x E inner products are all that is needed: no dense matrix is
formed, and the result is exact in the experts' factors. Inner products are of deltas,
which do not depend on the gauge; in ``core`` and ``knots`` coordinates they are the
same. In a factor space a and b are turned apart, which is another method.

Every site and layer has angles of its own. Weights are shares: only their ratios count.

Model Stock: Jang et al., arXiv 2403.19522. SLERP: Shoemake, Animating Rotation with
Quaternion Curves (1985). Karcher, Riemannian Center of Mass (1977). All three are in
mergekit (Goddard et al., arXiv 2403.13257), whose conventions are followed or named.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.merge.linear import Linear, Reduction, WeightedSum

COLINEAR = 0.9995
"""Two directions with a cosine beyond this, of either sign, are combined linearly."""

VANISHED = 1e-5
"""A mean of unit vectors shorter than this has no direction."""

OPPOSITE = 1e-3
"""Below this ``sin(angle) / angle`` no geodesic is the shortest, and none pulls."""


def model_stock(clip: bool = True) -> Reduction:
    """The mean, shrunk by how far the experts agree.

    ``t sum_e w_e delta_e / sum_e w_e`` with ``t = n c / (1 + (n - 1) c)``, where c is
    the mean cosine over all pairs of the n present experts; t = 1 for one expert.
    For n = 2 this is the foot of the perpendicular from the base onto the experts'
    span, if they lie on a sphere around an unknown centre; for n > 2 a mean cosine
    stands for one common angle, which is mergekit's reading of the paper. Experts
    at right angles give t = 0, the base model itself.

    mergekit asks for two experts at least, averages them with equal weights, and
    takes t as it comes: negative for c < 0, without bound near c = -1 / (n - 1).

    Args:
      clip: take c < 0 as 0. False is mergekit's formula.

    >>> gram = jnp.asarray([[4.0, 2.0], [2.0, 4.0]])  # two experts at 60 degrees
    >>> print(model_stock().coefficients(gram, jnp.ones(2)).round(4))
    [0.3333 0.3333]
    """
    return _ModelStock(clip=clip)


def slerp() -> Reduction:
    """Interpolates between two experts along the arc, not along the chord.

    With ``t = w_2 / (w_1 + w_2)`` and the angle theta between the two deltas,
    ``(sin((1 - t) theta) delta_1 + sin(t theta) delta_2) / sin(theta)``. Beyond a
    cosine of 0.9995, of either sign, it is ``(1 - t) delta_1 + t delta_2``. As in
    mergekit's ``slerp`` and ``nuslerp`` the deltas themselves are combined, not their
    directions: norms that differ are neither equalised nor interpolated. A delta of
    zero is taken to be at a right angle, as there.

    mergekit's ``slerp`` turns whole weights, base included; its ``nuslerp`` with a base
    model turns deltas, as here, and is linear only below ``sin(theta) = 1e-8``. Both
    return a single model unchanged, as here.

    Exactly two experts must be present, or one. Under jit, where weights have no
    values to check, more give NaN.

    >>> gram = jnp.eye(2)
    >>> print(slerp().coefficients(gram, jnp.asarray([1.0, 1.0])).round(4))
    [0.7071 0.7071]
    """
    return _Slerp()


def karcher(steps: int = 10) -> Reduction:
    """The mean of the experts' directions on the sphere, at their mean norm.

    The unit vector m that minimises ``sum_e p_e angle(m, u_e)^2`` with
    ``u_e = delta_e / |delta_e|`` and ``p_e = w_e / sum(w)``, times
    ``sum_e p_e |delta_e|``. From the normalised mean of directions, each step goes
    along the geodesic of ``sum_e p_e log_m(u_e)``. m stays in the span of the experts
    and is kept as coefficients. Directions that cancel have no mean and give zeros.

    mergekit stops at a step below 1e-5; here the number of steps is fixed, and steps
    after convergence change nothing. Its experts have equal weights, and where
    directions cancel it returns the first one. Experts of delta 0 have no direction
    but count in the mean norm, here as there.

    Args:
      steps: at least 0; mergekit's default is 10.

    Raises:
      ValueError: if there are fewer than 0 steps.

    >>> gram = jnp.diag(jnp.asarray([1.0, 9.0]))  # right angle, norms 1 and 3
    >>> print(karcher().coefficients(gram, jnp.ones(2)).round(4))
    [1.4142 0.4714]
    """
    if steps < 0:
        raise ValueError(f"karcher has {steps} steps, expected 0 or more.")
    return _Karcher(steps=steps)


@dataclasses.dataclass(frozen=True)
class _ModelStock(Linear):
    clip: bool

    def check(self, weights: np.ndarray) -> None:
        WeightedSum(normalize=True).check(weights)

    def coefficients(self, gram: jax.Array, weights: jax.Array) -> jax.Array:
        cosines, _ = _cosines(gram)
        mean, pairs = _mean_of_pairs(cosines, weights)
        mean = jnp.where(pairs > 0, mean, 1.0)  # one expert agrees with itself
        if self.clip:
            mean = jnp.maximum(mean, 0.0)
        n = jnp.sum((weights != 0).astype(jnp.float32))
        shrink = n * mean / (1 + (n - 1) * mean)
        return _experts_first(shrink[..., None] * _shares(weights, shrink.shape))


@dataclasses.dataclass(frozen=True)
class _Slerp(Linear):
    def check(self, weights: np.ndarray) -> None:
        check_shares("slerp", weights)
        present = int((weights != 0).sum())
        if present > 2:
            raise ValueError(
                f"slerp interpolates between two experts, and {present} have a weight "
                f"other than 0: {weights.tolist()}. Give two of them a weight, or use "
                f"karcher, the mean of any number of directions."
            )

    def coefficients(self, gram: jax.Array, weights: jax.Array) -> jax.Array:
        cosine, pairs = _mean_of_pairs(_cosines(gram)[0], weights)
        # Near 0 and pi the arc's formula is 0 / 0; there the chord is the arc.
        near = (jnp.abs(cosine) > COLINEAR) | (pairs == 0)
        angle = jnp.arccos(jnp.where(near, 0.0, cosine))[..., None]
        shares = _shares(weights, cosine.shape)
        arc = jnp.sin(shares * angle) / jnp.sin(angle)
        # NaN is the only refusal left under jit, where weights have no values to check.
        result = jnp.where(near[..., None], shares, arc)
        return _experts_first(jnp.where(pairs > 1, jnp.nan, result))


@dataclasses.dataclass(frozen=True)
class _Karcher(Linear):
    steps: int

    def check(self, weights: np.ndarray) -> None:
        check_shares("karcher", weights)

    def coefficients(self, gram: jax.Array, weights: jax.Array) -> jax.Array:
        cosines, norms = _cosines(gram)
        shares = _shares(weights, norms.shape[:-1])
        pull = jnp.where(norms > 0, shares, 0.0)
        pull = pull / _positive(jnp.sum(pull, -1, keepdims=True))
        length = _length(cosines, pull)
        step = jax.tree_util.Partial(_karcher_step, cosines, pull)
        mean = pull / _positive(length)
        # A fixed number of steps: after convergence they change nothing.
        mean, _ = jax.lax.scan(step, mean, None, length=self.steps)
        mean = jnp.where(length > VANISHED, mean, 0.0)
        size = jnp.sum(shares * norms, -1, keepdims=True)
        return _experts_first(size * mean / _positive(norms))


def _karcher_step(cosines, pull, mean, _):
    """One step of length 1 along the geodesic; vectors are coefficients [..., E]."""
    dots = jnp.clip(_apply(cosines, mean), -1.0, 1.0)
    ratio = jnp.sinc(jnp.arccos(dots) / jnp.pi)  # sin(angle) / angle
    # log_m(u) = angle / sin(angle) (u - cos(angle) m), in coefficients of the u_e.
    stretch = jnp.where(ratio > OPPOSITE, pull / jnp.where(ratio > 0, ratio, 1.0), 0.0)
    tangent = stretch - jnp.sum(stretch * dots, -1, keepdims=True) * mean
    length = _length(cosines, tangent)
    mean = jnp.cos(length) * mean + jnp.sinc(length / jnp.pi) * tangent
    return mean / _positive(_length(cosines, mean)), None


def check_shares(method: str, weights: np.ndarray) -> None:
    """Refuses weights that are no shares: a negative one, or a sum of 0.

    Args:
      method: its name, for the message.
      weights: [E], finite.

    Raises:
      ValueError: naming the method and the weights.

    >>> check_shares("karcher", np.asarray([1.0, 0.0]))
    """
    if (weights < 0).any():
        raise ValueError(
            f"Weights are {weights.tolist()}, expected none below 0: in {method} they "
            f"are shares of a whole. A weighted sum takes negative weights."
        )
    WeightedSum(normalize=True).check(weights)


def _cosines(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosines [..., E, E], 0 where a delta is 0, and norms [..., E]."""
    squares = jnp.diagonal(gram, axis1=-2, axis2=-1)
    norms = jnp.sqrt(jnp.maximum(squares, 0.0))
    units = 1 / _positive(norms)
    # Rounding may leave [-1, 1], where arccos is NaN.
    return jnp.clip(gram * units[..., :, None] * units[..., None, :], -1, 1), norms


def _mean_of_pairs(cosines: jax.Array, weights: jax.Array):
    """The mean over pairs of present experts [...], and how many pairs there are."""
    present = (weights != 0).astype(jnp.float32)
    pairs = jnp.triu(present[:, None] * present[None, :], k=1)
    total = jnp.einsum("...ef,ef->...", cosines, pairs, precision="highest")
    count = jnp.sum(pairs)
    return total / jnp.maximum(count, 1.0), count


def _shares(weights: jax.Array, lead: tuple[int, ...]) -> jax.Array:
    return jnp.broadcast_to(weights / jnp.sum(weights), (*lead, *weights.shape))


def _apply(cosines: jax.Array, vector: jax.Array) -> jax.Array:
    return jnp.einsum("...ef,...f->...e", cosines, vector, precision="highest")


def _length(cosines: jax.Array, vector: jax.Array) -> jax.Array:
    """The norm of ``sum_e vector_e u_e``, [..., 1]."""
    square = jnp.sum(vector * _apply(cosines, vector), -1, keepdims=True)
    return jnp.sqrt(jnp.maximum(square, 0.0))


def _positive(x: jax.Array) -> jax.Array:
    """A divisor: x, or 1 where x is 0."""
    return jnp.where(x > 0, x, 1.0)


def _experts_first(coefficients: jax.Array) -> jax.Array:
    return jnp.moveaxis(coefficients, -1, 0)
