"""Refusing a gate state that was made for another library, before it misroutes."""

import jax
import jax.numpy as jnp

from jaxlora import lora
from jaxlora.lora import Library
from jaxlora.route.deltas import ROUTER, Per, fingerprints, routers
from jaxlora.route.gate import State, states
from jaxlora.route.route import Route
from jaxlora.tree import Tree

NEAR = 0.05
"""Largest relative difference of fingerprints of one delta: a rounding to bfloat16."""


class StateError(ValueError):
    """A gate's state that does not belong to a library."""


def check(route: Route, state: Tree, library: Library) -> None:
    """Refuses a state that does not belong to a library.

    Shapes are always compared. Fingerprints of the deltas are compared outside jit
    only, where their values are known.

    Args:
      route: whose gate the state is of.
      state: as ``route.init`` returned it, or as it was read from a file.
      library: [E, ...], as the route uses it.

    Raises:
      StateError: naming the place, what it got and what it expected.
    """
    if route.gate.data == "labels":
        return
    places, wanted = states(state), _expected(route.per, library)
    if set(places) != set(wanted):
        odd = sorted(set(places) ^ set(wanted))
        raise StateError(
            f"The gate's state and the library differ in {', '.join(odd[:4])}: the "
            f"state has {len(places)} places, expected {len(wanted)}; was it made for "
            f"another library, or by a gate with another `per`?"
        )
    for path, place in places.items():
        _check_place(path, place, wanted[path])
    _check_fingerprints(route, places, library)


def _expected(per: Per, library: Library) -> dict[str, tuple[tuple, int | None]]:
    """``{path: ((E, L), D or None)}`` of the places that a state must have."""
    sites = lora.sites(library)
    if per == "site":
        return {path: (w.scale.shape, w.a.shape[-2]) for path, w in sites.items()}
    lead = next(iter(sites.values())).scale.shape
    if per == "model":
        return {ROUTER: (lead[:1], None)}
    return dict.fromkeys(routers(library), (lead, None))


def _check_place(path: str, state: object, wanted) -> None:
    lead, width = wanted
    if not isinstance(state, State):
        raise StateError(
            f"The gate's state at {path!r} is a {type(state).__name__}, expected a "
            f"State, as Route.init makes it."
        )
    for leaf in jax.tree.leaves(state):
        if leaf.shape[: len(lead)] != lead:
            raise StateError(
                f"The gate's state at {path!r} has an array of shape {leaf.shape}, "
                f"expected one that starts with {lead}, experts first; was it made for "
                f"another library?"
            )
    rest = [leaf.shape[len(lead) :] for leaf in jax.tree.leaves(state.keys)]
    wide = [shape for shape in rest if shape]
    if width is not None and wide and not any(width in shape for shape in wide):
        raise StateError(
            f"The gate's state at {path!r} has keys {wide[0]}, expected some of width "
            f"{width}; was it made for another base?"
        )


def _check_fingerprints(route: Route, places: dict[str, State], library) -> None:
    leaves = jax.tree.leaves((places, library))
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        return
    wanted = fingerprints(route.per, library)
    for path, state in places.items():
        now = wanted[path]
        # Relative to the largest of the site: small deltas differ by rounding of large.
        size = jnp.maximum(jnp.max(jnp.abs(now)), jnp.max(jnp.abs(state.fingerprint)))
        far = jnp.abs(now - state.fingerprint) > NEAR * size
        if bool(jnp.any(far)):
            expert = int(jnp.argmax(jnp.any(far.reshape(far.shape[0], -1), axis=-1)))
            raise StateError(
                f"The gate's state at {path!r} was made for another library: expert "
                f"{expert} is not the one it knows; make it again with Route.init, "
                f"from the library as the route uses it (Route.library)."
            )
