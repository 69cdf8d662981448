"""Bases that know some operations and have seen the names of others, cached."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlora import locks
from jaxlora.io import checkpoint
from jaxlora.models import Decoder, DecoderConfig
from jaxlora.studies.harness import code, provenance
from jaxlora.studies.word_problems import solving, worlds
from jaxlora.studies.word_problems.recipes import PretrainConfig, WorldConfig
from jaxlora.studies.word_problems.worlds import World
from jaxlora.tasks import word_problems
from jaxlora.tasks.word_problems import reading
from jaxlora.train import pretrain
from jaxlora.tree import Tree

# Taken on import: a file that is edited while a study runs is not what runs.
CODE = code.digest("jaxlora.studies.word_problems.bases")
ANSWER = "answer only"


class Base(NamedTuple):
    """A trained base with what was measured of its criteria."""

    world: World
    model: Decoder
    params: Tree
    steps: int
    measured: Mapping[str, tuple[float, int]]
    """Accuracy and number of items of each criterion."""

    def passed(self, config: PretrainConfig) -> bool:
        """Whether it solves known problems at every level in every template.

        Args:
          config: has the threshold.
        """
        known = [x for name, (x, _) in self.measured.items() if is_required(name)]
        return min(known, default=0.0) >= config.min_known

    def answers(self, config: PretrainConfig) -> bool:
        """Whether it gives answers without steps, so that this may be asked.

        Args:
          config: has the threshold.
        """
        return all(
            self.measured.get(answer_name(level), (0.0, 0))[0] >= config.min_answer
            for level in worlds.ANSWER_LEVELS
        )


def is_required(name: str) -> bool:
    """Is a criterion one without which nothing follows?

    Args:
      name: of a criterion.
    """
    return not name.startswith(ANSWER)


def known_name(level: int, template: int) -> str:
    """The criterion of one level in one template.

    Args:
      level: number of operations.
      template: its number.
    """
    return f"known problems, level {level}, {worlds.NAMES[template]}"


def answer_name(level: int) -> str:
    """The criterion of answers without steps at one level.

    Args:
      level: number of operations.
    """
    return f"{ANSWER}, level {level}"


def train(
    config: WorldConfig,
    shape: DecoderConfig,
    recipe: PretrainConfig,
    seed: int,
    cache: Path,
    progress: Callable[[int, Mapping[str, tuple[float, int]]], None],
) -> Base:
    """Returns a base, trained, resumed or read from the cache.

    Args:
      config: of its world.
      shape: of the model; vocabulary and length are the world's.
      recipe: rows, rates and criteria.
      seed: of the world and the base.
      cache: folder of cached bases.
      progress: called with the steps done and what was measured, after every chunk.
    """
    world = worlds.generate(config, seed)
    model = decoder(shape, world)
    key = checkpoint.fingerprint(
        {
            "world": dataclasses.asdict(config),
            "seed": seed,
            "model": dataclasses.asdict(model.config),
            "pretrain": dataclasses.asdict(recipe),
            "code": CODE,
            **provenance.program(),
        }
    )
    folder = cache / "word_problem_bases" / key
    with locks.making(folder):
        return _train(world, model, recipe, seed, folder, progress)


def _train(world: World, model: Decoder, recipe, seed: int, folder: Path, progress):
    """The base of an entry, which nobody else is making."""
    state, measured, finished = _restored(model, recipe, seed, folder)
    data = None if finished else _data(world, recipe)
    while not finished:
        state = _advance(model, recipe, world, state, data)
        base = Base(world, model, state.params, int(state.step), {})
        measured = measure(base, recipe.items)
        done = base._replace(measured=measured)
        enough = done.answers(recipe) or int(state.step) >= recipe.answer_steps
        finished = done.passed(recipe) and enough
        finished |= int(state.step) >= recipe.max_steps
        meta = {"measured": measured, "finished": finished}
        checkpoint.save(folder, int(state.step), _stored(state), meta)
        progress(int(state.step), measured)
    return Base(world, model, state.params, int(state.step), measured)


def decoder(shape: DecoderConfig, world: World) -> Decoder:
    """The decoder for a world's words and longest row.

    Args:
      shape: all else.
      world: of a seed.
    """
    sizes = {"vocab_size": world.vocab.size, "max_length": world.length + 1}
    return Decoder(dataclasses.replace(shape, **sizes))


def measure(base: Base, n: int) -> dict[str, tuple[float, int]]:
    """Accuracy and number of items of every criterion, on unseen skeletons.

    Args:
      base: a base.
      n: problems of each level and template.
    """
    world, vocab, asked = base.world, base.world.vocab, {}
    for level in range(1, world.levels + 1):
        problems = worlds.held_out(world, level, n)
        for template in range(len(vocab.templates)):
            asked[known_name(level, template)] = problems, template
        if level in worlds.ANSWER_LEVELS:
            asked[answer_name(level)] = problems, vocab.answer_only
    given = [solving.prompts(p, f, vocab, world.levels) for p, f in asked.values()]
    stacked = solving.Prompts(*map(np.stack, zip(*given, strict=True)))
    written = solving.of_params(base.model, vocab, base.params, stacked, False)
    out = {}
    for (name, (problems, number)), tokens in zip(asked.items(), written, strict=True):
        right = reading.answers(tokens, number, vocab) == word_problems.answers(
            problems
        )
        out[name] = float(right.mean()), n
    return out


# One object for one recipe: jit tells compiled programs apart by identity.
_optimizer = functools.cache(pretrain.optimizer)
_start = jax.jit(pretrain.start, static_argnums=(0, 1))


def _opt(recipe: PretrainConfig):
    return _optimizer(recipe.learning_rate, recipe.weight_decay, recipe.warmup)


def _restored(model: Decoder, recipe: PretrainConfig, seed: int, folder: Path):
    """State, what was measured, and whether training is finished."""
    fresh, key = functools.partial(_start, model, _opt(recipe)), jax.random.key(seed)
    target = jax.eval_shape(lambda key: _stored(fresh(key)), key)
    restored = checkpoint.restore(folder, target)
    if restored is None:
        return fresh(key), {}, False
    _, stored, meta = restored
    measured = {name: tuple(x) for name, x in meta["measured"].items()}
    state = dataclasses.replace(stored, key=jax.random.wrap_key_data(stored.key))
    return state, measured, meta["finished"]


def _stored(state: pretrain.State) -> pretrain.State:
    return dataclasses.replace(state, key=jax.random.key_data(state.key))


def _data(world: World, recipe: PretrainConfig) -> pretrain.Data:
    written, answers = (
        (jax.tree.map(jnp.asarray, rows), jnp.asarray(len(rows.tokens), jnp.int32))
        for rows in worlds.pretraining(world, recipe)
    )
    return pretrain.Data(*written, *answers)


def _advance(model, recipe: PretrainConfig, world: World, state, data):
    sizes = pretrain.Sizes(
        recipe.batch, recipe.answer_batch, recipe.answer_every, world.vocab.pad
    )
    return pretrain.chunk(model, _opt(recipe), sizes, recipe.chunk, state, data)[0]
