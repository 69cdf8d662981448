"""A training run of experts or gates on text: batches, checkpoints, exact resume.

:func:`.loop.learn` feeds chunks of updates to :func:`jaxlora.train.text.updates`.
Batch k of an expert is a function of its rows, its seed and k, so that a run's state
is its arrays and a step number: killed and resumed, it ends bit-equal.
"""

import dataclasses
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxlora.lora import Library, LoraConfig
from jaxlora.models import Decoder
from jaxlora.tasks.packing import Rows
from jaxlora.train import schedule as schedules
from jaxlora.train import text
from jaxlora.train.loop import Tell, learn
from jaxlora.train.part import GATE
from jaxlora.train.schedule import Schedule as Schedule
from jaxlora.tree import Tree

ONE_BY_ONE = 512
"""Tokens of a microbatch from which on a CPU trains one expert after another."""
SAVE_EVERY = 60.0
"""Seconds between checkpoints; the last one is always written."""


class Trained(NamedTuple):
    """What a run gives; histories are padded with NaN after an expert's end."""

    library: Library
    """[E, ...], float32."""
    loss: np.ndarray
    """[E, updates], nats per answer token before each update."""
    norm: np.ndarray
    """[E, updates], norm of the gradient before clipping."""
    resumed: int
    """Updates that a checkpoint had already."""


class TrainedGates(NamedTuple):
    """As :class:`Trained`, of gates."""

    states: Tree
    """[G, E, ...]: keys as trained, live places and fingerprints as they were."""
    loss: np.ndarray
    """[G, updates]."""
    norm: np.ndarray
    """[G, updates]."""
    resumed: int


def at_once(experts: int, tokens: int) -> int:
    """How many experts run together, as measured on two CPU cores (benchmarks).

    Args:
      experts: E.
      tokens: of one expert's microbatch.

    >>> at_once(8, 80)
    8
    """
    alone = jax.default_backend() == "cpu" and tokens >= ONE_BY_ONE
    return 1 if alone else experts


def key_of(seed: int, name: str) -> jax.Array:
    """The key of an expert's start: by its name, whoever else is trained with it."""
    return jax.random.fold_in(jax.random.key(seed), schedules.number(name))


def train(
    model: Decoder,
    base: Tree,
    data: Mapping[str, Rows],
    config: LoraConfig,
    schedule: Schedule,
    *,
    opt: optax.GradientTransformation,
    seed: int = 0,
    together: int = 0,
    chunk: int = 8,
    folder: Path | None = None,
    made_by: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    tell: Tell = lambda *_: None,
) -> Trained:
    """Trains one expert for each entry of ``data``.

    Args:
      model: a decoder without a route.
      base: frozen params tree.
      data: rows by name, of one length T.
      config: rank, scale and targets of every expert.
      schedule: how long and how fast.
      opt: from :func:`jaxlora.train.text.optimizer`.
      seed: of starts and orders.
      together: experts that run at once; 0 chooses.
      chunk: updates between two looks at the clock, at most; compiled once.
      folder: of checkpoints; without one, a killed run starts again.
      made_by: what else makes the run what it is (base, files), for refusing to
        resume another one.
      mesh: cuts experts over ``expert`` and batches over ``data``; the base must lie
        on it.
      tell: called after each chunk.

    Raises:
      ValueError: if there are no data, rows differ in length, the folder holds another
        run, or an expert's loss is no longer finite.
    """
    _check_rows(data)
    keys = jnp.stack([key_of(seed, name) for name in data])
    run = jax.jit(text.start, static_argnums=(1, 2))(base, config, opt, keys)
    facts = {"lora": dataclasses.asdict(config) | {"targets": list(config.targets)}}
    facts |= _facts(data, schedule, seed, made_by)
    return Trained(
        *learn(
            model,
            base,
            data,
            schedule,
            run,
            {},
            facts=facts,
            opt=opt,
            seed=seed,
            together=together or _at_once(data, schedule),
            chunk=chunk,
            folder=folder,
            save_every=SAVE_EVERY,
            mesh=mesh,
            tell=tell,
        )
    )


def train_gates(
    model: Decoder,
    base: Tree,
    libraries: Library,
    states: Tree,
    data: Mapping[str, Rows],
    schedule: Schedule,
    *,
    opt: optax.GradientTransformation,
    seed: int = 0,
    together: int = 0,
    chunk: int = 8,
    folder: Path | None = None,
    made_by: Mapping[str, Any] | None = None,
    mesh: Mesh | None = None,
    tell: Tell = lambda *_: None,
) -> TrainedGates:
    """Trains the keys of one gate for each entry of ``data``; all else is frozen.

    Args:
      model: a decoder with a route.
      base: frozen params tree.
      libraries: [G, E, ...], frozen, each as the route uses it.
      states: of the route, one for each library, [G, ...]; they are not changed.
      data: G data sets: rows by name, of one length T.
      schedule: as in :func:`train`, and so are all that follow.
      opt: see there.
      seed: of orders.
      together: gates that learn at once; 0 chooses.
      chunk: see there.
      folder: see there.
      made_by: see there.
      mesh: cuts gates over ``expert`` and batches over ``data``.
      tell: called after each chunk.

    Raises:
      ValueError: as :func:`train`; also if there are not as many data sets as
        libraries and states.
    """
    _check_rows(data)
    sizes = {x.shape[0] for x in jax.tree.leaves((libraries, states))}
    if sizes != {len(data)}:
        raise ValueError(
            f"Got {len(data)} data sets, and libraries and states with leading axes "
            f"of {sorted(sizes)}, expected one library and one state a data set."
        )
    facts = _facts(data, schedule, seed, made_by)
    facts |= {"route": repr(model.route), "experts": _sums((libraries, states))}
    return TrainedGates(
        *learn(
            model,
            base,
            data,
            schedule,
            text.start_gates(states, opt),
            {"part": GATE, "held": {"library": libraries}},
            facts=facts,
            opt=opt,
            seed=seed,
            together=together or _at_once(data, schedule),
            chunk=chunk,
            folder=folder,
            save_every=SAVE_EVERY,
            mesh=mesh,
            tell=tell,
        )
    )


def _check_rows(data: Mapping[str, Rows]) -> None:
    lengths = {rows.tokens.shape[1] for rows in data.values()}
    if len(lengths) != 1:
        raise ValueError(
            f"Got {len(data)} data sets with rows of {sorted(lengths)} tokens, "
            f"expected one set at least, and one length."
        )


def _at_once(data: Mapping[str, Rows], schedule: Schedule) -> int:
    length = next(iter(data.values())).tokens.shape[1]
    return at_once(len(data), schedule.batch * length)


def _facts(data, schedule, seed, made_by) -> dict[str, Any]:
    """What must be equal for a run to go on; data by checksums."""
    # A list: states lie in the order of the names, which keys of JSON would lose.
    rows = [
        [name, list(r.tokens.shape), [zlib.crc32(column.tobytes()) for column in r]]
        for name, r in data.items()
    ]
    return {
        "rows": rows,
        "schedule": dataclasses.asdict(schedule),
        "seed": seed,
        **(made_by or {}),
    }


def _sums(tree: Tree) -> list[int]:
    leaves = jax.tree.leaves(jax.device_get(tree))
    return [zlib.crc32(np.ascontiguousarray(leaf).data) for leaf in leaves]
