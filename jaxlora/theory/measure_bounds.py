"""Measurements on isotropic keys: how many facts a memory of given sizes recalls.

Keys are random directions of length 1 in M dimensions, answers random unit vectors in
D; there is no prompt and no relation, only how much a matrix holds. Each returns
``{name: right or wrong of every fact, [N] bool}`` for one key.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import spectrum
from jaxlora.lora import LoraWeight
from jaxlora.theory import edits
from jaxlora.theory.measure import Items
from jaxlora.theory.model import unit
from jaxlora.theory.solve import dual, least_squares


@dataclasses.dataclass(frozen=True)
class Load:
    """N facts in a memory [M, D]; hashable."""

    facts: int
    hidden: int
    width: int
    others: int = 0
    """Facts that are known before, and are not edited."""

    def __post_init__(self):
        for name, got in (
            ("facts", self.facts),
            ("hidden", self.hidden),
            ("width", self.width),
        ):
            if got < 2:
                raise ValueError(f"{name} is {got}, but {name} >= 2 must hold.")


def _draw(key: jax.Array, load: Load, sets: int) -> tuple[jax.Array, list[jax.Array]]:
    """Keys of all facts, and ``sets`` of answers, one for each fact."""
    widths = [load.hidden] + [load.width] * sets
    shape = (load.facts + load.others, sum(widths))
    # One draw, cut up: programs with several take longer to compile.
    parts = jnp.split(jax.random.normal(key, shape), np.cumsum(widths)[:-1], axis=1)
    keys, *answers = map(unit, parts)
    return keys, answers


def _right(written: jax.Array, answers: jax.Array, place: jax.Array) -> jax.Array:
    logits = spectrum.matmul(written, answers.mT)
    return jnp.argmax(logits, axis=-1) == place


def _update(keys: jax.Array, weight: LoraWeight) -> jax.Array:
    return spectrum.matmul(spectrum.matmul(keys, weight.a), weight.b)


def capacity(key: jax.Array, load: Load) -> Items:
    """Recall of N facts by outer products, and by least squares.

    Args:
      key: PRNG key of the facts.
      load: N facts in a memory [M, D].
    """
    keys, (answers,) = _draw(key, load, 1)
    place = jnp.arange(load.facts)
    outer = edits.summed(keys, answers)
    # Through [M, D], not through the N x N overlaps of keys.
    hebbian = spectrum.matmul(keys, spectrum.matmul(outer.a, outer.b))
    fitted = spectrum.matmul(keys, least_squares(keys, answers))
    return {
        "outer products": _right(hebbian, answers, place),
        "least squares": _right(fitted, answers, place),
    }


def interference(key: jax.Array, load: Load) -> Items:
    """Facts that are still answered after N *others* were edited, and the leak itself.

    A base of least squares would have to hold N + others facts; so that only the edit
    is measured, the other facts are answered exactly before it.

    Args:
      key: PRNG key of the facts.
      load: N edits in a memory [M, D], and the facts beside them.
    """
    keys, (answers,) = _draw(key, load, 1)
    n = load.facts
    inside, outside = keys[:n], keys[n:]
    change = jnp.roll(answers[:n], 1, axis=0) - answers[:n]
    moved = _update(outside, edits.edit(inside, change))
    # The edited facts' answers are rivals as well.
    place = n + jnp.arange(load.others)
    kept = _right(answers[n:] + moved, answers, place)
    leak = jnp.sum(jnp.square(spectrum.matmul(outside, dual(inside))), axis=-1)
    return {"kept": kept, "leak": leak}


RANKS = (2, 4, 6, 8, 12, 16, 24, 32, 40, 48, 64, 96)
"""Ranks that are tried; those above D of a load are left out."""


def ranks_of(load: Load) -> tuple[int, ...]:
    """The ranks that are tried at a load.

    Args:
      load: N facts in a memory [M, D].

    >>> ranks_of(Load(64, 128, 8))
    (2, 4, 6, 8)
    """
    return tuple(rank for rank in RANKS if rank <= min(load.facts, load.width))


def low_rank(key: jax.Array, load: Load) -> Items:
    """Recall of N facts by one edit of each rank: added to nothing, and overwriting.

    Args:
      key: PRNG key of the facts.
      load: N facts in a memory [M, D].
    """
    keys, (new, old) = _draw(key, load, 2)
    place = jnp.arange(load.facts)
    both = jnp.concatenate([new, old])
    # Edits of rank R are nested: the first R columns of the one of full rank.
    most = min(load.facts, load.width)
    add, over = (edits.edit(keys, change, most) for change in (new, new - old))
    recalls = {}
    for rank in ranks_of(load):
        added = _update(keys, _first(add, rank))
        written = old + _update(keys, _first(over, rank))
        recalls[f"adding, rank {rank}"] = _right(added, new, place)
        recalls[f"overwriting, rank {rank}"] = _right(written, both, place)
    return recalls


SCALED = (0.5, 0.625, 0.75, 0.875)
"""Weights of an edit that overwrites: that of a mean of two, and more."""
PARTS = (0.5, 0.75, 1.0)
"""Ranks that are tried beside them, as shares of D."""


def scaled(key: jax.Array, load: Load, scale: jax.Array | float) -> Items:
    """Recall of N facts by one edit that a merge has scaled, at three ranks.

    Added facts have no rival but noise, which is scaled as they are.

    Args:
      key: PRNG key of the facts.
      load: N facts in a memory [M, D].
      scale: weight of the edit.
    """
    keys, (new, old) = _draw(key, load, 2)
    place = jnp.arange(load.facts)
    both = jnp.concatenate([new, old])
    add, over = (edits.edit(keys, x, load.width) for x in (new, new - old))
    recalls = {}
    for part in PARTS:
        rank = int(part * load.width)
        added = scale * _update(keys, _first(add, rank))
        written = old + scale * _update(keys, _first(over, rank))
        recalls[f"adding, rank {part:g} D"] = _right(added, new, place)
        recalls[f"overwriting, rank {part:g} D"] = _right(written, both, place)
    return recalls


def _first(weight: LoraWeight, rank: int) -> LoraWeight:
    return LoraWeight(weight.a[:, :rank], weight.b[:rank], weight.scale)
