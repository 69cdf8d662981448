"""What a merge did to the deltas it was given: its distance from the exact sum.

The reference is ``exact = sum_e w_e delta_e``. Two merges of the same name can differ
from it by a factor of E in norm (Ostapenko et al., arXiv 2405.11157, average factors;
PEFT's ``linear`` adds cross terms), and a loss does not tell: these numbers do.

Everything is computed from factors. With the QR decompositions of all a side by side,
``[a_m, a_1 ... a_E]``, and of all b, each delta becomes a matrix of at most K x K, K =
R' + E * R, with all norms and inner products kept; differences are taken there, so that
a relative error of 1e-6 is still seen to be no zero. (From inner products alone,
``|x - y|^2 = |x|^2 - 2 <x, y> + |y|^2`` loses everything below 3e-4 in float32.)
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxlora import lora, spectrum
from jaxlora.lora import Adapter, Library, LoraWeight
from jaxlora.merge.linear import Weights
from jaxlora.spectrum import matmul

BySite: TypeAlias = Any
"""``{site name: array}``, or one array where sites are pooled."""

_EPS = float(jnp.finfo(jnp.float32).eps)
_LIMIT = 200


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Fidelity:
    """Energies (squared Frobenius norms) of a merge, and the ratios that they give.

    Each field is ``{site: [...]}`` with one number a layer, or a scalar when pooled.
    A ratio is nan where it is 0 / 0: shares of a merged delta that is 0, errors of
    nothing against nothing, coefficients of absent or zero experts; and inf where
    something stands against an exact sum of 0. An exact sum that cancels down to
    rounding counts as 0.
    """

    error: BySite
    """``|merged - exact|^2``."""
    exact: BySite
    """``|exact|^2``."""
    merged: BySite
    """``|merged|^2``."""
    cross: BySite
    """Energy of merged in the experts' joint span that no expert can carry."""
    outside: BySite
    """Energy of merged outside of the experts' joint span."""
    products: BySite
    """``<merged, delta_e>``, [E, ...]; 0 for an absent expert."""
    experts: BySite
    """``|delta_e|^2``, [E, ...]; 0 for an absent expert."""

    @property
    def relative_error(self) -> BySite:
        """``|merged - exact| / |exact|``."""
        return jax.tree.map(_root_ratio, self.error, self.exact)

    @property
    def norm_shrinkage(self) -> BySite:
        """``|merged| / |exact|``: 1 keeps the norm, less shrinks it."""
        return jax.tree.map(_root_ratio, self.merged, self.exact)

    @property
    def cross_term_energy(self) -> BySite:
        """Share of ``|merged|^2`` made by terms ``a_e X b_f`` between experts.

        It is inside span(a_1 ... a_E) x span(b_1 ... b_E), and yet not of the form
        ``sum_e a_e C_e b_e`` for any C_e [R, R]. Re-ranking an exact sum makes such
        terms, too: its singular vectors mix the experts.
        """
        return jax.tree.map(jnp.divide, self.cross, self.merged)

    @property
    def outside_energy(self) -> BySite:
        """Share of ``|merged|^2`` outside span(a_1 ... a_E) x span(b_1 ... b_E)."""
        return jax.tree.map(jnp.divide, self.outside, self.merged)

    @property
    def effective_coefficient(self) -> BySite:
        """``<merged, delta_e> / |delta_e|^2``, [E, ...].

        It is the weight of an expert where experts are orthogonal to each other, as
        independent ones of high dimension nearly are. Experts that overlap also see
        each other's weights: the exact sum need not give w_e then.
        """
        return jax.tree.map(jnp.divide, self.products, self.experts)

    def layers(self) -> "Fidelity":
        """Pools the layers of each site, by energy: one number a site."""
        return dataclasses.replace(
            jax.tree.map(jnp.sum, self),
            products=jax.tree.map(_over_layers, self.products),
            experts=jax.tree.map(_over_layers, self.experts),
        )

    def total(self) -> "Fidelity":
        """Pools all sites and layers, by energy: ratios of sums, not means of ratios.

        The relative error is then that of all deltas stacked into one vector. Under
        vmap pool inside, as every axis but E is summed.
        """
        fields = vars(self.layers()).items()
        return Fidelity(**{key: sum(jax.tree.leaves(value)) for key, value in fields})


