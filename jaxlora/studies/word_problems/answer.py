"""How arms answer: all pairs of a base at once, each with its own library."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxlora import lora, merge, route
from jaxlora.evaluate import metrics, solutions
from jaxlora.evaluate.schema import Arm, Method
from jaxlora.models import Decoder
from jaxlora.studies.harness import Outcome
from jaxlora.studies.word_problems import (
    design,
    experts,
    questions,
    solving,
    worlds,
)
from jaxlora.studies.word_problems.bases import Base
from jaxlora.studies.word_problems.config import WordProblemsConfig
from jaxlora.studies.word_problems.design import Regime
from jaxlora.studies.word_problems.experts import Expert
from jaxlora.studies.word_problems.kinds import Kind
from jaxlora.studies.word_problems.questions import Asked
from jaxlora.tasks.word_problems import reading
from jaxlora.train import combine
from jaxlora.train.step import Batch
from jaxlora.tree import Tree

COLUMNS = (
    "pair",
    "item",
    "split",
    "level",
    "correct",
    "steps",
    "predicted",
    "chance",
    "counterfactual",
    "error",
)
OTHER_READING = {worlds.COMMON: worlds.OTHER, worlds.OTHER: worlds.COMMON}
"""The template in which a step that cannot be read is tried."""
GATE_ROWS = 128
"""Rows of an expert on which its gate is trained."""
MERGES = 104_729
"""Folded into a seed's key, so that merges and experts draw apart."""


class Setting(NamedTuple):
    """One base under one regime, ready to be asked."""

    config: WordProblemsConfig
    regime: Regime
    base: Base
    asked: Asked
    trained: Mapping[Kind, Expert]


def answer(setting: Setting, arm: Arm, method: Method) -> Outcome:
    """Asks one arm under one method about every pair.

    Args:
      setting: a base under a regime.
      arm: that is asked.
      method: that combines its experts.
    """
    if arm is Arm.BASE:
        return Outcome(_items(setting, _of_params(setting, None)), {})
    kinds = members(setting, arm)
    if arm is Arm.FULL:
        joint = [some[0] for some in kinds]
        params = experts.finetuned(setting.base, joint, setting.config.experts)
        return Outcome(_items(setting, _of_params(setting, params)), {})
    layers = setting.base.model.config.num_layers
    if method is not Method.NONE:
        reason = combine.obstacle(str(method), len(kinds[0]), layers)
        if reason:
            nothing = pd.DataFrame({name: [] for name in COLUMNS})
            return Outcome(nothing, {"unavailable": reason})
    written = _combined(setting, arm, method, kinds)
    every = {kind for some in kinds for kind in some}
    lowest = min(setting.trained[kind].accuracy for kind in every)
    return Outcome(_items(setting, written), {"own": lowest})


def members(setting: Setting, arm: Arm) -> list[tuple[Kind, ...]]:
    """The experts of an arm, for every pair.

    Args:
      setting: a base under a regime.
      arm: with at least one expert.
    """
    count = len(setting.base.world.operations.unknown)
    return [
        design.members(arm, setting.regime, pair, count) for pair in setting.asked.pairs
    ]


def _combined(setting: Setting, arm: Arm, method: Method, kinds) -> np.ndarray:
    """Written solutions [M, Q, N] of an expert, a merge or a route."""
    base = setting.base
    libraries = _libraries(setting, arm, kinds)
    if method is Method.NONE:
        alone = jax.tree.map(lambda x: x[:, 0], libraries)
        return _of_params(setting, _fused(base.params, alone))
    # Every method is a program of its own: unrolled layers would take long to compile.
    rolled = Decoder(dataclasses.replace(base.model.config, unroll=1))
    given = combine.Given(
        rolled,
        base.world.vocab.pad,
        base.params,
        libraries,
        _own(setting, kinds, method),
        _target(setting),
        _keys(setting, arm),
    )
    if str(method) in merge.names():
        merged = combine.merged(given, str(method))
        return _of_params(setting, _fused(base.params, merged))
    assert str(method) in route.names(), method
    routed = combine.routed(given, str(method))
    asked = questions.prompts(setting.asked, base.world, setting.regime.asked)
    how = (routed.libraries, routed.states, asked)
    return solving.of_libraries(routed.model, base.world.vocab, base.params, *how)


