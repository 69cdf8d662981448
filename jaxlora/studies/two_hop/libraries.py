"""The experts of one base, and the library that each row of the table names."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlora import lora, merge
from jaxlora.evaluate import scoring
from jaxlora.evaluate.schema import Library
from jaxlora.io import checkpoint
from jaxlora.studies.two_hop import code
from jaxlora.studies.two_hop.bases import Base
from jaxlora.studies.two_hop.config import ExpertsConfig
from jaxlora.tasks.two_hop.experts import Expert, Group, groups, rows
from jaxlora.tasks.two_hop.records import encode
from jaxlora.train import full_batch as training
from jaxlora.train.step import Batch
from jaxlora.tree import Tree

# Experts that train in one program: those with the same number and length of rows.
SHORT = (
    Expert.HOP1,
    Expert.HOP2,
    Expert.TARGET,
    Expert.TARGET_FIRST,
    Expert.TARGET_SECOND,
    Expert.COUNTER1,
    Expert.COUNTER2,
)
LONG = (Expert.IDENTITY, Expert.JOINT)
PROGRAMS = ((SHORT, 3), (LONG, 3), ((Expert.DOCUMENT,), 4))

MEMBERS: Mapping[Library, tuple[Expert, ...]] = {
    Library.HOP1: (Expert.HOP1,),
    Library.HOP2: (Expert.HOP2,),
    Library.TARGET: (Expert.TARGET,),
    Library.TARGET_OTHERS: (Expert.TARGET_SECOND,),
    Library.JOINT: (Expert.JOINT,),
    Library.DOCUMENT: (Expert.DOCUMENT,),
    Library.PAIR: (Expert.HOP1, Expert.HOP2),
    Library.TRIPLE: (Expert.HOP1, Expert.HOP2, Expert.TARGET),
    Library.TRIPLE_OTHERS: (Expert.HOP1, Expert.HOP2, Expert.TARGET_SECOND),
    Library.IDENTITY: (Expert.HOP1, Expert.IDENTITY),
    Library.COUNTERFACTUAL1: (Expert.COUNTER1, Expert.HOP2),
    Library.COUNTERFACTUAL2: (Expert.HOP1, Expert.COUNTER2),
    Library.SHUFFLED: (Expert.COUNTER1, Expert.COUNTER2),
    Library.RANDOM: (Expert.HOP1, Expert.HOP2),
    Library.PERMUTED: (Expert.HOP1, Expert.HOP2),
}
ALONE = (
    Library.HOP1,
    Library.HOP2,
    Library.TARGET,
    Library.TARGET_OTHERS,
    Library.JOINT,
    Library.DOCUMENT,
)
COMBINED = tuple(library for library in MEMBERS if library not in ALONE)
# What a verdict rests on: of other methods than the usual ones, this is what is asked.
NEEDED = (
    Library.PAIR,
    Library.TRIPLE,
    Library.COUNTERFACTUAL1,
    Library.COUNTERFACTUAL2,
    Library.SHUFFLED,
    Library.RANDOM,
    Library.PERMUTED,
)
# Held-out A->C experts come in two halves; each is asked about the other half.
OTHERS = (Library.TARGET_OTHERS, Library.TRIPLE_OTHERS)


class Experts(NamedTuple):
    """All experts of one base; the leading axis of every tree is the group G."""

    base: Base
    groups: tuple[Group, ...]
    adapters: Mapping[Expert, lora.Adapter]
    own: Mapping[Expert, np.ndarray]
    """Accuracy of each expert on what it was trained on, [G]."""
    drawn: Mapping[Library, lora.Library]
    """Random and permuted libraries, [G, E, ...]: drawn once, used by every method."""


def train(
    base: Base,
    config: lora.LoraConfig,
    settings: ExpertsConfig,
    cache: Path,
    tell: Callable[[int], None] = lambda _: None,
) -> Experts:
    """Trains, or reads from the cache, every expert of a base.

    Args:
      base: a trained base.
      config: rank, scale and targets of every expert.
      settings: steps and rate.
      cache: folder of cached libraries.
      tell: called with the number of experts that were just finished.
    """
    made = groups(base.world)
    parts = []
    for names, length in PROGRAMS:
        parts.append(_program(base, made, names, length, config, settings, cache))
        tell(len(names) * len(made))
    adapters = {name: part[0][name] for part in parts for name in part[0]}
    own = {name: part[1][name] for part in parts for name in part[1]}
    return Experts(base, made, adapters, own, _controls(base.seed, adapters))


def _controls(seed: int, adapters: Mapping[Expert, lora.Adapter]):
    """Draws the controls that are made of the 2-combination."""
    trees = [adapters[name] for name in MEMBERS[Library.PAIR]]
    pair = jax.tree.map(lambda *x: jnp.stack(x, axis=1), *trees)
    keys = _keys(seed, [Expert.HOP1], lora.num_experts(pair))
    return {Library.RANDOM: _random(keys, pair), Library.PERMUTED: _permuted(pair)}


# Made once, so that all seeds share their compiled programs.
_random = jax.jit(jax.vmap(merge.random_like))
_permuted = jax.jit(jax.vmap(functools.partial(merge.permute_sites, None)))


def _program(base, made, names, length, config, settings, cache):
    keys = _keys(base.seed, names, len(made))
    batch = _stacked([[rows(g, name) for g in made] for name in names], base, length)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), batch)
    opt, steps = _adam(settings.learning_rate), settings.steps
    fit = functools.partial(
        training.fit_experts, base.model, opt, config, steps, base.pad
    )
    folder = cache / "libraries" / key_of(base, names, config, settings)
    target = jax.eval_shape(fit, base.params, flat, keys)[0]
    found = checkpoint.restore(folder, target)
    if found is None:
        library, _ = fit(base.params, flat, keys)
        checkpoint.save(folder, 0, library, {"experts": list(names)})
    else:
        library = found[1]
    hits = jax.vmap(
        lambda b, adapter: scoring.right(
            base.model, base.pad, base.params, *b, adapter=adapter
        )
    )(flat, library)
    used = flat.weights.sum(-1) > 0
    own = np.asarray((hits & used).sum(-1) / used.sum(-1)).reshape(len(names), -1)
    stacked = jax.tree.map(lambda x: x.reshape(len(names), -1, *x.shape[1:]), library)
    adapters = {
        name: jax.tree.map(lambda x, i=i: x[i], stacked) for i, name in enumerate(names)
    }
    return adapters, dict(zip(names, own, strict=True))


def _keys(seed: int, names: Sequence[Expert], size: int) -> jax.Array:
    """One key per expert, by its place in the list of all: [len(names) * size]."""
    places = np.array([list(Expert).index(name) for name in names])
    numbers = (places[:, None] * 1000 + np.arange(size)[None, :]).ravel()
    key = jax.random.key(seed)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(numbers))


def _stacked(sets, base: Base, length: int) -> Batch:
    """Encodes data sets of unequal size as [names, G, N, T]; unused rows weigh 0."""
    most = max(len(data) for group in sets for data in group)

    def one(data):
        encoded = encode(data, base.world.vocab, length)
        return [np.pad(x, [(0, most - len(data)), (0, 0)]) for x in encoded]

    arrays = [[one(data) for data in group] for group in sets]
    return Batch(*(jnp.asarray([[a[i] for a in g] for g in arrays]) for i in range(3)))


def batches(experts: Experts, names: Sequence[Expert], length: int) -> Batch:
    """Returns the training rows of some experts of every group, [names, G, N, T].

    Args:
      experts: all experts of a base.
      names: whose rows.
      length: of a row, in tokens.
    """
    sets = [[rows(g, name) for g in experts.groups] for name in names]
    return _stacked(sets, experts.base, length)


@functools.cache
def _adam(rate: float) -> optax.GradientTransformation:
    return optax.adam(rate)


def key_of(base: Base, names, config, settings: ExpertsConfig) -> str:
    """The name of a cached library: a hash of all that decides what is in it."""
    return checkpoint.fingerprint(
        {
            "base": _digest(base.params),
            "people": repr(base.world.splits["people"]),
            "seed": base.seed,
            "experts": [str(name) for name in names],
            "lora": dataclasses.asdict(config),
            "steps": settings.steps,
            "rate": settings.learning_rate,
            "code": code.EXPERTS,
            "versions": [jax.__version__, flax.__version__, optax.__version__],
            "backend": jax.default_backend(),
        }
    )


def _digest(params: Tree) -> list[str]:
    leaves = jax.tree.leaves(jax.tree.map(np.asarray, params))
    return [checkpoint.fingerprint({"bytes": leaf.tobytes().hex()}) for leaf in leaves]


def finetuned(experts: Experts, settings: ExpertsConfig) -> tuple[Tree, np.ndarray]:
    """Full fine-tuning of a copy of the base per group, on both fact sets.

    Returns:
      Params with a leading axis G, and each copy's accuracy on its own facts [G].
    """
    base = experts.base
    batch = _stacked([[rows(g, Expert.JOINT) for g in experts.groups]], base, 3)
    batch = jax.tree.map(lambda x: x[0], batch)
    opt = _adam(settings.full_learning_rate)
    params, _ = training.finetune(
        base.model, opt, settings.full_steps, base.pad, base.params, batch
    )
    hits = jax.vmap(lambda p, b: scoring.right(base.model, base.pad, p, *b))(
        params, batch
    )
    used = batch.weights.sum(-1) > 0
    return params, np.asarray((hits & used).sum(-1) / used.sum(-1))


def stacked(experts: Experts, library: Library, first_half: bool = False):
    """Returns the library of every group: leaves [G, E, ...].

    Args:
      experts: all experts of a base.
      library: a name with at least one member.
      first_half: for held-out A->C experts, use the one trained on the first half.
    """
    if library in experts.drawn:
        return experts.drawn[library]
    members = MEMBERS[library]
    if first_half:
        swap = {Expert.TARGET_SECOND: Expert.TARGET_FIRST}
        members = tuple(swap.get(name, name) for name in members)
    trees = [experts.adapters[name] for name in members]
    return jax.tree.map(lambda *x: jnp.stack(x, axis=1), *trees)