def fidelity(
    adapter: Adapter, library: Library, weights: Weights | None = None
) -> Fidelity:
    """Measures an adapter against the exact weighted sum of the library it came from.

    Jits, and vmaps over adapters, weights and libraries; it has no reverse-mode
    gradient. An expert of weight 0 is absent: it is in neither the sum nor the span.

    Args:
      adapter: the merge, leaves [..., D, R'] of any rank R'.
      library: leaves [E, ..., D, R] of the same sites.
      weights: [E], the weights w_e of the exact sum, of any sign, taken as they are:
        for a mean pass weights that sum to 1. None is a weight of 1 for every expert.

    Returns:
      Energies of each site and layer; ``.total()`` pools them.

    Raises:
      ValueError: if the sites, their shapes or the number of weights do not fit.

    >>> w = LoraWeight(jnp.eye(3)[:2, :, None], jnp.eye(4)[:2, None], jnp.ones(2))
    >>> averaged = LoraWeight(w.a.mean(0), w.b.mean(0), jnp.ones(()))
    >>> total = fidelity({"k": averaged}, {"k": w}, [0.5, 0.5]).total()
    >>> [round(float(x), 2) for x in (total.relative_error, total.cross_term_energy)]
    [0.71, 0.5]
    >>> total.effective_coefficient.round(2).tolist()
    [0.25, 0.25]
    """
    merged, experts = lora.sites(adapter), lora.sites(library)
    count = lora.num_experts(library)
    w = jnp.ones(count) if weights is None else jnp.asarray(weights, jnp.float32)
    if w.shape != (count,):
        raise ValueError(
            f"Weights have shape {w.shape}, expected ({count},): one weight for each "
            f"of the {count} experts of the library."
        )
    _check(merged, experts)
    sites = {name: _site(merged[name], experts[name], w) for name in sorted(experts)}
    return Fidelity(
        *({name: energies[i] for name, energies in sites.items()} for i in range(7))
    )


def _check(merged: Mapping[str, LoraWeight], experts: Mapping[str, LoraWeight]) -> None:
    odd = sorted(set(merged) ^ set(experts))
    if odd:
        where = "adapter" if odd[0] in merged else "library"
        raise ValueError(
            f"The adapter and the library differ in {len(odd)} sites, expected the "
            f"same in both; {odd[0]!r} is in the {where} only."
        )
    for name, weight in merged.items():
        got = (*weight.a.shape[:-1], weight.b.shape[-1])
        expected = (*experts[name].a.shape[1:-1], experts[name].b.shape[-1])
        if got != expected:
            raise ValueError(
                f"Site {name!r} of the adapter is a delta of shape {got}, expected "
                f"{expected} as in the library, without its expert axis."
            )


@jax.jit
def _site(merged: LoraWeight, experts: LoraWeight, weights: jax.Array) -> Any:
    # One layer after another, so that stacked factors are in memory for one layer only.
    lead = merged.scale.shape
    first = jax.tree.map(lambda x: jnp.moveaxis(x, 0, len(lead)), experts)
    flat = jax.tree.map(
        lambda x: x.reshape(-1, *x.shape[len(lead) :]).astype(jnp.float32),
        (merged, first),
    )
    layers = jax.lax.map(lambda pair: _layer(pair[0], pair[1], weights), flat)
    *scalars, products, norms = (x.reshape(*lead, *x.shape[1:]) for x in layers)
    return (*scalars, jnp.moveaxis(products, -1, 0), jnp.moveaxis(norms, -1, 0))


def _layer(merged: LoraWeight, experts: LoraWeight, weights: jax.Array):
    m, a, b = _small(merged, experts, weights != 0)
    deltas = matmul(a, b)
    norms = _energy(deltas)
    exact = jnp.sum(weights[:, None, None] * deltas, axis=0)
    # Bases of each expert's columns and rows, then of all of them together.
    u, v = _bases(a, b)
    (p, u), (q, v) = _joint(u), _joint(v)
    inside = matmul(matmul(p.mT, m), q)
    residual = _least_squares(inside, u, v)
    outside = _energy(m - matmul(matmul(p, inside), q.mT))
    # What is left where terms of this size cancel is rounding.
    floor = (64 * _EPS * jnp.sum(jnp.abs(weights) * jnp.sqrt(norms))) ** 2
    null = _energy(exact) <= floor
    nothing = null & (_energy(m) <= floor)
    energies = (_energy(m - exact), _energy(m), _energy(residual), outside)
    error, size, cross, out = (jnp.where(nothing, 0.0, x) for x in energies)
    exact_energy = jnp.where(null, 0.0, _energy(exact))
    products = jnp.sum(m[None] * deltas, axis=(-2, -1))
    return error, exact_energy, size, cross, out, products, norms


