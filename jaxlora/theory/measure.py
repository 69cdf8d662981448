"""Measurements on one random world: pure functions of a key, to be vmapped over seeds.

Each returns ``{name: right or wrong of every item, [N] bool}``. Experts are combined by
the library's own merges, as any adapters would be.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxlora import lora, merge
from jaxlora.lora import Adapter
from jaxlora.theory import edits, memory, model
from jaxlora.theory import world as worlds
from jaxlora.theory.model import OneLayer
from jaxlora.theory.world import Sizes, Truth, World

Items: TypeAlias = dict[str, jax.Array]

GATES = (-2.0, -1.0, 0.0, 0.5, 1.0, 2.0, 4.0)
"""Weights that are tried for each expert, together: 49 gates."""


def _among_ends(logits: jax.Array) -> jax.Array:
    """The best of the ends Z alone, whose ids are the last third."""
    n = logits.shape[-1] // 3
    return 2 * n + jnp.argmax(logits[..., 2 * n :], axis=-1)


def combined(base: OneLayer, truth: Truth, edit: Adapter) -> Items:
    """What one adapter keeps of both hops, and what it says to the two-hop prompt.

    Args:
      base: the model that knows the old facts.
      truth: prompts and answers.
      edit: the merged adapter.
    """
    logits = memory.logits(base, truth.two_hop, edit)
    answers = jnp.argmax(logits, axis=-1)
    return {
        "hop 1": memory.answer(base, truth.hop1, edit) == truth.new1,
        "hop 2": memory.answer(base, truth.hop2, edit) == truth.new2,
        "bridge": answers == truth.new1,
        "composed": answers == truth.composed,
        "composed among ends": _among_ends(logits) == truth.composed,
    }


def experts_alone(world: World) -> Items:
    """Each expert on its own facts, and the base on the old ones.

    Args:
      world: a base and its two experts.
    """
    first, second = (jax.tree.map(lambda x, i=i: x[i], world.library) for i in range(2))
    base, truth = world.base, world.truth
    return {
        "base, hop 1": memory.answer(base, truth.hop1) == truth.old1,
        "base, hop 2": memory.answer(base, truth.hop2) == truth.old2,
        "expert 1": memory.answer(base, truth.hop1, first) == truth.new1,
        "expert 2": memory.answer(base, truth.hop2, second) == truth.new2,
    }


def gates(world: World) -> Items:
    """The two-hop prompt under every gate: ``{"gate 1, -2": [N]}``, among the ends.

    Args:
      world: a base and its two experts.
    """
    base, truth = world.base, world.truth
    v = model.keys(base, truth.two_hop)
    values = jnp.asarray(GATES)
    grid = jnp.stack(jnp.meshgrid(values, values, indexing="ij"), -1).reshape(-1, 2)

    def best_end(gate: jax.Array) -> jax.Array:
        gate = jnp.broadcast_to(gate, (len(v), 2))
        written = memory.write(base, v, world.library, gate)
        return _among_ends(memory.read(base, written))

    right = jax.vmap(best_end)(grid) == truth.composed[None, :]
    names = [f"gate {x:g}, {y:g}" for x in GATES for y in GATES]
    return {name: right[i] for i, name in enumerate(names)}


def written_bridge(world: World, total: Adapter, stale: float) -> jax.Array:
    """Right of "X R1 B R2", where B is the model's own answer to "X R1 R2".

    Args:
      world: whose two experts were merged.
      total: the merged adapter.
      stale: attention left on X and R1, beside 1 on the bridge and R2.
    """
    base, truth = world.base, world.truth
    bridge = memory.answer(base, truth.two_hop, total)
    x, r1, r2 = (truth.two_hop[:, i] for i in range(3))
    prompts = jnp.stack([x, r1, bridge, r2], axis=1)
    attention = jnp.asarray([stale, stale, 1.0, 1.0])[None, :]
    answers = memory.answer(base, prompts, total, attention=attention)
    return answers == truth.composed


def second_pass(
    world: World, total: Adapter, gain: float, *, tied: bool = True, looped: bool = True
) -> tuple[jax.Array, jax.Array]:
    """Answers after a second pass: right, and the base's old second hop of the bridge.

    Args:
      world: whose two experts were merged.
      total: the merged adapter.
      gain: how strongly the second pass reads what the first wrote.
      tied: it reads through V, which makes of an answer what it is as a subject; else
        through another orthogonal map.
      looped: the adapter is in the second pass too.
    """
    base, truth = world.base, world.truth
    # A rolled orthogonal matrix is orthogonal, and reads an answer as nobody.
    through = None if tied else jnp.roll(base.value, len(base.value) // 2, axis=0)
    logits = memory.again(
        base, truth.two_hop, total, gain=gain, through=through, looped=looped
    )
    answers = jnp.argmax(logits, axis=-1)
    return answers == truth.composed, answers == truth.stale


LOW, HIGH = 0.5, 2.0
"""Attention to what is stale, and gains of a second pass: below and above 1."""


def two_hop(key: jax.Array, sizes: Sizes) -> Items:
    """Everything that is asked of one world under sum, mean and all gates.

    Args:
      key: PRNG key of the world.
      sizes: of the world: N people, width D, M features, strength of relations.
    """
    world = worlds.make(key, sizes)
    base, truth = world.base, world.truth
    total, mean = (merge.preset(name)(world.library) for name in ("sum", "mean"))
    items = experts_alone(world) | gates(world)
    for name, edit in (("sum", total), ("mean", mean)):
        of_edit = combined(base, truth, edit)
        items |= {f"{name}: {what}": right for what, right in of_edit.items()}
    for stale in (0.0, LOW, HIGH):
        items[f"written, stale {stale:g}"] = written_bridge(world, total, stale)
    for gain in (LOW, HIGH):
        items[f"second pass, gain {gain:g}"] = second_pass(world, total, gain)[0]
    items["second pass, untied"] = second_pass(world, total, HIGH, tied=False)[0]
    new, old = second_pass(world, total, HIGH, looped=False)
    return items | {"second layer: new": new, "second layer: old": old}


def apart(key: jax.Array, sizes: Sizes, strength: jax.Array | float) -> Items:
    """Hop 1 after N rank-one edits, each made as if alone.

    Args:
      key: PRNG key.
      sizes: of the world.
      strength: length of the relation's embedding, which sets how keys overlap.
    """
    base, truth = _empty(key, sizes, strength)
    base = memory.remember(base, truth.hop1, truth.old1)
    change = base.entities[truth.new1] - base.entities[truth.old1]
    v = model.keys(base, truth.hop1)
    answers = memory.answer(base, truth.hop1, memory.adapter(edits.summed(v, change)))
    single = memory.adapter(edits.rank_one(v[0], change[0]))
    alone = memory.answer(base, truth.hop1[:1], single) == truth.new1[:1]
    return {"together": answers == truth.new1, "one alone": alone}


def _empty(key: jax.Array, sizes: Sizes, strength=1.0) -> tuple[OneLayer, Truth]:
    """A model without a memory, and the truth about its world."""
    facts_key, model_key = jax.random.split(key)
    base = model.init(
        model_key, entities=sizes.entities, width=sizes.width, hidden=sizes.hidden
    )
    base = dataclasses.replace(base, relations=strength * base.relations)
    return base, worlds.draw(facts_key, sizes)


def alike(key: jax.Array, sizes: Sizes, share: jax.Array | float) -> Items:
    """What the sum does where a bridge's embedding is like its person's.

    Args:
      key: PRNG key of the world.
      sizes: of the world: N people, width D, M features, strength of relations.
      share: cosine of a bridge's embedding with its person's, 0 to 1.
    """
    world = worlds.make(key, sizes, alike=share)
    return combined(world.base, world.truth, merge.preset("sum")(world.library))


def added(key: jax.Array, sizes: Sizes, answers: jax.Array | float) -> Items:
    """What the sum of two experts does that add facts to a base without any.

    Args:
      key: PRNG key of the world.
      sizes: of the world: N people, width D, M features, strength of relations.
      answers: C, how many different answers each expert's facts have.
    """
    base, truth = _empty(key, sizes)
    truth = worlds.fewer_answers(truth, answers)
    experts = [
        memory.adapter(edits.edit(model.keys(base, asked), base.entities[new]))
        for asked, new in ((truth.hop1, truth.new1), (truth.hop2, truth.new2))
    ]
    total = merge.preset("sum")(lora.stack(experts))
    return combined(base, truth, total)


def dominance(key: jax.Array, sizes: Sizes, weight: jax.Array | float) -> Items:
    """Which of two relations is answered where a person has a fact in both.

    The base knows "X R1" and "X R2"; asked "X R1 R2", with attention ``weight`` on R1
    beside 1 on X and R2.

    Args:
      key: PRNG key of the world.
      sizes: of the world: N people, width D, M features, strength of relations.
      weight: attention on R1.
    """
    base, truth = _empty(key, sizes)
    second = truth.hop1.at[:, 1].set(sizes.entities + 1)
    ends = jnp.roll(truth.old2, 1)
    prompts = jnp.concatenate([truth.hop1, second])
    base = memory.remember(base, prompts, jnp.concatenate([truth.old1, ends]))
    # The fourth slot of a prompt is empty here; its attention has no effect.
    attention = jnp.stack([jnp.ones(()), jnp.asarray(weight), *jnp.ones((2,))])
    answers = memory.answer(base, truth.two_hop, attention=attention[None, :])
    return {"r1 of X": answers == truth.old1, "r2 of X": answers == ends}


Measurement: TypeAlias = Callable[..., Items]


@functools.partial(jax.jit, static_argnums=(0, 2))
def over_seeds(
    measure: Measurement, keys: jax.Array, sizes: Sizes, *arguments: jax.Array
) -> Items:
    """``measure`` for every key in one program, compiled once a shape: [S, N] each.

    Args:
      measure: a measurement of this package, ``measure(key, sizes, *arguments)``.
      keys: S PRNG keys.
      sizes: of the world, or the load of a memory; static.
      *arguments: further arguments of the measurement, the same for all keys.

    >>> keys = jax.random.split(jax.random.key(0), 2)
    >>> over_seeds(dominance, keys, Sizes(4, 32, 64), 2.0)["r1 of X"].shape
    (2, 4)
    """
    return jax.vmap(lambda key: measure(key, sizes, *arguments))(keys)
