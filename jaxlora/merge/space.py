"""Spaces: the coordinates in which experts are compared, entry by entry.

- ``factor``: a and b apart, the scale folded into b, the same weight on both.
- ``factor-root``: a and b apart, and weight times scale split into roots: PEFT's.
- ``factor-raw``: a and b apart as stored; the result has the first expert's scale:
  mttl's.
- ``delta``: the dense updates themselves.
- ``knots``: joint coordinates over the outputs (KnOTS, arXiv 2410.19735).
- ``core``: joint coordinates over inputs and outputs (Core Space, arXiv 2509.17786).

The factor spaces depend on the gauge. The others do not, but entry-wise methods give
another result in each: coordinates are part of a method.

A vector (a gain, a bias, D = 1) is merged in ``delta`` whatever the space: its joint
frame has a handful of entries, of which a share that is kept would be all or nothing.

What is here is of one site and one layer: a [E, D, R]. ``enter`` gives coordinates and
the way back.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from jaxlora import lora, spectrum
from jaxlora.lora import LoraWeight
from jaxlora.merge import frame
from jaxlora.merge.linear import absent_removed, column
from jaxlora.spectrum import matmul

Leaves: TypeAlias = dict[str, jax.Array]
"""Arrays by name; a factor space has two names for a site, others one."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Experts as a chain's steps see them."""

    values: Leaves
    """[E, ..., M, N], float32; zeros where an expert is absent."""
    live: Leaves
    """Booleans that broadcast to ``values``: False on padding, which is no entry."""
    weights: Leaves
    """[E, ...], of any sign; 0 where an expert is absent."""


class Entered(NamedTuple):
    """One site and layer in the coordinates of a space."""

    coordinates: Coordinates
    frame: tuple[jax.Array, ...]
    """What leads back."""


class Space(NamedTuple):
    """A pair of pure functions."""

    enter: Callable[[LoraWeight, jax.Array], Entered]
    """Experts a [E, D, R] and weights [E] to coordinates."""
    leave: Callable[[Leaves, tuple[jax.Array, ...], int | None], LoraWeight]
    """Merged values [M, N] to an adapter's factors, of a rank if one is given."""


def _is_vector(weight: LoraWeight, *, out: bool = False) -> bool:
    """Has it one input; or, with ``out``, one output?"""
    return weight.a.shape[-2] == 1 or (out and weight.b.shape[-1] == 1)


def _factor(weight: LoraWeight, weights: jax.Array) -> Entered:
    if _is_vector(weight):
        return _delta(weight, weights)
    w = absent_removed(weight, weights)
    b = column(w.scale, 2) * w.b
    return Entered(_apart(w.a, b, weights, weights), ())


def _factor_root(weight: LoraWeight, weights: jax.Array) -> Entered:
    if _is_vector(weight):
        return _delta(weight, weights)
    w = absent_removed(weight, weights)
    product = weights * w.scale
    root = jnp.sqrt(jnp.abs(product))
    return Entered(_apart(w.a, w.b, jnp.sign(product) * root, root), ())


def _factor_raw(weight: LoraWeight, weights: jax.Array) -> Entered:
    if _is_vector(weight):
        return _delta(weight, weights)
    w = absent_removed(weight, weights)
    first = w.scale[jnp.argmax(weights != 0)]  # of the first expert that is present
    return Entered(_apart(w.a, w.b, weights, weights), (first,))


def _apart(a, b, weights_a, weights_b) -> Coordinates:
    # A rank that is zero in both factors is padding; a fresh b of zeros is not.
    used = (a != 0).any(axis=-2) | (b != 0).any(axis=-1)
    return Coordinates(
        values={"a": a, "b": b},
        live={"a": used[:, None, :], "b": used[:, :, None]},
        weights={"a": weights_a, "b": weights_b},
    )


def _leave_factor(values, kept, rank):
    if "" in values:
        return _leave_delta(values, kept, rank)
    scale = kept[0] if kept else jnp.ones((), jnp.float32)
    return _reranked(LoraWeight(values["a"], values["b"], scale), rank)


def _reranked(weight: LoraWeight, rank: int | None) -> LoraWeight:
    if rank is not None:
        return spectrum.canonical(weight, rank)
    # A merged adapter has scale 1: nothing is left to be scaled twice on export.
    b = weight.scale[..., None, None] * weight.b
    return LoraWeight(weight.a, b, jnp.ones_like(weight.scale))


def _delta(weight: LoraWeight, weights: jax.Array) -> Entered:
    dense = lora.delta(absent_removed(weight, weights))
    return Entered(_single(dense, jnp.ones((1, 1, 1), bool), weights), ())


def _leave_delta(values, _, rank):
    dense = values[""]
    d, f = dense.shape
    scale = jnp.ones((), jnp.float32)
    if rank is not None:
        u, s, vt = frame.svd(dense, rank)
        root = jnp.sqrt(s)
        return lora.pad(LoraWeight(u * root[None, :], root[:, None] * vt, scale), rank)
    if d <= f:  # exact, and of the shorter side's rank
        return LoraWeight(jnp.eye(d, dtype=jnp.float32), dense, scale)
    return LoraWeight(dense, jnp.eye(f, dtype=jnp.float32), scale)


def _knots(weight: LoraWeight, weights: jax.Array) -> Entered:
    if _is_vector(weight, out=True):
        return _delta(weight, weights)
    w = absent_removed(weight, weights)
    basis, used = frame.outputs(w)
    values = matmul(w.a, column(w.scale, 2) * matmul(w.b, basis))
    live = used[None, None, :]
    return Entered(_single(jnp.where(live, values, 0.0), live, weights), (basis,))


def _leave_knots(values, basis, rank):
    if not basis:
        return _leave_delta(values, basis, rank)
    scale = jnp.ones((), jnp.float32)
    return _reranked(LoraWeight(values[""], basis[0].T, scale), rank)


def _core(weight: LoraWeight, weights: jax.Array) -> Entered:
    if _is_vector(weight, out=True):
        return _delta(weight, weights)
    core = frame.core(absent_removed(weight, weights))
    live = core.live_in[None, :, None] & core.live_out[None, None, :]
    values = jnp.where(live, core.values, 0.0)
    return Entered(_single(values, live, weights), (core.inputs, core.outputs))


def _leave_core(values, bases, rank):
    if not bases:
        return _leave_delta(values, bases, rank)
    core = values[""]
    inputs, outputs = bases
    scale = jnp.ones((), jnp.float32)
    if rank is None:
        return LoraWeight(inputs, matmul(core, outputs.T), scale)
    u, s, vt = spectrum.thin_svd(core)
    root = jnp.sqrt(s[:rank])
    a = matmul(inputs, u[:, :rank] * root[None, :])
    b = matmul(root[:, None] * vt[:rank], outputs.T)
    return lora.pad(LoraWeight(a, b, scale), rank)


def _single(values, live, weights) -> Coordinates:
    return Coordinates({"": values}, {"": live}, {"": weights})


SPACES: Mapping[str, Space] = {
    "factor": Space(_factor, _leave_factor),
    "factor-root": Space(_factor_root, _leave_factor),
    "factor-raw": Space(_factor_raw, _leave_factor),
    "delta": Space(_delta, _leave_delta),
    "knots": Space(_knots, _leave_knots),
    "core": Space(_core, _leave_core),
}
"""By name."""
