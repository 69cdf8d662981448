"""A world of two relations for the one-layer model, and two experts that overwrite it.

People X, bridges Y and ends Z are N entities each. The base knows ``r1: X -> Y`` and
``r2: Y -> Z``, two random bijections. Expert 1 rewrites every fact of r1, expert 2
every fact of r2; what is new is a bijection again in which nobody keeps the old answer.
So the new second hop of a new bridge is nowhere in one expert.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlora.lora import Library
from jaxlora.theory import edits, limit, memory, model
from jaxlora.theory.limit import Facts
from jaxlora.theory.model import OneLayer

NOTHING = -1
"""The token that is no token."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of a world; hashable, so that one program is compiled for each."""

    people: int
    """N, at least 3."""
    width: int
    """D."""
    hidden: int
    """M, at least 2 N: the base's facts are all exact."""
    strength: float = 1.0
    """Length of a relation's embedding beside an entity's 1."""

    def __post_init__(self):
        if self.people < 3:
            raise ValueError(
                f"people is {self.people}, but N >= 3 must hold: new answers are "
                f"neither the old ones nor all one's neighbours'."
            )
        if 2 * self.people > self.hidden:
            raise ValueError(
                f"{self.people} people have {2 * self.people} facts at hidden width "
                f"{self.hidden}: 2 N <= M fails, so the base cannot know them all."
            )

    @property
    def entities(self) -> int:
        """V = 3 N."""
        return 3 * self.people


class Truth(NamedTuple):
    """Prompts [N, 4] and answers [N]; line i is about person i, or bridge i."""

    hop1: jax.Array
    hop2: jax.Array
    two_hop: jax.Array
    old1: jax.Array
    old2: jax.Array
    new1: jax.Array
    new2: jax.Array
    composed: jax.Array
    """``r2~(r1~(x))``: what the two new facts compose to."""
    stale: jax.Array
    """``r2(r1~(x))``: the old second hop of the new bridge."""


def draw(key: jax.Array, sizes: Sizes) -> Truth:
    """Draws old and new bijections.

    Args:
      key: PRNG key.
      sizes: of which N counts.

    >>> truth = draw(jax.random.key(0), Sizes(5, 8, 32))
    >>> bool((truth.new1 != truth.old1).all()), sorted((truth.composed - 10).tolist())
    (True, [0, 1, 2, 3, 4])
    """
    n, v = sizes.people, sizes.entities
    # Four permutations by one sort: a program of four takes longer to compile.
    drawn = jnp.argsort(jax.random.uniform(key, (4, n)), axis=1)
    # Answers of r1 are bridges, ids n to 2 n - 1; those of r2 are ends, n further.
    old1, old2 = n + drawn[0], n + drawn[1]
    new1, new2 = _deranged(drawn[2], old1), _deranged(drawn[3], old2)
    people, none = jnp.arange(n), jnp.full(n, NOTHING)
    r1, r2 = jnp.full(n, v), jnp.full(n, v + 1)
    return Truth(
        hop1=jnp.stack([people, r1, none, none], axis=1),
        hop2=jnp.stack([n + people, r2, none, none], axis=1),
        two_hop=jnp.stack([people, r1, r2, none], axis=1),
        old1=old1,
        old2=n + old2,
        new1=new1,
        new2=n + new2,
        composed=n + new2[new1 - n],
        stale=n + old2[new1 - n],
    )


def _deranged(order: jax.Array, answers: jax.Array) -> jax.Array:
    """Hands every answer to the next in a cycle: nobody keeps their own."""
    return answers.at[order].set(answers[jnp.roll(order, 1)])


def fewer_answers(truth: Truth, answers: float | jax.Array) -> Truth:
    """Returns the truth with C different new answers in each relation, not N.

    Args:
      truth: of N people.
      answers: C, from 1 to N; may be traced.

    >>> truth = fewer_answers(draw(jax.random.key(0), Sizes(5, 8, 32)), 2)
    >>> sorted(set(truth.new1.tolist())), sorted(set(truth.new2.tolist()))
    ([5, 6], [10, 11])
    """
    n = len(truth.new1)
    few = jnp.asarray(answers, jnp.int32)
    new1, new2 = n + (truth.new1 - n) % few, 2 * n + (truth.new2 - 2 * n) % few
    return truth._replace(new1=new1, new2=new2, composed=new2[new1 - n])