def _libraries(setting: Setting, arm: Arm, kinds) -> lora.Library:
    """Libraries [M, E, ...]; random and permuted experts are made of the two."""
    stacked = [
        lora.stack([setting.trained[kind].adapter for kind in some]) for some in kinds
    ]
    libraries = jax.tree.map(lambda *x: jnp.stack(x), *stacked)
    if arm is Arm.RANDOM:
        return _random(_keys(setting, arm), libraries)
    return _permuted(libraries) if arm is Arm.PERMUTED else libraries


# Made once, so that all seeds share their compiled programs.
_random = jax.jit(jax.vmap(merge.random_like))
_permuted = jax.jit(jax.vmap(functools.partial(merge.permute_sites, None)))


@jax.jit
def _fused(base: Tree, adapters: lora.Adapter) -> Tree:
    return jax.vmap(lora.fuse, in_axes=(None, 0))(base, adapters)


def _keys(setting: Setting, arm: Arm) -> jax.Array:
    """One key for each pair, the same for all methods, [M]."""
    key = jax.random.fold_in(jax.random.key(setting.base.world.seed), MERGES)
    key = jax.random.fold_in(key, list(Arm).index(arm))
    return jax.random.split(key, len(setting.asked.pairs))


def _own(setting: Setting, kinds, method: Method) -> Batch:
    """What every expert was trained on, [M, E, N, T].

    Gates that are trained on it see some rows, evenly from all parts: a hundred steps
    on all rows of all experts would take longer than the rest of the leaderboard.
    """
    recipe = setting.config.experts
    name, every = str(method), 1
    if name in route.names() and route.describe(name).training is not None:
        every = max(1, recipe.rows // GATE_ROWS)
    rows = [experts.batch(setting.base, some, recipe) for some in kinds]
    return jax.tree.map(lambda *x: jnp.stack(x)[:, :, ::every], *rows)


def _target(setting: Setting) -> Batch:
    """Problems of every pair that need both skills, with their solutions, [M, Q, T]."""
    return questions.lessons(setting.asked, setting.base.world, setting.regime.asked)


def _of_params(setting: Setting, params: Tree | None) -> np.ndarray:
    """Asks the base, or params with a leading axis M."""
    base, stacked = setting.base, params is not None
    asked = questions.prompts(setting.asked, base.world, setting.regime.asked)
    params = params if stacked else base.params
    return solving.of_params(base.model, base.world.vocab, params, asked, stacked)


def _items(setting: Setting, written: np.ndarray) -> pd.DataFrame:
    return collect(written, setting.asked, setting.base.world, setting.regime.asked)


def collect(
    written: np.ndarray, asked: Asked, world: worlds.World, template: int
) -> pd.DataFrame:
    """One line for each question of each pair.

    Args:
      written: int [M, Q, N], solutions.
      asked: what was asked.
      world: whose vocabulary.
      template: in which steps were to be written.
    """
    m, q, n = written.shape
    flat, formats = (
        written.reshape(m * q, n),
        np.tile(questions.formats_of(asked, world, template), m),
    )
    answers = asked.answers.reshape(-1)
    predicted = reading.answers(flat, formats, world.vocab)
    right = predicted == answers
    error = _first_errors(flat, asked, world, template, formats)
    sets = asked.frame["split"] + asked.frame["level"].astype(str)
    groups = (asked.frame["pair"].astype(str) + sets).to_numpy()
    moved = asked.moved.reshape(2, -1)
    return asked.frame.assign(
        correct=right.astype(int),
        steps=(error < 0).astype(int),
        predicted=predicted,
        chance=metrics.chance(predicted, answers, groups),
        # 1 for the answer of operation A moved, 2 for that of B, 3 where both agree.
        counterfactual=((predicted == moved[0]) + 2 * (predicted == moved[1])) * ~right,
        error=error,
    )[list(COLUMNS)]


def _first_errors(flat, asked: Asked, world, template: int, formats) -> np.ndarray:
    """Numbers of ``solutions.KINDS``; -1 where all steps are right, or none asked."""
    vocab = world.vocab
    expected = asked.steps.reshape(-1, *asked.steps.shape[2:])
    written = reading.steps(flat, formats, vocab)
    other = None
    if template in OTHER_READING:
        away = np.where(formats == template, OTHER_READING[template], formats)
        other = reading.steps(flat, away, vocab)
    _, kind = solutions.first_errors(expected, written, other)
    return np.where(formats == vocab.answer_only, -1, kind)
