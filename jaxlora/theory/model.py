"""A one-layer transformer whose MLP is a key-value store of facts.

After the setting of Chen et al. (arXiv 2506.13479), as far as it could be rebuilt: on a
prompt such as "X R" attention moves the subject to the last position, the first matrix
of the MLP makes a key of what stands there, and the second, the *memory*, holds a value
for every key:

    x = sum_t attention_t moved(t),   v = ReLU(x U),   answer = argmax_i <v W, e_i>,

where an entity is moved through the value matrix, ``moved(e) = e V``, and a relation
stays as it is. Answers are read with the entities' own embeddings (tied), so that what
a layer writes is something that a further layer can read.

Letters: V entities, S relations, D width, M hidden width (length of a key), N prompts,
T tokens. Token ids are entities (0 to V - 1), then relations (V to V + S - 1); a
negative id is no token, so that one- and two-hop prompts have one shape.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import spectrum
from jaxlora.lora import Adapter, LoraWeight
from jaxlora.theory.solve import least_squares

SITE = "memory/kernel"
"""Name of the one kernel that edits adapt."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OneLayer:
    """The frozen parameters; ``kernel`` is the memory W, [M, D]."""

    entities: jax.Array
    """[V, D], of unit length."""
    relations: jax.Array
    """[S, D], of length ``strength``."""
    value: jax.Array
    """[D, D], orthogonal."""
    up: jax.Array
    """U, [D, M], N(0, 2 / M): then |ReLU(x U)| is |x| on average."""
    kernel: jax.Array
    """W, [M, D]."""


def init(
    key: jax.Array,
    *,
    entities: int,
    width: int,
    hidden: int,
    relations: int = 2,
    strength: float = 1.0,
) -> OneLayer:
    """Returns a model with random embeddings and features, and an empty memory.

    Args:
      key: PRNG key.
      entities: V, at least 2.
      width: D.
      hidden: M, the number of features and so of independent keys.
      relations: S.
      strength: length of a relation's embedding; an entity's is 1.

    Raises:
      ValueError: if a size is below its least, naming it.

    >>> model = init(jax.random.key(0), entities=6, width=8, hidden=32)
    >>> (model.up.shape, bool((model.kernel == 0).all()))
    ((8, 32), True)
    """
    sizes = {"entities": (entities, 2), "width": (width, 2), "hidden": (hidden, 1)}
    for name, (got, least) in (sizes | {"relations": (relations, 1)}).items():
        if got < least:
            raise ValueError(
                f"{name} is {got}, but {name} >= {least} must hold: a store of facts "
                f"needs a subject, a relation, and an answer that could be another."
            )
    if not strength > 0:
        raise ValueError(f"strength is {strength}, but strength > 0 must hold.")
    # One draw, cut up: a program with several takes longer to compile.
    rows = np.cumsum([entities, relations, width])
    drawn = jax.random.normal(key, (rows[-1] + hidden, width))
    people, named, square, up = jnp.split(drawn, rows)
    return OneLayer(
        entities=unit(people),
        relations=strength * unit(named),
        value=spectrum.qr(square)[0],
        # ReLU halves the energy; 2 / M restores the length of the stream.
        up=up.T * np.sqrt(2 / hidden, dtype="f4"),
        kernel=jnp.zeros((hidden, width)),
    )


def unit(x: jax.Array) -> jax.Array:
    """Rows of ``x`` brought to length 1.

    Args:
      x: [..., D], no row zero.

    >>> unit(jnp.asarray([[3.0, 4.0]])).round(3).tolist()
    [[0.6..., 0.8...]]
    """
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def liken(
    model: OneLayer, rows: jax.Array, to: jax.Array, share: float | jax.Array
) -> OneLayer:
    """Makes embeddings alike: ``e_rows = share e_to + sqrt(1 - share^2) e_rows``.

    With rows the bridges and ``to`` their subjects this breaks the assumption under
    which nothing in a two-hop prompt points at the bridge.

    Args:
      model: whose entities.
      rows: ids [K] of the entities that change.
      to: ids [K] of those that they become like.
      share: 0 changes nothing, 1 makes them the same.
    """
    e = model.entities
    new = share * e[to] + jnp.sqrt(1.0 - jnp.square(share)) * e[rows]
    return dataclasses.replace(model, entities=e.at[rows].set(unit(new)))


def stream(
    model: OneLayer, prompts: jax.Array, attention: jax.Array | None = None
) -> jax.Array:
    """Returns what stands at the last position, ``sum_t attention_t moved(t)``.

    Args:
      model: embeddings and value matrix.
      prompts: token ids [..., T].
      attention: how much of each token, broadcast to [..., T]; None for 1 each.

    Returns:
      [..., D].
    """
    moved = spectrum.matmul(model.entities, model.value)
    table = jnp.concatenate([moved, model.relations])
    # A negative id reads some row of the table, at weight 0.
    share = (prompts >= 0).astype(table.dtype)
    if attention is not None:
        share = share * jnp.broadcast_to(attention, prompts.shape)
    return jnp.einsum("...td,...t->...d", table[prompts], share, precision="highest")


def features(model: OneLayer, x: jax.Array) -> jax.Array:
    """Returns keys ``v = ReLU(x U)``, [..., M], of streams x [..., D].

    Args:
      model: whose features U.
      x: streams [..., D].
    """
    return jax.nn.relu(spectrum.matmul(x, model.up))


def keys(
    model: OneLayer, prompts: jax.Array, attention: jax.Array | None = None
) -> jax.Array:
    """Returns the key of each prompt, [..., M].

    Args:
      model: embeddings, value matrix and features.
      prompts: token ids [..., T].
      attention: how much of each token, broadcast to [..., T]; None for 1 each.

    >>> model = init(jax.random.key(0), entities=6, width=8, hidden=32)
    >>> keys(model, jnp.asarray([[0, 6, -1], [0, 6, 7]])).shape
    (2, 32)
    """
    return features(model, stream(model, prompts, attention))


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
