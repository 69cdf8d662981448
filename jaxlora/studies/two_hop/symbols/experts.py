"""The experts of one base, trained in few programs or read from the cache."""

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

from jaxlora import lora
from jaxlora.evaluate import scoring
from jaxlora.io import checkpoint
from jaxlora.studies.harness import code
from jaxlora.studies.two_hop.symbols.bases import Base
from jaxlora.studies.two_hop.symbols.recipes import ExpertsConfig
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
# Taken on import: a file that is edited while a study runs is not what runs.
CODE = code.digest("jaxlora.studies.two_hop.symbols.experts")


class Experts(NamedTuple):
    """All experts of one base; the leading axis of every tree is the group G."""

    base: Base
    groups: tuple[Group, ...]
    adapters: Mapping[Expert, lora.Adapter]
    accuracy: Mapping[Expert, np.ndarray]
    """Accuracy of each expert on what it was trained on, [G]."""


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
      recipe: steps and rate.
      cache: folder of cached libraries.
      progress: called with the number of experts that were just finished.
    """
    people = groups(base.world)
    adapters, accuracies = {}, {}
    for names, length in PROGRAMS:
        batch = _batch(base, people, names, length)
        trained = _program(base, names, batch, config, recipe, cache)
        accuracy = _accuracy(base, batch, trained).reshape(len(names), -1)
        for i, name in enumerate(names):
            share = slice(i * len(people), (i + 1) * len(people))
            adapters[name] = jax.tree.map(lambda x, s=share: x[s], trained)
            accuracies[name] = accuracy[i]
        progress(len(names) * len(people))
    return Experts(base, people, adapters, accuracies)


def _program(
    base: Base, names: Sequence[Expert], batch: Batch, config, recipe, cache: Path
) -> lora.Library:
    """Experts [names * G, ...] of one program, trained or restored."""
    keys = keys_of(base.seed, names, len(batch.tokens) // len(names))
    opt, steps = _adam(recipe.learning_rate), recipe.steps
    fit = functools.partial(
        training.fit_experts, base.model, opt, config, steps, base.pad
    )
    folder = cache / "libraries" / key_of(base, names, config, recipe)
    target = jax.eval_shape(fit, base.params, batch, keys)[0]
    restored = checkpoint.restore(folder, target)
    if restored is not None:
        return restored[1]
    library, _ = fit(base.params, batch, keys)
    checkpoint.save(folder, 0, library, {"experts": list(names)})
    return library


def _accuracy(base: Base, batch: Batch, library: lora.Library) -> np.ndarray:
    """Share of its own rows that each expert of [M, ...] answers right, [M]."""
    hits = jax.vmap(
        lambda rows, adapter: scoring.right(
            base.model, base.pad, base.params, *rows, adapter=adapter
        )
    )(batch, library)
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


def batches(experts: Experts, names: Sequence[Expert], length: int) -> Batch:
    """Returns the training rows of some experts of every group, [names, G, N, T].

    Args:
      experts: all experts of a base.
      names: whose rows.
      length: of a row, in tokens.
    """
    flat = _batch(experts.base, experts.groups, names, length)
    return jax.tree.map(lambda x: x.reshape(len(names), -1, *x.shape[1:]), flat)


def _batch(base: Base, people: Sequence[Group], names, length: int) -> Batch:
    """Encodes data sets of unequal size as [names * G, N, T]; unused rows weigh 0."""
    sets = [rows(group, name) for name in names for group in people]
    most = max(map(len, sets))
    encoded = [
        [
            np.pad(x, [(0, most - len(data)), (0, 0)])
            for x in encode(data, base.world.vocab, length)
        ]
        for data in sets
    ]
    return Batch(*(jnp.asarray(np.stack(x)) for x in zip(*encoded, strict=True)))


@functools.cache
def _adam(rate: float) -> optax.GradientTransformation:
    return optax.adam(rate)


def key_of(base: Base, names: Sequence[Expert], config, recipe: ExpertsConfig) -> str:
    """The name of a cached library: a hash of all that decides what is in it.

    Args:
      base: a trained base.
      names: of the experts.
      config: rank, scale and targets.
      recipe: steps and rate.
    """
    leaves = jax.tree.leaves(jax.tree.map(np.asarray, base.params))
    return checkpoint.fingerprint(
        {
            "base": [
                checkpoint.fingerprint({"bytes": leaf.tobytes().hex()})
                for leaf in leaves
            ],
            "people": repr(base.world.splits["people"]),
            "seed": base.seed,
            "experts": [str(name) for name in names],
            "lora": dataclasses.asdict(config),
            "steps": recipe.steps,
            "rate": recipe.learning_rate,
            "code": CODE,
            "versions": [jax.__version__, flax.__version__, optax.__version__],
            "backend": jax.default_backend(),
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
    batch = _batch(base, experts.groups, [Expert.JOINT], 3)
    params, _ = training.finetune(
        base.model,
        _adam(recipe.full_learning_rate),
        recipe.full_steps,
        base.pad,
        base.params,
        batch,
    )
    hits = jax.vmap(lambda p, b: scoring.right(base.model, base.pad, p, *b))(
        params, batch
    )
    return params, _share(hits, batch)
