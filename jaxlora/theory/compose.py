"""How alike a person and their bridge must be before a sum of edits composes.

On the prompt "X R1 R2" no term selects the bridge Y, so the second edit writes every
end Z with the same share, up to noise. Where embeddings of X and Y overlap by
``alike``, the key of "X R1 R2" leans towards that of "Y R2": its share rises above the
others' by a margin, and composition (among the ends) succeeds once the margin beats the
noise,

    recall(margin / noise),
    noise^2 = edit^2 (1 + 2 N / D) + base^2 (1 + N / D) + c^2 / D.

``edit`` is the spread of the shares that the second edit gives to its N facts: random
overlaps of embeddings, 1 / D, and the sampling of features, 1 / M. ``base`` is that of
what the base does not take back of an old answer: it explains "X R1 R2" by the fact
"X R1", which the second edit has not seen. c is the share of the bridge, and what is
over D are random overlaps of embeddings in the answer. All are Gaussian integrals, to
first order in 1 / D and 1 / M; nothing is fitted.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from jaxlora.theory import bounds, limit, model
from jaxlora.theory.limit import arc_cosine
from jaxlora.theory.world import Sizes, draw, expected

_NODES, _SHARES = np.polynomial.hermite_e.hermegauss(60)
_SHARES = _SHARES / _SHARES.sum()


class Margin(NamedTuple):
    """What a prediction of composition rests on."""

    margin: float
    """Logit of the composed end above the mean of the other ends."""
    noise: float
    """Spread of an end's logit."""


def margin(sizes: Sizes, alike: float) -> Margin:
    """Returns margin and noise of the composed end on the two-hop prompt of the sum.

    Args:
      sizes: of the world: N people, width D, M features, strength of relations.
      alike: cosine of a bridge's embedding with its person's, 0 to 1.

    >>> apart, close = (margin(Sizes(20, 256, 4096), a) for a in (0.0, 0.5))
    >>> abs(apart.margin) < 0.01 < close.noise < close.margin
    True
    """
    world = expected(jax.random.key(0), sizes, alike=alike)
    truth, n = world.truth, sizes.people
    x = model.stream(world.base, truth.two_hop)
    written = limit.write(x, world.known, world.experts)
    # With orthonormal ends an entry of what is written is the end's own logit.
    logits = np.asarray(written, np.float64)[:, 2 * n : 3 * n]
    right = logits[np.arange(n), np.asarray(truth.composed) - 2 * n]
    # Against the mean of the others: what is common to all ends decides nothing.
    others = (logits.sum(1) - right) / (n - 1)
    return Margin(float(np.mean(right - others)), noise(sizes))


def noise(sizes: Sizes) -> float:
    """Returns the spread of an end's logit on a two-hop prompt; see the module.

    Args:
      sizes: of the world: N people, width D, M features, strength of relations.

    >>> noise(Sizes(20, 1024, 8192)) < noise(Sizes(20, 64, 512))
    True
    """
    edit, base, bridge = _spreads(sizes)
    n, d = sizes.people, sizes.width
    return math.sqrt(edit * (1 + 2 * n / d) + base * (1 + n / d) + bridge**2 / d)


def _spreads(sizes: Sizes) -> tuple[float, float, float]:
    """Variances of an edit's and the base's shares, and the share of the bridge."""
    r2, d = sizes.strength**2, sizes.width
    geometry = _Geometry.of(r2)
    in_edit, in_base = _sampling(r2, geometry)
    # Overlaps of a bridge with X and with R1; the slope of k at a right angle is 1/2.
    edit = 2 * geometry.slope**2 / d + in_edit / sizes.hidden
    base = (geometry.bridge**2 + geometry.relation**2) / (4 * d)
    base = (base + in_base / sizes.hidden) / geometry.gap**2
    return edit / geometry.gap**2, base, geometry.bridge


class _Geometry(NamedTuple):
    """Overlaps and shares in the limit of many people."""

    gap: float
    """Overlap of a key with itself, less that with another of its relation."""
    slope: float
    """Change of a two-hop key's overlap by that of embeddings."""
    bridge: float
    """Share c of the fact "X R1" on the prompt "X R1 R2"."""
    relation: float
    """Sum of the base's shares over all facts of one relation."""

    @classmethod
    def of(cls, r2: float) -> "_Geometry":
        fact, prompt = 1 + r2, 1 + 2 * r2
        root = math.sqrt(fact * prompt)

        def k(cosine: float) -> float:
            return float(arc_cosine(jnp.asarray(cosine)))

        gap = fact * (1 - k(r2 / fact))
        near, far = k(fact / root), k(r2 / root)
        slope = (math.pi - math.acos(r2 / root)) / math.pi
        relation = root * far / (fact * (k(r2 / fact) + 1 / math.pi))
        return cls(gap, slope, root * (near - far) / gap, relation)


