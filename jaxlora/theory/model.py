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
