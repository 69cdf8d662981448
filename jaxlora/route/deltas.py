"""What gates read of deltas, and the places at which they decide.

One decision is made per site (an adapted kernel), per layer or per model. Where layers
are of several kinds, sites and gates of layers have numbers, see
:mod:`jaxlora.periods`.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxlora import lora, periods
from jaxlora.lora import Library, LoraWeight

ROUTER = "router"
"""The name of a state that several sites share: ``layers/router``, or ``router``."""

Per: TypeAlias = Literal["site", "layer", "model"]
"""What there is one decision per."""


def live(weight: LoraWeight) -> jax.Array:
    """Where an expert's delta is not zero, [E, L].

    Args:
      weight: one site of a library, a [E, L, D, R].

    >>> w = LoraWeight(jnp.ones((2, 3, 1)), jnp.ones((2, 1, 3)), jnp.arange(2.0))
    >>> live(w).tolist()
    [False, True]
    """
    a, b = (jnp.any(x != 0, axis=(-2, -1)) for x in (weight.a, weight.b))
    return a & b & (weight.scale != 0)


def fingerprint(weight: LoraWeight) -> jax.Array:
    """A number for each delta, ``u^T delta v`` of two fixed waves u and v; [E, L].

    Args:
      weight: one site of a library, a [E, L, D, R].
    """
    # Of the delta, not of a or b: another gauge of the same expert must still fit.
    a, b = weight.a.astype(jnp.float32), weight.b.astype(jnp.float32)
    left = _wave(a.shape[-2], 1.0) @ a
    right = b @ _wave(b.shape[-1], 0.7)
    return weight.scale.astype(jnp.float32) * jnp.sum(left * right, axis=-1)


def fingerprints(per: Per, library: Library) -> dict[str, jax.Array]:
    """``{path: fingerprint}`` of every place; per layer or model, sums over sites.

    Args:
      per: what there is one place per.
      library: leaves [E, L, ...].
    """
    sites = lora.sites(library)
    if per == "site":
        return {path: fingerprint(w) for path, w in sites.items()}
    # Any site that is another one moves the sum.
    if per == "model":
        total = _summed(sites.values())
        return {ROUTER: total.sum(axis=tuple(range(1, total.ndim)))}
    return {path: _summed(some) for path, some in _by_router(sites).items()}


def _summed(sites: Iterable[LoraWeight]) -> jax.Array:
    return jnp.stack([fingerprint(weight) for weight in sites]).sum(axis=0)


def _by_router(sites: Mapping[str, LoraWeight]) -> dict[str, list[LoraWeight]]:
    """The sites of each state of layers: of all of them, or of each P-th."""
    out: dict[str, list[LoraWeight]] = {}
    for name, weight in sites.items():
        number = periods.split(name)[1]
        stack = "layers" if number is None else f"layers/{number}"
        out.setdefault(f"{stack}/{ROUTER}", []).append(weight)
    return out


def _wave(size: int, step: float) -> jax.Array:
    return jnp.cos(step * jnp.arange(size, dtype=jnp.float32) + 0.3)


class Place(NamedTuple):
    """What a gate is given of one place."""

    weight: LoraWeight
    live: jax.Array
    fingerprint: jax.Array


def places(
    per: Per, library: Library, width: int | None, period: int | None = None
) -> dict[str, Place]:
    """Returns every place at which a gate decides, by path; one for all layers.

    Args:
      per: what there is one place per.
      library: leaves [E, L, ...].
      width: the model's width D, for a decision per layer or model.
      period: P, for a decision per layer where layers are of several kinds: the arrays
        of the place are then of all layers in order, and zero where none is adapted.

    Raises:
      ValueError: if width or period are needed and missing.
    """
    sites = lora.sites(library)
    if per == "site":
        return {p: Place(w, live(w), fingerprint(w)) for p, w in sites.items()}
    if width is None:
        raise ValueError(
            f"A gate that decides once per {per} needs width= for its init, the "
            f"model's hidden size; models.gate_state gives it."
        )
    groups = {ROUTER: [*sites.values()]} if per == "model" else _by_router(sites)
    # Sites of one stack share their leading axes [E, L].
    alive = {
        path: jnp.stack([live(w) for w in some]).any(axis=0)
        for path, some in groups.items()
    }
    if per == "model":
        alive = {p: x.any(axis=tuple(range(1, x.ndim))) for p, x in alive.items()}
    prints = fingerprints(per, library)
    if per == "layer":
        alive, prints = (_in_order(x, period) for x in (alive, prints))
    ((path, where),) = alive.items()
    # Keys see the model's width and no delta: no site's factors fit all of them.
    empty = LoraWeight(
        a=jnp.zeros((*where.shape, width, 0)),
        b=jnp.zeros((*where.shape, 0, width)),
        scale=jnp.ones(where.shape),
    )
    return {path: Place(empty, where, prints[path])}


def routers(library: Library) -> tuple[str, ...]:
    """Returns the paths of the states of a decision per layer.

    Args:
      library: [E, ...], or an adapter.

    >>> w = LoraWeight(jnp.ones((3, 2, 1)), jnp.ones((3, 1, 2)), jnp.ones(3))
    >>> routers({"layers": {"2": {"kernel": w}}}), routers({"layers": {"kernel": w}})
    (('layers/2/router',), ('layers/router',))
    """
    return tuple(_by_router(lora.sites(library)))


def _in_order(
    arrays: Mapping[str, jax.Array], period: int | None
) -> dict[str, jax.Array]:
    """Arrays [E, L / P] by numbered path as one [E, L], zero where there is none."""
    stack = f"layers/{ROUTER}"
    if stack in arrays:
        return dict(arrays)
    if period is None:
        raise ValueError(
            f"The library's layers are of several kinds ({', '.join(arrays)}), and a "
            f"gate that decides once per layer needs period= for its init, how many "
            f"come in a row; models.gate_state gives it."
        )
    first = next(iter(arrays.values()))
    out = jnp.zeros((first.shape[0], period * first.shape[1]), first.dtype)
    for path, values in arrays.items():
        out = out.at[:, int(path.split("/")[1]) :: period].set(values)
    return {stack: out}
