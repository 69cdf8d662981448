"""Experts of one base, some at a time in one program, or read from the cache."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlora import locks, lora
from jaxlora.evaluate import scoring
from jaxlora.io import checkpoint
from jaxlora.lora import Adapter, LoraConfig
from jaxlora.studies.harness import code, provenance
from jaxlora.studies.word_problems import kinds
from jaxlora.studies.word_problems.bases import Base
from jaxlora.studies.word_problems.kinds import Kind
from jaxlora.studies.word_problems.recipes import ExpertsConfig
from jaxlora.train import full_batch
from jaxlora.train.step import Batch
from jaxlora.tree import Tree

CODE = code.digest("jaxlora.studies.word_problems.experts")


class Expert(NamedTuple):
    """One expert."""

    adapter: Adapter
    accuracy: float
    """Share of its own rows whose trained tokens are all right."""


def train(
    base: Base,
    every: Sequence[Kind],
    how: tuple[LoraConfig, ExpertsConfig],
    cache: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> dict[Kind, Expert]:
    """Trains experts, or reads them from the cache.

    Args:
      base: a trained base.
      every: what each is trained on.
      how: of adapters, and of training.
      cache: folder of cached experts.
      progress: called with the number of experts that were just finished.
    """
    out: dict[Kind, Expert] = {}
    for some in chunks(every, how[1].at_once):
        out |= _program(base, some, how, cache)
        progress(len(some))
    return out


def chunks(every: Sequence[Kind], size: int) -> list[tuple[Kind, ...]]:
    """Groups of a size; the last may be smaller.

    Args:
      every: kinds.
      size: of a group.
    """
    return [tuple(every[i : i + size]) for i in range(0, len(every), size)]


def batch(base: Base, some: Sequence[Kind], recipe: ExpertsConfig) -> Batch:
    """The data sets of some experts, [E, N, T].

    Args:
      base: whose problems.
      some: E kinds.
      recipe: their sizes.
    """
    sets = [kinds.rows(kind, base.world, recipe)[:3] for kind in some]
    return Batch(*(jnp.asarray(np.stack(x)) for x in zip(*sets, strict=True)))


def _program(base: Base, some: Sequence[Kind], how, cache: Path) -> dict[Kind, Expert]:
    """The experts of one program."""
    config = how[0]
    folder = cache / "word_problem_experts" / key_of(base, some, how)
    adapter = jax.eval_shape(lambda: lora.init(jax.random.key(0), base.params, config))
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((len(some), *x.shape), x.dtype), adapter
    )
    with locks.making(folder):
        restored = checkpoint.restore(folder, target)
        if restored is not None:
            _, library, meta = restored
            return _named(some, library, meta["accuracy"])
        library, accuracy = _fit(base, some, how)
        checkpoint.save(folder, 0, library, {"accuracy": accuracy})
    return _named(some, library, accuracy)


def _fit(base: Base, some: Sequence[Kind], how) -> tuple[lora.Library, list[float]]:
    """The experts, trained, and each one's accuracy on its own rows."""
    config, recipe = how
    # All programs have one size, so that they are compiled once.
    filled = [some[i % len(some)] for i in range(recipe.at_once)]
    rows = batch(base, filled, recipe)
    keys = jnp.stack([key(base, kind) for kind in filled])
    starts = _starts(config, base.params, keys)
    steps = full_batch.Steps(recipe.steps, recipe.draw)
    given = (base.model, adam(recipe.learning_rate), steps, base.world.vocab.pad)
    library, _ = full_batch.fit_from(*given, base.params, rows, starts, keys)
    accuracy = _accuracy(base, library, rows)[: len(some)]
    return jax.tree.map(lambda x: x[: len(some)], library), accuracy.tolist()


def _named(some: Sequence[Kind], library, accuracy) -> dict[Kind, Expert]:
    adapters = lora.unstack(library)
    pairs = zip(some, adapters, accuracy, strict=True)
    return {kind: Expert(adapter, share) for kind, adapter, share in pairs}


def key(base: Base, kind: Kind) -> jax.Array:
    """The key of an expert's start and of the rows of each step.

    Args:
      base: whose expert.
      kind: of the expert.
    """
    return jax.random.fold_in(jax.random.key(base.world.seed), kind.number)


@functools.partial(jax.jit, static_argnums=0)
def _starts(config: LoraConfig, params: Tree, keys: jax.Array) -> lora.Library:
    return jax.vmap(lambda k: lora.init(k, params, config))(keys)


def _accuracy(base: Base, library: lora.Library, rows: Batch) -> np.ndarray:
    """Share of its own rows that each expert writes right, told what came before."""
    ask = functools.partial(scoring.right, base.model, base.world.vocab.pad)
    hits = jax.vmap(lambda x, some: ask(base.params, *some, adapter=x))(library, rows)
    return np.asarray(hits.mean(-1))


@functools.cache
def adam(rate: float) -> optax.GradientTransformation:
    """Adam; one object for one rate, since jit tells programs apart by identity.

    Args:
      rate: of learning.
    """
    return optax.adam(rate)


def key_of(base: Base, some: Sequence[Kind], how) -> str:
    """Names a cache entry: a hash of all that decides what is in it.

    Args:
      base: a trained base.
      some: kinds.
      how: of adapters, and of training.
    """
    config, recipe = how
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(base.params)]
    facts: Mapping[str, Any] = {
        "base": [checkpoint.fingerprint({"bytes": x.hex()}) for x in leaves],
        "seed": base.world.seed,
        "table": np.asarray(base.world.operations.table).tolist(),
        "experts": [repr(kind) for kind in some],
        "lora": dataclasses.asdict(config),
        "recipe": dataclasses.asdict(recipe),
        "code": CODE,
        **provenance.program(),
    }
    return checkpoint.fingerprint(facts)


def finetuned(base: Base, some: Sequence[Kind], recipe: ExpertsConfig) -> Tree:
    """Full fine-tuning of a copy of the base for each data set; params [E, ...].

    Args:
      base: a trained base.
      some: kinds.
      recipe: rows, steps and rate.
    """
    rows, keys = batch(base, some, recipe), jnp.stack([key(base, x) for x in some])
    steps = full_batch.Steps(recipe.steps, recipe.draw)
    given = (base.model, adam(recipe.full_learning_rate), steps, base.world.vocab.pad)
    return full_batch.finetune(*given, base.params, rows, keys)[0]