def _small(merged: LoraWeight, experts: LoraWeight, present: jax.Array):
    """Merged [K, K], and factors a [E, K, R], b [E, R, K] in one orthonormal frame."""
    keep = present[:, None, None]
    a = jnp.where(keep, experts.a, 0.0)  # selected: 0 * inf is nan
    b = jnp.where(keep, experts.scale[:, None, None] * experts.b, 0.0)
    e, _, r = a.shape
    left = jnp.concatenate([merged.a, jnp.moveaxis(a, 0, 1).reshape(-1, e * r)], 1)
    right = jnp.concatenate([merged.scale * merged.b, b.reshape(e * r, -1)], 0)
    (_, ra), (_, rb) = spectrum.qr(left), spectrum.qr(right.mT)
    k = merged.rank
    m = matmul(ra[:, :k], rb[:, :k].mT)
    a = jnp.moveaxis(ra[:, k:].reshape(-1, e, r), 1, 0)
    b = jnp.moveaxis(rb[:, k:].reshape(-1, e, r), 0, -1)
    return m, a, b


def _bases(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Singular vectors u, v [E, K, R] of every delta; null directions are zero."""
    u, s, vt = spectrum.svd(LoraWeight(a, b, jnp.ones(a.shape[:1], jnp.float32)))
    smallest = max(a.shape[-2], b.shape[-1]) * _EPS * s[..., :1]
    keep = ((s > smallest) & (s > 0))[:, None, :]
    return jnp.where(keep, u, 0.0), jnp.where(keep, vt.mT, 0.0)


def _joint(bases: jax.Array) -> tuple[jax.Array, jax.Array]:
    """An orthonormal basis of all spans [K, P], and every expert's basis in it."""
    e, k, r = bases.shape
    stacked = jnp.moveaxis(bases, 0, 1).reshape(k, e * r)
    basis, s, vt = jnp.linalg.svd(stacked, full_matrices=False)
    # Experts that share directions leave the joint basis short of E * R.
    keep = (s > max(k, e * r) * _EPS * s[:1]) & (s > 0)
    basis, rows = jnp.where(keep, basis, 0.0), jnp.where(keep, s, 0.0)[:, None] * vt
    return basis, jnp.moveaxis(rows.reshape(-1, e, r), 1, 0)


def _least_squares(target: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
    """The residual of the best ``sum_e u_e C_e v_e^T``, by conjugate gradients.

    CGLS (Björck, 1996) keeps the residual itself [P, Q] and the gradient blocks
    [E, R, R]. As every u_e and v_e is orthonormal, the normal equations have the
    identity on their diagonal; where experts repeat each other they are singular but
    consistent, and the residual is unique. Its energy never rises.
    """

    def blocks(residual):
        return matmul(matmul(u.mT, residual[None]), v)

    def step(state):
        i, residual, direction, gamma = state
        image = jnp.einsum("epr,eqr->pq", matmul(u, direction), v, precision="highest")
        size = jnp.sum(image**2)
        alpha = jnp.where(size > 0, gamma / jnp.where(size > 0, size, 1.0), 0.0)
        residual = residual - alpha * image
        gradient = blocks(residual)
        new = jnp.sum(gradient**2)
        return i + 1, residual, gradient + (new / gamma) * direction, new

    def more(state):
        i, _, _, gamma = state
        return (i < _LIMIT) & (gamma > (2 * _EPS) ** 2 * jnp.sum(target**2))

    first = blocks(target)
    state = (0, target, first, jnp.sum(first**2))
    return jax.lax.while_loop(more, step, state)[1]


def _energy(x: jax.Array) -> jax.Array:
    return jnp.sum(x**2, axis=(-2, -1))


def _over_layers(x: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=tuple(range(1, x.ndim)))


def _root_ratio(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.sqrt(x / y)
