"""The experts of one base, trained in few programs or read from the cache."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlora import locks, lora
from jaxlora.evaluate import scoring
from jaxlora.io import checkpoint
from jaxlora.studies.harness import code, provenance
from jaxlora.studies.two_hop.symbols import expert_rows
from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.studies.two_hop.symbols.recipes import ExpertsConfig, Kind, kinds
from jaxlora.tasks.two_hop.experts import Expert, Group, groups
from jaxlora.train import full_batch as training
from jaxlora.train.step import Batch
from jaxlora.tree import Tree

# Taken on import: a file that is edited while a study runs is not what runs.
CODE = code.digest("jaxlora.studies.two_hop.symbols.experts")


class Experts(NamedTuple):
    """All experts of one base; the leading axis of every tree is the group G."""

    base: Base
    groups: tuple[Group, ...]
    adapters: Mapping[Expert, lora.Adapter]
    accuracy: Mapping[Expert, np.ndarray]
    """Accuracy of each expert on what it was trained on, [G]."""
    kinds: Mapping[Expert, Kind]
    """What each was trained on, and in which layers."""


class Trained(NamedTuple):
    """The experts of one kind, of every group."""

    adapters: lora.Library
    """[G, ...]."""
    accuracy: np.ndarray
    """On what they were trained on, [G]."""


def train(
    base: Base,
    config: lora.LoraConfig,
    recipe: ExpertsConfig,
    cache: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> Experts:
    """Trains, or reads from the cache, every expert of a base.

    Args:
      base: a trained base.
      config: rank, scale and targets of every expert.
      recipe: rows, layers, steps and rate.
      cache: folder of cached libraries.
      progress: called with the number of experts that were just finished.
    """
    people, names = groups(base.world), kinds(recipe)
    every = tuple(dict.fromkeys(names.values()))
    trained = train_kinds(base, people, every, (config, recipe), cache, progress)
    return select(base, people, names, trained)


def select(
    base: Base,
    people: tuple[Group, ...],
    names: Mapping[Expert, Kind],
    trained: Mapping[Kind, Trained],
) -> Experts:
    """Gives the experts of a recipe their names.

    Args:
      base: whose experts.
      people: the groups.
      names: the kind of each expert.
      trained: experts of all these kinds, and perhaps of others.
    """
    adapters = {name: trained[kind].adapters for name, kind in names.items()}
    accuracy = {name: trained[kind].accuracy for name, kind in names.items()}
    return Experts(base, people, adapters, accuracy, names)


def train_kinds(
    base: Base,
    people: tuple[Group, ...],
    every: Sequence[Kind],
    how: tuple[lora.LoraConfig, ExpertsConfig],
    cache: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[Kind, Trained]:
    """Trains experts of many kinds, those with rows of one size in one program.

    Args:
      base: a trained base.
      people: its groups.
      every: the kinds.
      how: of adapters, and of training; what the kinds say of rows and layers counts.
      cache: folder of cached libraries.
      progress: called with the number of experts that were just finished.
    """
    out: dict[Kind, Trained] = {}
    for some in expert_rows.programs(base, people, every, how[1].draw):
        batch = expert_rows.encoded(base, people, some)
        library = _program(base, some, batch, how, cache)
        accuracy = _accuracy(base, batch, library).reshape(len(some), -1)
        for i, kind in enumerate(some):
            share = slice(i * len(people), (i + 1) * len(people))
            mine = jax.tree.map(lambda x, s=share: x[s], library)
            out[kind] = Trained(mine, accuracy[i])
        progress(len(some) * len(people))
    return out


def _program(
    base: Base, some: Sequence[Kind], batch: Batch, how, cache: Path
) -> lora.Library:
    """Experts [kinds * G, ...] of one program, trained or restored."""
    config, recipe = how
    size = len(batch.tokens) // len(some)
    keys = keys_of(base.seed, [kind.expert for kind in some], size)
    masks = np.repeat(expert_rows.masks(base, some), size, axis=0)
    # Where nobody is confined, sites without layers (a shared memory) may be adapted.
    layers = None if masks.all() else jnp.asarray(masks)
    opt, steps = _adam(recipe.learning_rate), training.Steps(recipe.steps, recipe.draw)
    fit = functools.partial(_fit, base.model, opt, config, steps, base.pad)
    folder = cache / "libraries" / key_of(base, some, config, recipe)
    target = jax.eval_shape(fit, base.params, batch, keys, layers)
    with locks.making(folder):
        restored = checkpoint.restore(folder, target)
        if restored is not None:
            return restored[1]
        library = fit(base.params, batch, keys, layers)
        names = [str(kind.expert) for kind in some]
        checkpoint.save(folder, 0, library, {"experts": names})
        return library


def _fit(model, opt, config, steps, pad, params, batch, keys, layers):
    starts = _starts(config, params, keys, layers)
    return training.fit_from(model, opt, steps, pad, params, batch, starts, keys)[0]


@functools.partial(jax.jit, static_argnums=0)
def _starts(config: lora.LoraConfig, params: Tree, keys, layers) -> lora.Library:
    def start(key: jax.Array, mask: jax.Array | None) -> lora.Adapter:
        fresh = lora.init(key, params, config)
        return fresh if mask is None else lora.confine(fresh, mask)

    return jax.vmap(start)(keys, layers)


def _accuracy(base: Base, batch: Batch, library: lora.Library) -> np.ndarray:
    """Share of its own rows that each expert of [M, ...] answers right, [M]."""
    ask = functools.partial(scoring.right, base.model, base.pad, base.params)
    hits = jax.vmap(lambda rows, x: ask(*rows, adapter=x))(batch, library)
    return _share(hits, batch)


def _share(hits: jax.Array, batch: Batch) -> np.ndarray:
    used = batch.weights.sum(-1) > 0
    return np.asarray((hits & used).sum(-1) / used.sum(-1))


def keys_of(seed: int, names: Sequence[Expert], size: int) -> jax.Array:
    """One key per expert, by its place in the list of all, [len(names) * size].

    Args:
      seed: of the base.
      names: of the experts.
      size: number of groups.
    """
    places = np.array([list(Expert).index(name) for name in names])
    numbers = (places[:, None] * 1000 + np.arange(size)[None, :]).ravel()
    key = jax.random.key(seed)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(numbers))


def batches(experts: Experts, names: Sequence[Expert]) -> Batch:
    """Returns the training rows of some experts of every group, [names, G, N, T].

    Args:
      experts: all experts of a base.
      names: whose rows.
    """
    some = [experts.kinds[name] for name in names]
    flat = expert_rows.encoded(experts.base, experts.groups, some)
    return jax.tree.map(lambda x: x.reshape(len(names), -1, *x.shape[1:]), flat)


@functools.cache
def _adam(rate: float) -> optax.GradientTransformation:
    return optax.adam(rate)


def key_of(base: Base, some: Sequence[Kind], config, recipe: ExpertsConfig) -> str:
    """The name of a cached library: a hash of all that decides what is in it.

    Args:
      base: a trained base.
      some: the kinds of its experts.
      config: rank, scale and targets.
      recipe: steps and rate.
    """
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(base.params)]
    digests = [checkpoint.fingerprint({"bytes": x.tobytes().hex()}) for x in leaves]
    return checkpoint.fingerprint(
        {
            "base": digests,
            "people": repr(base.world.splits["people"]),
            "seed": base.seed,
            "experts": [dataclasses.asdict(kind) for kind in some],
            "lora": dataclasses.asdict(config),
            "steps": [recipe.steps, recipe.draw],
            "rate": recipe.learning_rate,
            "code": CODE,
            **provenance.program(),
        }
    )


def finetuned(experts: Experts, recipe: ExpertsConfig) -> tuple[Tree, np.ndarray]:
    """Full fine-tuning of a copy of the base per group, on both fact sets.

    Args:
      experts: of a base, for its groups.
      recipe: steps and rate.

    Returns:
      Params with a leading axis G, and each copy's accuracy on its own facts [G].
    """
    base = experts.base
    batch = expert_rows.encoded(base, experts.groups, [experts.kinds[Expert.JOINT]])
    how = (base.model, _adam(recipe.full_learning_rate), recipe.full_steps)
    params, _ = training.finetune(*how, base.pad, base.params, batch)
    ask = functools.partial(scoring.right, base.model, base.pad)
    return params, _share(jax.vmap(lambda p, b: ask(p, *b))(params, batch), batch)