class World(NamedTuple):
    """A base that knows the old facts, and a library of the two experts."""

    base: OneLayer
    truth: Truth
    library: Library


def make(
    key: jax.Array,
    sizes: Sizes,
    *,
    alike: float | jax.Array = 0.0,
    rank: int | None = None,
) -> World:
    """Returns a world: base by least squares, experts by edits of least norm.

    Args:
      key: PRNG key.
      sizes: static under jit.
      alike: cosine of every new bridge's embedding with its person's, 0 to 1.
      rank: of the experts; None for N, enough for all facts.

    >>> world = make(jax.random.key(0), Sizes(5, 64, 256))
    >>> from jaxlora import lora
    >>> lora.num_experts(world.library)
    2
    """
    facts_key, model_key = jax.random.split(key)
    truth = draw(facts_key, sizes)
    empty = model.init(
        model_key,
        entities=sizes.entities,
        width=sizes.width,
        hidden=sizes.hidden,
        strength=sizes.strength,
    )
    empty = model.liken(empty, truth.new1, truth.hop1[:, 0], alike)
    return taught(empty, truth, rank=rank)


def taught(empty: OneLayer, truth: Truth, *, rank: int | None = None) -> World:
    """Returns a world of a model without a memory: base and both experts.

    Args:
      empty: embeddings, value matrix and features.
      truth: prompts and answers.
      rank: of the experts; None for N, enough for all facts.
    """
    prompts = jnp.concatenate([truth.hop1, truth.hop2])
    base = memory.remember(empty, prompts, jnp.concatenate([truth.old1, truth.old2]))
    # One edit, vmapped over the two relations: a library [2, ...].
    experts = jax.vmap(lambda *facts: rewrite(base, *facts, rank=rank))(
        jnp.stack([truth.hop1, truth.hop2]),
        jnp.stack([truth.new1, truth.new2]),
        jnp.stack([truth.old1, truth.old2]),
    )
    return World(base, truth, memory.adapter(experts))


def rewrite(base: OneLayer, prompts, new, old, rank: int | None = None):
    """Returns the edit of least norm that answers prompts new in place of old.

    Args:
      base: the model whose memory is edited.
      prompts: token ids [N, T].
      new: entity ids [N] of the new answers.
      old: entity ids [N] of the answers before.
      rank: of the edit; None for N.
    """
    change = base.entities[new] - base.entities[old]
    return edits.edit(model.keys(base, prompts), change, rank)


class Expected(NamedTuple):
    """The same world at infinite width: facts in place of weights."""

    base: OneLayer
    truth: Truth
    known: Facts
    experts: tuple[Facts, Facts]


def expected(
    key: jax.Array, sizes: Sizes, *, alike: float = 0.0, apart: bool = False
) -> Expected:
    """Returns the world that :func:`make` tends to as D and M grow.

    Args:
      key: draws the bijections, which do not matter.
      sizes: only N and the strength are used.
      alike: cosine of every new bridge's embedding with its person's, 0 to 1.
      apart: experts are sums of rank-one edits, each made alone.
    """
    truth = draw(key, sizes)
    base = limit.ideal(entities=sizes.entities, strength=sizes.strength)
    base = model.liken(base, truth.new1, truth.hop1[:, 0], alike)
    prompts = jnp.concatenate([truth.hop1, truth.hop2])
    known = limit.facts(base, prompts, jnp.concatenate([truth.old1, truth.old2]))
    experts = (
        limit.facts(base, truth.hop1, truth.new1, truth.old1, apart=apart),
        limit.facts(base, truth.hop2, truth.new2, truth.old2, apart=apart),
    )
    return Expected(base, truth, known, experts)
