"""The memory of a one-layer transformer: how it is written, edited and read.

The layer is that of :mod:`jaxlora.theory.model`: keys v of prompts ask a memory W, and
edits are deltas of W.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxlora import spectrum
from jaxlora.lora import Adapter, LoraWeight
from jaxlora.theory.model import OneLayer, features, keys, stream
from jaxlora.theory.solve import least_squares


def remember(
    model: OneLayer, prompts: jax.Array, answers: jax.Array, how: str = "least-squares"
) -> OneLayer:
    """Returns the model with a memory of N facts, in place of its old one.

    ``least-squares``: the memory of least norm among those of least error, exact while
    the keys are independent. ``outer-products``: ``W = sum_i v_i e_i^T / |v_i|^2``, the
    Hebbian memory, exact while the keys are orthogonal.

    Args:
      model: whose memory.
      prompts: [N, T].
      answers: entity ids [N].
      how: either name.

    Raises:
      ValueError: if there is no such memory.

    >>> from jaxlora.theory.model import init
    >>> model = init(jax.random.key(0), entities=6, width=8, hidden=32)
    >>> asked = jnp.asarray([[0, 6], [1, 6]])
    >>> answer(remember(model, asked, jnp.asarray([3, 2])), asked).tolist()
    [3, 2]
    """
    v, values = keys(model, prompts), model.entities[answers]
    if how == "least-squares":
        kernel = least_squares(v, values)
    elif how == "outer-products":
        size = jnp.sum(jnp.square(v), axis=-1, keepdims=True)
        kernel = spectrum.matmul((v / size).mT, values)
    else:
        raise ValueError(
            f"No memory {how!r}; there are 'least-squares' and 'outer-products'."
        )
    return dataclasses.replace(model, kernel=kernel)


def adapter(weight: LoraWeight) -> Adapter:
    """Returns an edit as an adapter of the one kernel, for merges and routes.

    Args:
      weight: a [M, R], b [R, D]; or with a leading axis of experts.

    >>> w = LoraWeight(jnp.ones((4, 1)), jnp.ones((1, 2)), jnp.asarray(1.0))
    >>> list(adapter(w)["memory"])
    ['kernel']
    """
    return {"memory": {"kernel": weight}}


def write(
    model: OneLayer, v: jax.Array, edits: Adapter | None = None, gate=None
) -> jax.Array:
    """Returns what the memory writes for keys v: ``v W + sum_e g_e v delta_e``.

    Linear in the gate, whatever the ranks: this one line is the algebra behind every
    claim of this package.

    Args:
      model: whose memory.
      v: keys [..., M].
      edits: an adapter, or with ``gate`` a library of E.
      gate: weights, broadcast to [..., E]: one for each expert, or each prompt's own.

    Returns:
      [..., D].
    """
    out = spectrum.matmul(v, model.kernel)
    if edits is None:
        return out
    w = edits["memory"]["kernel"]
    if gate is None:
        return out + w.scale * spectrum.matmul(spectrum.matmul(v, w.a), w.b)
    low = jnp.einsum("...m,emr->...er", v, w.a, precision="highest")
    share = jnp.broadcast_to(gate, low.shape[:-1]) * jnp.broadcast_to(
        w.scale, low.shape[:-1]
    )
    low = low * share[..., None]
    return out + jnp.einsum("...er,erd->...d", low, w.b, precision="highest")


def read(model: OneLayer, written: jax.Array) -> jax.Array:
    """Returns logits [..., V] of what was written, [..., D].

    Args:
      model: whose entities.
      written: [..., D].
    """
    return spectrum.matmul(written, model.entities.mT)


def logits(
    model: OneLayer,
    prompts: jax.Array,
    edits: Adapter | None = None,
    gate=None,
    attention: jax.Array | None = None,
) -> jax.Array:
    """Returns logits [..., V] of prompts.

    Args:
      model: embeddings, value matrix, features and memory.
      prompts: token ids [..., T].
      edits: an adapter, or with ``gate`` a library of E; None for the base.
      gate: weights, broadcast to [..., E]; None for an adapter at weight 1.
      attention: how much of each token, broadcast to [..., T]; None for 1 each.
    """
    v = keys(model, prompts, attention)
    return read(model, write(model, v, edits, gate))


def answer(
    model: OneLayer,
    prompts: jax.Array,
    edits: Adapter | None = None,
    gate=None,
    attention: jax.Array | None = None,
) -> jax.Array:
    """Returns the entity of the largest logit, [...].

    Args:
      model: embeddings, value matrix, features and memory.
      prompts: token ids [..., T].
      edits: an adapter, or with ``gate`` a library of E; None for the base.
      gate: weights, broadcast to [..., E]; None for an adapter at weight 1.
      attention: how much of each token, broadcast to [..., T]; None for 1 each.
    """
    return jnp.argmax(logits(model, prompts, edits, gate, attention), axis=-1)


def again(
    model: OneLayer,
    prompts: jax.Array,
    edits: Adapter | None = None,
    *,
    gain: float | jax.Array,
    through: jax.Array | None = None,
    looped: bool = True,
) -> jax.Array:
    """Returns logits [..., V] after a second pass that reads what the first wrote.

    The first pass writes o; the second finds ``x + gain * o V`` at the last position: o
    is near the bridge's embedding, so the stream now holds the bridge as if it had been
    a subject of the prompt. Nothing of the prompt is taken away.

    Args:
      model: the layer, used twice.
      prompts: [..., T].
      edits: an adapter.
      gain: how strongly the second pass reads what was written.
      through: what it is read through, [D, D]; None for the value matrix V.
      looped: edits are in both passes; else in the first alone, as if the second were
        a layer of its own that knows only what the base knows.
    """
    x = stream(model, prompts)
    written = write(model, features(model, x), edits)
    into = model.value if through is None else through
    x = x + gain * spectrum.matmul(written, into)
    second = edits if looped else None
    return read(model, write(model, features(model, x), second))
