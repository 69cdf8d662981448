"""The experts of one group, trained on its texts in one program, or from the cache."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlora import lora
from jaxlora.io import checkpoint
from jaxlora.lora import Adapter
from jaxlora.models import Decoder
from jaxlora.studies.two_hop import code
from jaxlora.studies.two_hop_text.config import TextConfig, TrainConfig
from jaxlora.studies.two_hop_text.talk import Talk
from jaxlora.tasks.packing import Rows
from jaxlora.tasks.two_hop import separation
from jaxlora.tasks.two_hop.cells import Cell
from jaxlora.tasks.two_hop.experts import Expert, Group
from jaxlora.train import packed as training
from jaxlora.train.training import Plan, optimizer
from jaxlora.tree import Tree

CHUNK = 20
"""Updates between two looks at the progress."""
CODE = code.digest("tasks", "models", "train", "lora.py", "studies/two_hop_text")


class Trained(NamedTuple):
    """The experts of one group."""

    adapters: dict[Expert, Adapter]
    losses: dict[Expert, float]
    """Nats per answer token in the last update."""


def train(
    model: Decoder,
    base: Tree,
    talk: Talk,
    group: Group,
    seed: int,
    config: TextConfig,
    cache: Path,
    tell: Callable[[int, int, float], None] = lambda *_: None,
    names: Sequence[Expert] = tuple(Expert),
) -> Trained:
    """Trains, or reads from the cache, every expert of a group.

    Args:
      model: a decoder without a route.
      base: its params.
      talk: puts texts into rows.
      group: whose facts the experts learn.
      seed: of initialisation and order.
      config: of the study.
      cache: folder of cached libraries.
      tell: called with (updates done, updates in all, mean loss).
      names: of the experts; by default all that the study uses.
    """
    sets = [
        talk.rows(
            separation.texts(group, name, config.phrasings), config.train.length, seed
        )
        for name in names
    ]
    # By the expert's place among all, so that it does not depend on the others.
    places = [number(group) + list(Expert).index(name) for name in names]
    fold = functools.partial(jax.random.fold_in, jax.random.key(seed))
    keys = jax.vmap(fold)(jnp.array(places))
    target = jax.eval_shape(
        lambda keys: _fresh(base, config.lora, _optimizer(), keys).trained, keys
    )
    folder = cache / "libraries" / _key_of(base, sets, seed, places, config)
    found = checkpoint.restore(folder, target)
    if found is None:
        order = [
            _order(len(rows.tokens), config.train, seed, place)
            for rows, place in zip(sets, places, strict=True)
        ]
        library, losses = _fit(model, base, keys, sets, order, config, tell)
        checkpoint.save(folder, 0, library, {"losses": losses})
    else:
        library, losses = found[1], found[2]["losses"]
    adapters = dict(zip(names, lora.unstack(library), strict=True))
    return Trained(adapters, dict(zip(names, losses, strict=True)))


def number(group: Group) -> int:
    """A number of cell and pair, from which keys of their own are folded."""
    return 1000 * (1 + group.pair) + 100 * list(Cell).index(group.cell)


# The base is an argument: a constant of the program would be held twice.
_fresh: Any = jax.jit(training.start, static_argnums=(1, 2))


def _fit(model: Decoder, base, keys, sets, order, config: TextConfig, tell):
    """Runs all updates; returns the library and the last losses."""
    steps, opt = config.train.steps, _optimizer()
    model = Decoder(dataclasses.replace(model.config, remat=True))
    run = _fresh(base, config.lora, opt, keys)
    plan = _plan(config.train, len(sets))
    program = training.Program(model, opt, config.train.at_once or len(sets))
    losses: list[float] = []
    for start in range(0, steps, CHUNK):
        batch = _batch(sets, [chosen[start : start + CHUNK] for chosen in order])
        run, told = training.updates(program, base, run, plan, batch)
        losses = np.asarray(told.loss[:, -1]).tolist()
        tell(min(start + CHUNK, steps), steps, float(np.mean(losses)))
    return run.trained, losses


def _plan(config: TrainConfig, experts: int) -> Plan:
    numbers = (config.learning_rate, config.warmup, config.steps, 1.0)
    return Plan(*(jnp.full(experts, x, jnp.float32) for x in numbers))


def _order(rows: int, config: TrainConfig, seed: int, expert: int) -> np.ndarray:
    """Rows of every update, [steps, batch]: epoch after epoch, each in a new order."""
    rng = np.random.default_rng([seed, expert])
    needed = config.steps * config.batch
    epochs = [rng.permutation(rows) for _ in range(-(-needed // rows))]
    return np.concatenate(epochs)[:needed].reshape(config.steps, config.batch)


def _batch(sets: Sequence[Rows], chosen: Sequence[np.ndarray]) -> Rows:
    """Rows [E, K, 1, N, T] of the next K updates."""
    parts = [
        [np.asarray(x)[rows][:, None] for x in mine]
        for mine, rows in zip(sets, chosen, strict=True)
    ]
    return Rows(*(np.stack(x) for x in zip(*parts, strict=True)))


@functools.cache
def _optimizer() -> optax.GradientTransformation:
    # One object: jit tells compiled programs apart by identity.
    return optimizer()


def _key_of(base, sets: Sequence[Rows], seed, places, config: TextConfig) -> str:
    return checkpoint.fingerprint(
        {
            "base": digest(base),
            "rows": [
                [checkpoint.fingerprint({"x": x.tolist()}) for x in s] for s in sets
            ],
            "seed": [seed, *places],
            "lora": dataclasses.asdict(config.lora),
            "train": dataclasses.asdict(config.train) | {"at_once": 0},
            "dtype": config.dtype,
            "code": CODE,
            "versions": [jax.__version__, flax.__version__, optax.__version__],
            "backend": jax.default_backend(),
        }
    )


def digest(base: Tree) -> list[list[float]]:
    """Tells bases apart by the sum and the sum of squares of every leaf.

    Reading billions of parameters back to hash them would take minutes.
    """
    return np.asarray(_sums(base), np.float64).tolist()


@jax.jit
def _sums(base: Tree) -> jax.Array:
    def one(x: jax.Array) -> jax.Array:
        x = x.astype(jnp.float32)
        return jnp.stack([jnp.sum(x), jnp.sum(x * x)])

    return jnp.stack([one(x) for x in jax.tree.leaves(base)])
