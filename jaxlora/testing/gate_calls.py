"""The calls of a route that laws compare, and what they show."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import lora
from jaxlora.lora import Library
from jaxlora.testing import gate_worlds as worlds
from jaxlora.testing.gate_worlds import Call
from jaxlora.testing.libraries import regauge

ORDER = (2, 0, 3, 1)
LOST = (1, 3)
"""Rows of which one gets a NaN, and one infinity."""


def plain(library: Library, data: Any) -> Call:
    """Returns the call with which laws compare others.

    Args:
      library: of :func:`~jaxlora.testing.gate_worlds.gate_library`.
      data: of its experts, as the gate takes them.
    """
    labels = worlds.labels_of(worlds.L, worlds.N, worlds.E)
    nobody = jnp.zeros(worlds.E, bool)
    return Call(library, data, worlds.site_inputs(), labels, nobody)


def some(call: Call, experts: Sequence[int]) -> Call:
    """Returns the call of some experts, in this order.

    Args:
      call: of all of them.
      experts: which.
    """
    chosen = np.asarray(experts)
    library, data = jax.tree.map(lambda x: x[chosen], (call.library, call.data))
    labels, poison = call.labels[..., chosen], call.poison[chosen]
    return Call(library, data, call.x, labels, poison)


def variants(call: Call) -> dict[str, Call]:
    """Returns calls of one shape by name, each other in one respect.

    Args:
      call: the plain one, which is among them.
    """
    absent = call._replace(library=worlds.without(call.library, 3))
    # Bad inputs in two rows: the other rows must not notice.
    lost = {k: x.at[:, LOST[0]].set(jnp.nan) for k, x in call.x.items()}
    lost = {k: x.at[:, LOST[1]].set(jnp.inf) for k, x in lost.items()}
    zero = {k: x.at[:, 0].set(0.0) for k, x in call.x.items()}
    return {
        "plain": call,
        "permuted": some(call, ORDER),
        "regauged": call._replace(library=regauge(call.library)),
        "absent": absent,
        "poisoned": absent._replace(poison=call.poison.at[3].set(True)),
        "lost": call._replace(
            x=lost, labels=call.labels.at[:, list(LOST)].set(jnp.nan)
        ),
        "zero": call._replace(x=zero),
        "rounded": call._replace(
            library=jax.tree.map(_rounded, call.library),
            x=jax.tree.map(_rounded, call.x),
        ),
    }


def half(call: Call) -> Call:
    """Returns a call with library and inputs in bfloat16.

    Args:
      call: in float32.
    """
    library, x = jax.tree.map(_half, (call.library, call.x))
    return call._replace(library=library, x=x)


def _half(x: jax.Array) -> jax.Array:
    return x.astype(jnp.bfloat16)


def _rounded(x: jax.Array) -> jax.Array:
    return _half(x).astype(x.dtype)


def shown(run: dict[str, Any], rows=None, experts=None) -> dict[str, Any]:
    """Returns weights and updates of a run in NumPy.

    Args:
      run: of :func:`~jaxlora.testing.gate_worlds.on_arrays`.
      rows: those to show, or None for all.
      experts: those whose weights to show, or None for all.
    """
    rows = slice(None) if rows is None else rows
    experts = slice(None) if experts is None else experts
    weights = {
        name: np.asarray(w)[:, rows][..., experts] for name, w in run["weights"].items()
    }
    updates = {
        name: np.asarray(y.astype(jnp.float32))[:, rows]
        for name, y in run["updates"].items()
    }
    return {"weights": weights, "updates": updates}


def alone(call: Call, expert: int) -> dict[str, np.ndarray]:
    """Returns updates of one expert at weight 1.

    Args:
      call: its library and inputs.
      expert: its number.
    """
    out = {}
    for name, w in lora.sites(call.library).items():
        a, b, scale = (np.asarray(z[expert], np.float64) for z in (w.a, w.b, w.scale))
        out[name] = scale[:, None, None] * (np.asarray(call.x[name]) @ a @ b)
    return out
