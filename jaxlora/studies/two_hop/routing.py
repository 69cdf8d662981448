"""What a gate chooses on a two-hop prompt: at which token and layer, and how surely.

The reference is the relation token's own expert: A->B at the relation S, B->C at the
last token Z. To compose, the last token would need hop 1 early and hop 2 late.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import models
from jaxlora.evaluate.schema import Metric
from jaxlora.lora import Library
from jaxlora.models import Decoder
from jaxlora.studies.two_hop.bases import Base
from jaxlora.tasks.two_hop.experts import Group
from jaxlora.tree import Tree

TOKENS = ("subject", "relation", "last")
OWN_EXPERT = {"relation": 0, "last": 1}


def diagnose(
    model: Decoder,
    base: Base,
    libraries: Library,
    prompts: jax.Array,
    groups: tuple[Group, ...],
) -> list[dict[str, Any]]:
    """Returns one record per cell, layer, token and metric, with a value per person.

    Args:
      model: a decoder with a route.
      base: its base.
      libraries: one library a group, [G, E, ...]; expert 0 is A->B, expert 1 B->C.
      prompts: two-hop prompts [G, N, 3].
      groups: the study people, in the order of G.
    """
    weights = _weights(model, base, libraries, prompts)  # [G, S, L, N, T, E]
    entropy = -np.sum(weights * np.log(np.maximum(weights, 1e-12)), axis=-1)
    best = weights.argmax(-1)
    out: list[dict[str, Any]] = []
    for cell in dict.fromkeys(group.cell for group in groups):
        mine = [g for g, group in enumerate(groups) if group.cell == cell]
        for layer in range(weights.shape[2]):
            for t, token in enumerate(TOKENS):
                found = {
                    Metric.ROUTE_WEIGHT: weights[..., 0],
                    Metric.ROUTE_ENTROPY: entropy,
                }
                if token in OWN_EXPERT:
                    hit = (best == OWN_EXPERT[token]).astype(float)
                    found[Metric.ROUTE_AGREEMENT] = hit
                for metric, values in found.items():
                    people = [
                        # The mean over sites S, for each person of the group.
                        values[g, :, layer, : groups[g].size, t].mean(axis=0)
                        for g in mine
                    ]
                    out.append(
                        {
                            "cell": str(cell),
                            "layer": layer,
                            "token": token,
                            "metric": str(metric),
                            "values": np.concatenate(people).round(6).tolist(),
                        }
                    )
    return out


def _weights(model: Decoder, base: Base, libraries: Library, prompts) -> np.ndarray:
    found = _all_groups(model, base.pad, base.params, libraries, prompts)
    return np.asarray(found, np.float64)


# At the top of the module, so that all blocks and seeds share one compiled program.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _all_groups(
    model: Decoder, pad: int, params: Tree, libraries: Library, prompts: jax.Array
) -> jax.Array:
    def one(library: Library, tokens: jax.Array) -> jax.Array:
        mask = tokens != pad
        found = models.routes(model, params, tokens, library=library, mask=mask)
        return jnp.stack(jax.tree.leaves(found))

    return jax.vmap(one)(libraries, prompts)
