"""Training gates: keys learn, while the base and every expert stay as they are.

The loop is that of the experts: one step, vmapped over G libraries with a gate and rows
of their own. A gate that learns on the target task is one of E experts; Phatgoose's
(arXiv 2402.05859) are E gates, each of a library of one expert, on that expert's rows.
"""

import functools

import jax
import jax.numpy as jnp
import optax

from jaxlora import route
from jaxlora.lora import Library
from jaxlora.models import Decoder
from jaxlora.route import State
from jaxlora.train.experts import fit
from jaxlora.train.loss import Batch, loss
from jaxlora.tree import Tree


def split(state: Tree) -> tuple[Tree, Tree]:
    """Returns (keys, the rest) of a gate's state: what is trained, and what never is.

    ``combine(*split(state))`` gives the state back.
    """
    keys = jax.tree.map(lambda s: s.keys, state, is_leaf=route.is_state)
    rest = jax.tree.map(
        lambda s: (s.live, s.fingerprint), state, is_leaf=route.is_state
    )
    return keys, rest


def combine(keys: Tree, rest: Tree) -> Tree:
    """The inverse of :func:`split`."""
    return jax.tree.map(
        lambda fixed, own: State(own, *fixed),
        rest,
        keys,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def gates(
    model: Decoder,
    opt: optax.GradientTransformation,
    steps: int,
    pad: int,
    base: Tree,
    libraries: Library,
    states: Tree,
    rows: Batch,
) -> tuple[Tree, jax.Array]:
    """Trains the keys of one gate for each library, all at once.

    Args:
      model: a decoder with a route.
      opt: an optax optimizer, the same object in every call.
      steps: full-batch steps.
      pad: id of the padding token.
      base: frozen params tree.
      libraries: [G, E, ...], frozen.
      states: of the route, one for each library, [G, ...].
      rows: one data set a gate, [G, N, T]; unused rows have weights 0.

    Returns:
      States [G, ...] with trained keys, and the last losses [G] in nats.
    """

    def one(library: Library, state: Tree, batch: Batch) -> tuple[Tree, jax.Array]:
        keys, rest = split(state)

        def value(keys: Tree, batch: Batch) -> jax.Array:
            gate = combine(keys, rest)
            return loss(model, base, batch, pad, library=library, gate=gate)

        trained, last = fit(value, opt, steps, keys, batch)
        return combine(trained, rest), last

    return jax.vmap(one)(libraries, states, rows)


def singles(library: Library) -> Library:
    """A library [E, ...] as E libraries of one expert, [E, 1, ...]."""
    return jax.tree.map(lambda x: x[:, None], library)


def together(states: Tree) -> Tree:
    """States of E libraries of one expert, [E, 1, ...], as that of one of E experts."""
    return jax.tree.map(lambda x: jnp.squeeze(x, 1), states)
