"""What a gate chooses on a two-hop prompt: at which token and layer, and how surely.

The reference is the token's own expert: A->B at the relation S, B->C at the last token
Z, and B->C at the bridge, where it is written out. To compose without writing, the last
token would need hop 1 early and hop 2 late.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import models
from jaxlora.evaluate.schema import Metric, Split
from jaxlora.lora import Library
from jaxlora.models import Decoder
from jaxlora.route import diagnose
from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.studies.two_hop.symbols.questions import Asked
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tree import Tree

TOKENS = ("subject", "relation", "last")
OWN_EXPERT = {"relation": 0, "last": 1, "bridge": 1}


def records(
    model: Decoder, base: Base, libraries: Library, states: Tree | None, asked: Asked
) -> list[dict[str, Any]]:
    """Returns one record per cell, layer, token and metric, with a value per person.

    Args:
      model: a decoder with a route.
      base: its base.
      libraries: one library a group, [G, E, ...]; expert 0 is A->B, expert 1 B->C.
      states: of the gate, [G, ...], or None to make them of the library.
      asked: questions about the study people, in the order of G.
    """
    n = asked.people
    direct = asked.questions.direct[:, 2 * n : 3 * n]
    given = (model, base.pad, base.params, libraries, states)
    out = list(_records(np.asarray(_weights(*given, direct)), asked.groups, TOKENS))
    # Written prompts [G, N, 5], with every person's true bridge filled in.
    tokens = np.array(asked.questions.written)
    for g, keys in enumerate(asked.keys):
        bridge = keys[Split.WRITTEN].bridge
        tokens[g, : len(bridge), 4] = bridge
    written = np.asarray(_weights(*given, jnp.asarray(tokens)))
    return out + list(_records(written[..., 4:5, :], asked.groups, ("bridge",)))


def _records(
    weights: np.ndarray, groups: tuple[Group, ...], tokens: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yields records of weights [G, S, L, N, T, E] at T tokens."""
    entropy = np.asarray(diagnose.entropy(jnp.asarray(weights)))
    best = np.asarray(diagnose.top(jnp.asarray(weights)))
    for cell in dict.fromkeys(group.cell for group in groups):
        mine = [g for g, group in enumerate(groups) if group.cell == cell]
        for layer in range(weights.shape[2]):
            for t, token in enumerate(tokens):
                measured = {
                    Metric.ROUTE_WEIGHT: weights[..., 0],
                    Metric.ROUTE_ENTROPY: entropy,
                }
                if token in OWN_EXPERT:
                    hit = (best == OWN_EXPERT[token]).astype(float)
                    measured[Metric.ROUTE_AGREEMENT] = hit
                for metric, values in measured.items():
                    people = [
                        # The mean over sites S, for each person of the group.
                        values[g, :, layer, : groups[g].size, t].mean(axis=0)
                        for g in mine
                    ]
                    yield {
                        "cell": str(cell),
                        "layer": layer,
                        "token": token,
                        "metric": str(metric),
                        "values": np.concatenate(people).round(6).tolist(),
                        "libraries": [p for p in mine for _ in range(groups[p].size)],
                    }


# At the top of the module, so that all blocks and seeds share one compiled program.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _weights(
    model: Decoder,
    pad: int,
    params: Tree,
    libraries: Library,
    states: Tree | None,
    prompts: jax.Array,
) -> jax.Array:
    def group(library: Library, state: Tree | None, tokens: jax.Array) -> jax.Array:
        inputs = models.Inputs(tokens, tokens != pad)
        chosen = models.routes(model, params, inputs, library=library, gate=state)
        return jnp.stack(jax.tree.leaves(chosen.weights))

    return jax.vmap(group)(libraries, states, prompts)
