"""What is predicted of every measurement: the same names, without a random weight.

Each function mirrors one of :mod:`jaxlora.theory.measure`. A share of prompts is read
from the model of infinite width; two answers whose logits tie there share it, because
what breaks the tie in a finite model is noise that knows neither.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora.theory import bounds, compose, limit, memory, model, rank_bounds
from jaxlora.theory import world as worlds
from jaxlora.theory.measure import HIGH, LOW
from jaxlora.theory.measure_bounds import PARTS, Load, ranks_of
from jaxlora.theory.world import Expected, Sizes

Shares = dict[str, float]

TIE = 1e-3
"""Logits that are closer than this tie."""


def share(logits: jax.Array, right: jax.Array) -> float:
    """Returns the share of prompts whose right answer is the largest, ties divided.

    Args:
      logits: [N, V].
      right: ids [N] of the right answers.

    >>> share(jnp.asarray([[1.0, 1.0, 0.0], [0.0, 0.0, 2.0]]), jnp.asarray([0, 2]))
    0.75
    """
    values, place = np.asarray(logits, np.float64), np.asarray(right)
    best = values >= values.max(axis=-1, keepdims=True) - TIE
    hit = best[np.arange(len(place)), place]
    return float(np.mean(hit / best.sum(axis=-1)))


def _answers(world: Expected, prompts, right, gate=None, edits=None) -> float:
    x = model.stream(world.base, prompts)
    experts = world.experts if edits is None else edits
    written = limit.write(x, world.known, experts, gate)
    return share(memory.read(world.base, written), right)


def two_hop(sizes: Sizes) -> Shares:
    """Predicts :func:`jaxlora.theory.measure.two_hop`, gates and chance included.

    Args:
      sizes: of the world: N people, width D, M features, strength of relations.
    """
    world = worlds.expected(jax.random.key(0), sizes)
    truth, first, second = world.truth, world.experts[:1], world.experts[1:]
    shares = {
        "base, hop 1": _answers(world, truth.hop1, truth.old1, edits=()),
        "base, hop 2": _answers(world, truth.hop2, truth.old2, edits=()),
        "expert 1": _answers(world, truth.hop1, truth.new1, edits=first),
        "expert 2": _answers(world, truth.hop2, truth.new2, edits=second),
        "gate *": 1 / sizes.people,
    }
    for name, gate in (("sum", (1.0, 1.0)), ("mean", (0.5, 0.5))):
        shares |= {
            f"{name}: hop 1": _answers(world, truth.hop1, truth.new1, gate),
            f"{name}: hop 2": _answers(world, truth.hop2, truth.new2, gate),
            f"{name}: bridge": _answers(world, truth.two_hop, truth.new1, gate),
            f"{name}: composed": _answers(world, truth.two_hop, truth.composed, gate),
            # Ends tie: nothing in the prompt tells one from another.
            f"{name}: composed among ends": 1 / sizes.people,
        }
    return shares | _written(world) | _second(world)


def _written(world: Expected) -> Shares:
    truth, shares = world.truth, {}
    x, r1, r2 = (truth.two_hop[:, i] for i in range(3))
    prompts = jnp.stack([x, r1, truth.new1, r2], axis=1)
    for stale in (0.0, LOW, HIGH):
        attention = jnp.asarray([[stale, stale, 1.0, 1.0]])
        stream = model.stream(world.base, prompts, attention)
        written = limit.write(stream, world.known, world.experts)
        logits = memory.read(world.base, written)
        shares[f"written, stale {stale:g}"] = share(logits, truth.composed)
    return shares


def _second(world: Expected) -> Shares:
    truth, base = world.truth, world.base
    x = model.stream(base, truth.two_hop)

    def after(gain: float, upper=None) -> jax.Array:
        out = limit.again(base, x, world.known, world.experts, gain, upper)
        return memory.read(base, out)

    shares = {
        f"second pass, gain {gain:g}": share(after(gain), truth.composed)
        for gain in (LOW, HIGH)
    }
    above = after(HIGH, upper=())
    return shares | {
        # What is read through another map is near nobody's embedding.
        "second pass, untied": 0.0,
        "second layer: new": share(above, truth.composed),
        "second layer: old": share(above, truth.stale),
    }


def apart(sizes: Sizes, strength: float) -> Shares:
    """Predicts :func:`jaxlora.theory.measure.apart`.

    Args:
      sizes: of the world: N people, width D, M features, strength of relations.
      strength: length of the relation's embedding.
    """
    sizes = dataclasses.replace(sizes, strength=strength)
    return {"together": compose.apart(sizes), "one alone": 1.0}


def alike(sizes: Sizes, share: float) -> Shares:
    """Predicts :func:`jaxlora.theory.measure.alike`.

    Args:
      sizes: of the world: N people, width D, M features, strength of relations.
      share: cosine of a bridge's embedding with its person's, 0 to 1.
    """
    return {
        "hop 1": 1.0,
        "hop 2": 1.0,
        "composed among ends": compose.composes(sizes, share),
    }


def dominance(sizes: Sizes, weight: float) -> Shares:
    """Predicts :func:`jaxlora.theory.measure.dominance`.

    Args:
      sizes: of the world: N people, width D, M features, strength of relations.
      weight: attention on R1.
    """
    first = compose.dominates(sizes, weight)
    return {"r1 of X": first, "r2 of X": 1 - first}


def capacity(load: Load) -> Shares:
    """Predicts :func:`jaxlora.theory.measure_bounds.capacity`.

    Args:
      load: N facts in a memory [M, D].
    """
    sizes = (load.facts, load.hidden, load.width)
    return {
        "outer products": bounds.outer_products(*sizes),
        "least squares": bounds.least_squares(*sizes),
    }


def interference(load: Load) -> Shares:
    """Predicts the share kept of :func:`jaxlora.theory.measure_bounds.interference`.

    Args:
      load: N edits in a memory [M, D], and the facts beside them.
    """
    kept = bounds.retention(load.facts, load.hidden, load.width, load.others)
    return {"kept": kept}


def low_rank(load: Load) -> Shares:
    """Predicts :func:`jaxlora.theory.measure_bounds.low_rank`.

    Args:
      load: N facts in a memory [M, D].
    """
    shares = {}
    for rank in ranks_of(load):
        shares[f"adding, rank {rank}"] = rank_bounds.adding(
            rank, load.facts, load.width
        )
        over = rank_bounds.overwriting(rank, load.facts, load.width)
        shares[f"overwriting, rank {rank}"] = over
    return shares


def scaled(load: Load, scale: float) -> Shares:
    """Predicts :func:`jaxlora.theory.measure_bounds.scaled`.

    Args:
      load: N facts in a memory [M, D].
      scale: weight of the edit.
    """
    shares = {}
    for part in PARTS:
        rank = int(part * load.width)
        sizes = (rank, load.facts, load.width)
        shares[f"adding, rank {part:g} D"] = rank_bounds.adding(*sizes)
        over = rank_bounds.overwriting(*sizes, scale)
        shares[f"overwriting, rank {part:g} D"] = over
    return shares


def added(sizes: Sizes, answers: float) -> Shares:
    """Predicts :func:`jaxlora.theory.measure.added`.

    Args:
      sizes: of the world: N people, width D, M features, strength of relations.
      answers: C, how many different answers each expert's facts have.
    """
    empty, truth, known, _ = worlds.expected(jax.random.key(0), sizes)
    truth = worlds.fewer_answers(truth, answers)
    nothing = known._replace(change=jnp.zeros_like(known.change))
    experts = (
        limit.facts(empty, truth.hop1, truth.new1),
        limit.facts(empty, truth.hop2, truth.new2),
    )
    shares = {}
    for hop, prompts, right in (
        ("hop 1", truth.hop1, truth.new1),
        ("hop 2", truth.hop2, truth.new2),
        ("bridge", truth.two_hop, truth.new1),
    ):
        written = limit.write(model.stream(empty, prompts), nothing, experts)
        shares[hop] = share(memory.read(empty, written), right)
    return shares