def _sampling(r2: float, geometry: _Geometry) -> tuple[float, float]:
    """M times the variances of shares over M features, for the edit and the base.

    A key of the relation is ``ReLU(s + R)`` with its own s; given R, the part that
    tells keys apart has the variance ``spread``. From a two-hop key the part along the
    keys' common mean is regressed away by the memory of least norm.
    """
    r, mean, spread = _given_relation(r2)
    t = math.sqrt(1 + r2) * _NODES
    both = np.maximum(r[:, None] + t[None, :], 0.0)
    share = _SHARES[:, None] * _SHARES[None, :]
    # The memory of least norm explains what all keys share once, not N times.
    along = np.sum(share * both * mean[:, None]) / np.sum(_SHARES * mean**2)
    left = both - along * mean[:, None]
    edit = np.sum(share * spread[:, None] * left**2)
    # What the base explains by facts of R1 (columns), beyond the mean of R2 (rows).
    beyond = geometry.relation * mean[None, :]
    beyond = beyond + (geometry.relation - along) * mean[:, None]
    explained = geometry.bridge**2 * spread[None, :] + beyond**2
    base = np.sum(share * spread[:, None] * explained)
    return 4 * float(edit), 4 * float(base)


def _given_relation(r2: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Nodes of R, and mean and variance of ``ReLU(s + R)`` over s ~ N(0, 1) at each."""
    r = math.sqrt(r2) * _NODES
    density = np.exp(-(r**2) / 2) / math.sqrt(2 * math.pi)
    mean = r * special.ndtr(r) + density
    return r, mean, (r**2 + 1) * special.ndtr(r) + r * density - mean**2


def composes(sizes: Sizes, alike: float) -> float:
    """Returns the predicted two-hop accuracy of the sum, among the N ends.

    Args:
      sizes: of the world: N people, width D, M features, strength of relations.
      alike: cosine of a bridge's embedding with its person's, 0 to 1.

    >>> sizes = Sizes(20, 256, 4096)
    >>> composes(sizes, 0.0) < 0.06 < 0.95 < composes(sizes, 0.6)
    True
    """
    lead, spread = margin(sizes, alike)
    return bounds.beats(lead / spread, 1.0, sizes.people - 1)


def apart(sizes: Sizes) -> float:
    """Returns the recall of a relation overwritten by N edits, each made as if alone.

    Two keys of the relation overlap by k. As new and old answers are the same set, the
    changes add up to nothing: all others together write ``-k`` times one's own, which
    leaves ``1 - k``. New beats old as long as ``1 - 2 k > 0``, up to the spread of k.

    Args:
      sizes: of the world: N people, width D, M features, strength of relations.

    >>> weak, strong = (apart(Sizes(20, 512, 8192, s)) for s in (0.4, 1.0))
    >>> strong < 0.01 < 0.99 < weak
    True
    """
    r2, d, n = sizes.strength**2, sizes.width, sizes.people
    fact = 1 + r2
    cosine = r2 / fact
    k = float(arc_cosine(jnp.asarray(cosine)))
    slope = (math.pi - math.acos(cosine)) / math.pi
    r, _, spread = _given_relation(r2)
    second = (r**2 + 1) * special.ndtr(r) + r * np.exp(-(r**2) / 2) / math.sqrt(
        2 * math.pi
    )
    sampling = 4 * float(np.sum(_SHARES * spread * second))
    variance = (2 * slope**2 / d + sampling / sizes.hidden) / fact**2
    return float(special.ndtr((1 - 2 * k) / math.sqrt(variance * (2 + 4 * n / d))))


def dominates(sizes: Sizes, weight: float) -> float:
    """Returns how often "X R1 R2" is answered r1(X) and not r2(X), both known.

    With attention ``weight`` on R1 and 1 on R2 the prompt's key leans to one of two
    facts; their shares have independent spreads.

    Args:
      sizes: of the world: N people, width D, M features, strength of relations.
      weight: attention on R1.

    >>> sizes = Sizes(20, 512, 8192)
    >>> dominates(sizes, 0.5) < 0.01 < 0.99 < dominates(sizes, 2.0)
    True
    """
    n, v = sizes.people, sizes.entities
    truth = draw(jax.random.key(0), sizes)
    base = limit.ideal(entities=v, strength=sizes.strength)
    prompts = jnp.concatenate([truth.hop1, truth.hop1.at[:, 1].set(v + 1)])
    known = limit.facts(base, prompts, jnp.arange(2 * n))
    attention = jnp.asarray([[1.0, weight, 1.0, 1.0]])
    x = model.stream(base, truth.two_hop, attention)
    share = np.asarray(limit.coefficients(x, known))
    lead = float(np.mean(np.diagonal(share[:, :n]) - np.diagonal(share[:, n:])))
    edit, _, _ = _spreads(sizes)
    return float(special.ndtr(lead / math.sqrt(2 * edit * (1 + 2 * n / sizes.width))))
